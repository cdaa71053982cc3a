"""Every public name has its entry on an API page, whole and right."""

import argparse
import ast
import collections
import dataclasses
import inspect
import re
import textwrap

import entries
import keras
import pytest

import keras_resblocks
from keras_resblocks import checkpoints, cli, layers, models, training, tuner
from keras_resblocks.cli import data

MODULES = (keras_resblocks, layers, layers.shortcuts, models, checkpoints, training, tuner, data)
PUBLIC = {
    id(thing): f"{module.__name__}.{name}"
    for module in reversed(MODULES)
    for name in module.__all__
    if not inspect.ismodule(thing := getattr(module, name))
}
# What public functions return, beside the public names.
RETURNED = {"Report", "SearchRecords", "TrialRecord"}
ENTRIES = {entry.name: entry for entry in entries.entries()}
# Entries, and the members that their pages show, as Griffe knows them.
DESCRIBED = {name: entries.described(name) for name in ENTRIES}
MEMBERS = {
    f"{name}.{member}": described
    for name, entry in ENTRIES.items()
    for member, described in entries.members(entry).items()
}
# Functions with arguments that check none of them.
UNCHECKED = {"list_models", "list_weights", "hp_activation", "changes_shape", "serialize"} | {
    *("Images", "Batches")
}
# Structures that a paper describes.
PUBLISHED = {"ResidualBlock", "BottleneckBlock", "InceptionBlock", "v1", "SqueezeExcite"} | {
    *("EfficientChannelAttention", "StochasticDepth", "ZeroPadShortcut", "ProjectionShortcut"),
    *("AvgPoolShortcut", "ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152"),
    *("GoogLeNet", "AuxHead", "InceptionHyperModel", "FineTuneHyperModel"),
}

each_entry = pytest.mark.parametrize("name", sorted(DESCRIBED))
each = pytest.mark.parametrize("name", sorted(DESCRIBED | MEMBERS))


def _sections(name):
    return entries.sections((DESCRIBED | MEMBERS)[name])[0]


def _arguments(described):
    """The parameters that a user gives."""
    parameters = getattr(described, "parameters", ())
    return [p for p in parameters if p.name not in ("self", "cls")]


def _own_fields(described):
    """The fields of a dataclass or a named tuple, which have no constructor of their own."""
    if "dataclass" in described.labels:
        return [parameter.name for parameter in _arguments(described)]
    if described.is_class and "NamedTuple" in str(described.bases):
        members = described.members.values()
        return [one.name for one in members if one.is_attribute and "property" not in one.labels]
    return []


def test_every_public_name_is_on_exactly_one_page():
    counts = collections.Counter(id(entries.runtime(name)) for name in ENTRIES)
    names = [entry.name for entry in entries.entries()]
    assert len(names) == len(set(names)) > 80
    assert {PUBLIC[one]: counts[one] for one in PUBLIC} == dict.fromkeys(PUBLIC.values(), 1)
    others = [name for name in ENTRIES if id(entries.runtime(name)) not in PUBLIC]
    assert {name.rpartition(".")[2] for name in others} == RETURNED


def test_the_overview_links_to_every_entry():
    text = (entries.API / "index.md").read_text()
    assert sorted(re.findall(r"\[`\w+`\]\[(\S+)\]", text)) == sorted(ENTRIES)


@each
def test_docstring_begins_with_a_summary_and_is_read_without_a_warning(name):
    described = (DESCRIBED | MEMBERS)[name]
    sections, warnings = entries.sections(described)
    assert warnings == []
    summary = described.docstring.value.split("\n\n")[0]
    assert summary[-1] in ".:`)"
    assert "\n" not in summary
    assert "text" in sections


@each
def test_every_parameter_is_documented_and_no_other(name):
    described = (DESCRIBED | MEMBERS)[name]
    sections = _sections(name)
    documented = [one.name for one in sections.get("parameters", ())]
    given = []
    for parameter in _arguments(described):
        stars = {"variadic positional": "*", "variadic keyword": "**"}
        given.append(stars.get(parameter.kind and parameter.kind.value, "") + parameter.name)
    if given == ["**arguments"]:  # all are another function's
        assert "`create_model" in described.docstring.value
        return
    if fields := _own_fields(described):
        documented += [one.name for one in sections.get("attributes", ())]
        given = fields
    assert sorted(documented) == sorted(given)


@each
def test_every_parameter_and_result_is_annotated(name):
    described = (DESCRIBED | MEMBERS)[name]
    assert all(parameter.annotation is not None for parameter in _arguments(described))
    if described.is_function:
        assert described.returns is not None
    for one in _sections(name).get("attributes", ()):
        assert one.annotation is not None


@each
def test_a_result_is_described(name):
    described = (DESCRIBED | MEMBERS)[name]
    if described.is_function and str(described.returns) not in ("None", "keras.Model"):
        assert "returns" in _sections(name)


@each_entry
def test_errors_of_arguments_are_described(name):
    described = DESCRIBED[name]
    arguments = [p for p in _arguments(described) if p.kind and p.kind.value != "variadic keyword"]
    checks = _checks(entries.runtime(name))
    if _own_fields(described):
        expected = "__post_init__" in described.all_members
    else:
        expected = bool(arguments) and described.name not in UNCHECKED
    assert ("raises" in _sections(name)) == expected
    assert not checks or expected or not arguments


def _checks(thing):
    """Whether a function, or a class where it is made, raises errors itself."""
    if inspect.isclass(thing):
        own = vars(thing)
        is_made = dataclasses.is_dataclass(thing)
        thing = own.get("__post_init__") if is_made else own.get("__init__")
    if not inspect.isfunction(thing) or thing.__module__.partition(".")[0] != "keras_resblocks":
        return False
    tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    return any(
        isinstance(node, ast.Raise)
        or (isinstance(node, ast.Attribute) and ast.unparse(node).startswith("validation."))
        for node in ast.walk(tree)
    )


@each_entry
def test_a_layer_tells_its_shapes_and_a_published_structure_its_source(name):
    thing, sections = entries.runtime(name), _sections(name)
    is_layer = inspect.isclass(thing) and issubclass(thing, keras.layers.Layer)
    assert ({"Input shape", "Output shape"} <= sections.keys()) == is_layer
    if name.rpartition(".")[2] in PUBLISHED:
        assert "References" in sections


@each_entry
def test_there_is_an_example(name):
    assert "examples" in _sections(name)


def _documented(name):
    sections = _sections(name)
    listed = (*sections.get("parameters", ()), *sections.get("other parameters", ()))
    return {one.name for one in listed}


def test_the_block_that_the_others_refer_to_documents_every_option():
    options = set(inspect.signature(layers.ResidualBlock).parameters) - {"kwargs"}
    assert options <= _documented("keras_resblocks.ResidualBlock")


@pytest.mark.parametrize("name", [n for n in ENTRIES if n.endswith("HyperModel")])
def test_every_list_of_a_search_space_is_documented(name):
    thing = entries.runtime(name)
    ours = {f"keras_resblocks.tuner.{one.__name__}" for one in thing.__mro__} & ENTRIES.keys()
    assert set(thing.defaults) <= set().union(*map(_documented, ours))


def test_the_page_of_the_command_line_has_every_option():
    page = (entries.API / "command-line.md").read_text()
    known = set()
    for module in cli.COMMANDS.values():
        parser = argparse.ArgumentParser(add_help=False)
        module.add_arguments(parser)
        known.update(re.findall(r"^ +(--[a-z-]+)", parser.format_help(), re.MULTILINE))
    assert len(known) > 40
    assert known == set(re.findall(r"^\| `(--[a-z-]+)`", page, re.MULTILINE))
