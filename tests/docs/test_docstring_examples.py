"""The examples of the API pages, run each by itself.

One with a comment `# needs: ...` takes what is not there, such as published weights, and is only
parsed.
"""

import ast
import doctest
import re

import entries
import pytest

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
EXAMPLES = {
    entry.name: doctest.DocTestParser().get_doctest(
        entries.described(entry.name).docstring.value, {}, entry.name, None, 0
    )
    for entry in entries.entries()
}
NEEDS = ("pictures", "search", "weights", "workers")


def _needs(example):
    """What an example takes that is not there; None for one that runs."""
    found = re.search(r"# needs: (\w+)", "".join(step.source for step in example.examples))
    return found and found[1]


@pytest.mark.parametrize("name", sorted(n for n, one in EXAMPLES.items() if not _needs(one)))
def test_example_runs_and_shows_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = []
    results = doctest.DocTestRunner(optionflags=FLAGS).run(EXAMPLES[name], out=report.append)
    assert results.attempted > 0
    assert not results.failed, "".join(report)


@pytest.mark.parametrize("name", sorted(n for n, one in EXAMPLES.items() if _needs(one)))
def test_example_that_needs_more_is_parsed(name):
    assert _needs(EXAMPLES[name]) in NEEDS
    for step in EXAMPLES[name].examples:
        ast.parse(step.source)


def test_most_examples_run():
    assert sum(_needs(example) is None for example in EXAMPLES.values()) > 0.85 * len(EXAMPLES)
