"""The entries of the API pages, as the site reads them."""

import functools
import logging
import pathlib
import pkgutil
import re
import typing

import griffe
import yaml

ROOT = pathlib.Path(__file__).parents[2]
API = ROOT / "docs" / "api"


class Entry(typing.NamedTuple):
    """A `::: name` of a page."""

    page: str
    name: str
    options: dict


@functools.cache
def entries():
    """The `Entry` of each directive on the pages, those of the types left out."""
    pattern = re.compile(r"^::: (\S+)\n((?: +.*\n)*)", re.MULTILINE)
    return [
        Entry(page.name, name, (yaml.safe_load(options) or {}).get("options", {}))
        for page in sorted(API.glob("*.md"))
        if page.name != "types.md"
        for name, options in pattern.findall(page.read_text())
    ]


@functools.cache
def package():
    """The package as Griffe reads it, with the options of `mkdocs.yml`."""
    text = (ROOT / "mkdocs.yml").read_text()
    (options,) = re.findall(r"docstring_options:\n((?: {14}.*\n)+)", text)
    return griffe.load(
        "keras_resblocks",
        search_paths=[ROOT],
        docstring_parser="google",
        docstring_options=yaml.safe_load(options),
        extensions=griffe.load_extensions(ROOT / "docs" / "griffe_options.py"),
    )


def described(name):
    """What Griffe knows of a public name."""
    thing = package()[name.removeprefix("keras_resblocks.")]
    return thing.final_target if thing.is_alias else thing


def members(entry):
    """The members that a page shows below an entry, by name."""
    thing = described(entry.name)
    shown = {name: thing.all_members[name] for name in entry.options.get("members", ())}
    return {name: one.final_target if one.is_alias else one for name, one in shown.items()}


def runtime(name):
    """The object itself."""
    return pkgutil.resolve_name(described(name).path)


def sections(thing):
    """The sections of a docstring by kind, admonitions by their title; and Griffe's warnings."""
    heard = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    logging.getLogger("griffe").addHandler(handler)
    try:
        parsed = thing.docstring.parse() if thing.docstring else []
    finally:
        logging.getLogger("griffe").removeHandler(handler)
    found = {}
    for section in parsed:
        is_titled = section.kind is griffe.DocstringSectionKind.admonition
        found.setdefault(section.title if is_titled else section.kind.value, section.value)
    return found, heard
