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
    f"{module.__name__}.{name}": thing
    for module in MODULES
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
ALL = DESCRIBED | MEMBERS
READ = {name: entries.sections(described) for name, described in ALL.items()}
SECTIONS = {name: sections for name, (sections, _) in READ.items()}
# Functions and classes with arguments that check none of them.
UNCHECKED = {"list_models", "list_weights", "hp_activation", "changes_shape", "serialize"} | {
    *("Images", "Batches")
}
# Structures that a paper describes.
PUBLISHED = {"ResidualBlock", "BottleneckBlock", "InceptionBlock", "v1", "SqueezeExcite"} | {
    *("EfficientChannelAttention", "StochasticDepth", "ZeroPadShortcut", "ProjectionShortcut"),
    *("AvgPoolShortcut", "ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152"),
    *("GoogLeNet", "AuxHead", "InceptionHyperModel", "FineTuneHyperModel"),
}


def _parameters(described):
    """The parameters that a user gives, by name with their stars."""
    stars = {"variadic positional": "*", "variadic keyword": "**"}
    return {
        stars.get(one.kind and one.kind.value, "") + one.name: one
        for one in getattr(described, "parameters", ())
        if one.name not in ("self", "cls")
    }


def _fields(described):
    """The fields of a dataclass or a named tuple, which have no constructor of their own."""
    if "dataclass" in described.labels:
        return {*_parameters(described)}
    if described.is_class and "NamedTuple" in str(described.bases):
        members = described.members.values()
        return {one.name for one in members if one.is_attribute and "property" not in one.labels}
    return set()


def _listed(name, *kinds):
    return {one.name for kind in kinds for one in SECTIONS[name].get(kind, ())}


def test_every_public_name_is_on_exactly_one_page():
    counts = collections.Counter(id(entries.runtime(name)) for name in ENTRIES)
    names = [entry.name for entry in entries.entries()]
    assert len(names) == len(set(names)) > 80
    assert {name: counts[id(thing)] for name, thing in PUBLIC.items()} == dict.fromkeys(PUBLIC, 1)
    public = {id(thing) for thing in PUBLIC.values()}
    others = [name for name in ENTRIES if id(entries.runtime(name)) not in public]
    assert {name.rpartition(".")[2] for name in others} == RETURNED


def test_the_overview_links_to_every_entry():
    text = (entries.API / "index.md").read_text()
    assert sorted(re.findall(r"\[`\w+`\]\[(\S+)\]", text)) == sorted(ENTRIES)


def test_docstrings_are_read_without_a_warning():
    assert not {name: warnings for name, (_, warnings) in READ.items() if warnings}


def test_docstrings_begin_with_a_summary_of_one_line():
    summaries = {
        name: described.docstring.value.split("\n\n")[0] if described.docstring else ""
        for name, described in ALL.items()
    }
    assert not {n: text for n, text in summaries.items() if not re.fullmatch(".+[.:`]", text)}


def test_every_parameter_is_documented_and_no_other():
    wrong = {}
    for name, described in ALL.items():
        given = {*_parameters(described)}
        documented = _listed(name, "parameters")
        if given == {"**arguments"} and "`create_model" in described.docstring.value:
            continue  # they are all that function's
        if fields := _fields(described):
            given, documented = fields, _listed(name, "parameters", "attributes")
        if given != documented:
            wrong[name] = given ^ documented
    assert not wrong


def test_every_attribute_has_a_type():
    for name in ALL:
        attributes = SECTIONS[name].get("attributes", ())
        assert [one.name for one in attributes if one.annotation is None] == [], name


def _functions(thing):
    """The functions of our own that a user can call, by name: itself, or those of a class."""
    if not inspect.isclass(thing):
        yield "", thing
        return
    for owner in thing.__mro__:
        if owner.__module__.startswith("keras_resblocks"):
            for name, member in vars(owner).items():
                member = getattr(member, "fget", getattr(member, "func", member))
                member = getattr(member, "__func__", member)
                if inspect.isfunction(member) and (name == "__init__" or name[0] != "_"):
                    yield f".{owner.__name__}.{name}", member


def test_every_parameter_and_result_is_annotated():
    missing = []
    for public, thing in PUBLIC.items():
        for name, function in _functions(thing):
            signature = inspect.signature(function)
            missing += [
                f"{public}{name}({parameter.name})"
                for parameter in signature.parameters.values()
                if parameter.annotation is parameter.empty and parameter.name not in ("self", "cls")
            ]
            if signature.return_annotation is signature.empty:
                missing.append(f"{public}{name} ->")
    assert not missing


def test_every_result_is_described():
    functions = {name: one for name, one in ALL.items() if one.is_function}
    forwards = {name for name, one in functions.items() if [*_parameters(one)] == ["**arguments"]}
    returning = {name for name, one in functions.items() if str(one.returns) != "None"}
    assert {name for name in functions if "returns" in SECTIONS[name]} == returning - forwards


def test_the_errors_of_arguments_are_described():
    wrong = []
    for name, described in DESCRIBED.items():
        is_given = any(not one.startswith("**") for one in _parameters(described))
        expected = is_given and described.name not in UNCHECKED
        if _fields(described):
            expected = "__post_init__" in described.all_members
        is_right = ("raises" in SECTIONS[name]) == expected
        if not is_right or (is_given and not expected and _raises(entries.runtime(name))):
            wrong.append(name)
    assert not wrong


def _raises(thing):
    """Whether a function, or a class where it is made, raises errors itself."""
    if inspect.isclass(thing):
        is_made = dataclasses.is_dataclass(thing)
        thing = vars(thing).get("__post_init__" if is_made else "__init__")
    if not inspect.isfunction(thing) or thing.__module__.partition(".")[0] != "keras_resblocks":
        return False
    return any(
        isinstance(node, ast.Raise) or ast.unparse(node).startswith("validation.")
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(thing))))
    )


def test_layers_tell_their_shapes():
    layer = keras.layers.Layer
    things = {name: entries.runtime(name) for name in ENTRIES}
    expected = {n for n, one in things.items() if inspect.isclass(one) and issubclass(one, layer)}
    for title in ("Input shape", "Output shape"):
        assert {name for name in ENTRIES if title in SECTIONS[name]} == expected


def test_published_structures_tell_their_source():
    told = {name.rpartition(".")[2] for name in ALL if "References" in SECTIONS[name]}
    assert told >= PUBLISHED


def test_every_entry_has_an_example():
    assert not [name for name in ENTRIES if "examples" not in SECTIONS[name]]


def test_the_block_that_the_others_refer_to_documents_every_option():
    options = set(inspect.signature(layers.ResidualBlock).parameters) - {"kwargs"}
    assert options <= _listed("keras_resblocks.ResidualBlock", "parameters")


@pytest.mark.parametrize("name", [n for n in ENTRIES if n.endswith("HyperModel")])
def test_every_list_of_a_search_space_is_documented(name):
    thing = entries.runtime(name)
    ours = {f"keras_resblocks.tuner.{one.__name__}" for one in thing.__mro__} & ENTRIES.keys()
    documented = (_listed(one, "parameters", "other parameters") for one in ours)
    assert set(thing.defaults) <= set().union(*documented)


def test_the_page_of_the_command_line_has_every_option():
    page = (entries.API / "command-line.md").read_text()
    known = set()
    for module in cli.COMMANDS.values():
        parser = argparse.ArgumentParser(add_help=False)
        module.add_arguments(parser)
        known.update(re.findall(r"^ +(--[a-z-]+)", parser.format_help(), re.MULTILINE))
    assert len(known) > 40
    assert known == set(re.findall(r"^\| `(--[a-z-]+)`", page, re.MULTILINE))
