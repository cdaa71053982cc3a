"""Every snippet of the README and the site, alone, as a reader pastes it."""

import ast
import doctest
import importlib.util
import multiprocessing
import re
import shlex

import pytest
import stand_ins
from snippets import ROOT, blocks

from keras_resblocks import cli
from keras_resblocks.cli import options

PYTHON = blocks("python")


def parametrize(name, found):
    return pytest.mark.parametrize(name, found, ids=[block.place for block in found])


def test_every_block_is_of_a_language_that_is_tested():
    assert {block.language for block in blocks()} <= {"python", "sh", "text"}


@pytest.fixture(scope="module")
def processes_with_keras():
    """New ones have imported Keras, which takes longer than most snippets."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["keras"])
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KERAS_BACKEND", "tensorflow")
        server.Process(target=int).start()  # which starts the server
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("processes_with_keras")
@parametrize("block", PYTHON)
def test_a_snippet_runs_alone_and_prints_what_the_page_shows(block, tmp_path):
    method = "spawn" if "gpu" in block.needs else "forkserver"  # Ray hangs in a forked process
    context = multiprocessing.get_context(method)
    process = context.Process(target=stand_ins.run, args=(block.code, block.needs, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == 0, (tmp_path / "stderr").read_text(encoding="utf-8")[-5000:]
    if block.output is not None:
        printed = (tmp_path / "stdout").read_text(encoding="utf-8")
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert doctest.OutputChecker().check_output(block.output, printed, flags), printed


@parametrize("block", PYTHON)
def test_a_snippet_imports_public_names(block):
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("keras_resblocks"):
            module = importlib.import_module(node.module)
            assert {alias.name for alias in node.names} <= {*module.__all__}
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("keras_resblocks")]
            assert all(map(importlib.import_module, names))


@parametrize("block", blocks("sh"))
def test_commands_are_accepted_and_their_files_exist(block, monkeypatch):
    for command in cli.COMMANDS.values():
        monkeypatch.setattr(command, "run", lambda args: 0)
    monkeypatch.setattr(cli.search, "run", lambda args: options.options_of(args) and 0)
    for line in block.code.replace("\\\n", " ").splitlines():
        for path in re.findall(r"\b(?:examples|benchmarks|docs|tests)/[\w./-]+", line):
            assert (ROOT / path).exists(), path
        for module in re.findall(r"python3? -m ([\w.]+)", line):
            assert importlib.util.find_spec(module), module
        for arguments in _arguments(shlex.split(line, comments=True)):
            assert not cli.main(arguments)


def _arguments(words):
    """Those of each call of our command in a line of shell."""
    calls = [[]]
    for word in words:
        if word in ("&&", ";", "|", ">", "&"):
            calls.append([])
        else:
            calls[-1].append(word)
    for call in calls:
        for command in ("keras-resblocks", "keras_resblocks"):
            if command in call and "install" not in call:
                yield call[call.index(command) + 1 :]
