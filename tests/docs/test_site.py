"""The site: it builds without a warning; its pictures and addresses are up to date."""

import re
import runpy
import subprocess
import sys

import pytest
from snippets import ROOT

DIAGRAMS = ROOT / "docs" / "diagrams.py"


@pytest.fixture(scope="module")
def pictures():
    return runpy.run_path(DIAGRAMS)["PICTURES"]


@pytest.mark.parametrize("path", sorted((ROOT / "docs/images").glob("*.svg")), ids=lambda p: p.name)
def test_a_picture_shows_what_the_layers_do(path, pictures):
    assert path.read_text(encoding="utf-8") == pictures[path.name](), (
        "run `python docs/diagrams.py`"
    )


def test_all_pictures_are_there(pictures):
    assert {path.name for path in (ROOT / "docs/images").glob("*.svg")} == {*pictures}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", folder]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return folder


def test_the_site_builds_without_a_warning_and_publishes_no_script(site):
    assert (site / "guides" / "search" / "index.html").exists()
    assert list(site.rglob("*.py")) == []


def test_no_page_loads_anything_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link rel="stylesheet")\b[^>]* (?:src|href)="(https?:[^"]+)"',
            page.read_text(encoding="utf-8"),
        )
        assert loaded == [], page


@pytest.mark.parametrize("name", ["CITATION.cff", "mkdocs.yml", "README.md", "CONTRIBUTING.md"])
def test_addresses_are_those_of_the_project(name):
    pattern = r"https://(?:github\.com/[\w-]*resblocks[\w-]*/[\w-]+|[\w-]+\.github\.io/[\w-]+)"
    known = set(re.findall(pattern, (ROOT / "pyproject.toml").read_text()))
    assert len(known) == 2
    assert set(re.findall(pattern, (ROOT / name).read_text())) <= known
