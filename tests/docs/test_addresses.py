"""The addresses of the project are those of `pyproject.toml`."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["CITATION.cff", "mkdocs.yml", "README.md", "CONTRIBUTING.md"])
def test_addresses_are_those_of_the_project(name):
    pattern = r"https://(?:github\.com/[\w-]*resblocks[\w-]*/[\w-]+|[\w-]+\.github\.io/[\w-]+)"
    known = set(re.findall(pattern, (ROOT / "pyproject.toml").read_text()))
    assert len(known) == 2
    assert set(re.findall(pattern, (ROOT / name).read_text())) <= known
