import dataclasses
import os

import keras
import pytest
from counter import Counter
from helpers import run_benchmark
from reports import tables_of

from benchmarks import contenders, processes, report, runner, tables, workloads
from benchmarks.__main__ import chosen, parse

WORK = workloads.Workload("inference", "resnet20_cifar", 16, 2)


def test_command_writes_what_it_measured(tmp_path):
    backend = keras.backend.backend()
    arguments = f"--quick --parts inference --sizes 16 --backends {backend} --out {tmp_path}"
    wanted = ["--contenders", "inference_function", "flat"]
    printed = run_benchmark("benchmarks", *arguments.split(), *wanted)
    (path,) = tmp_path.glob("*.md")
    text = path.read_text(encoding="utf-8")
    assert printed.endswith(text + "\n")
    assert f"keras {keras.__version__}" in text
    ((heading, (rows,)),) = tables_of(text).items()
    assert heading == f"{backend}: resnet20_cifar, inference, 16 pixels, batch 2, float32"
    ours, flat = rows
    assert ours["contender"] == "keras_resblocks, inference_function"
    assert flat["contender"] == "the same network flat, predict_on_batch"
    assert ours["ratio: keras_resblocks, inference_function / it"] == "1 (1 - 1)"
    for row in rows:
        milliseconds = float(row["ms a step"].split()[0])
        assert float(row["images / s"]) == pytest.approx(2000 / milliseconds, rel=2e-3)
        assert float(row["build (s)"]) > 0
        assert float(row["first step (s)"]) > 0


def test_worker_keeps_its_object_and_reports_errors():
    worker = processes.Worker(Counter, 1, BENCHMARKS_TEST="here")
    try:
        assert worker("add", 2) == 3
        with pytest.raises(processes.FailedError, match="KeyError: 'this is why'"):
            worker("fail")
        assert worker("add", 2) == 5
        assert worker("variable", "BENCHMARKS_TEST") == "here"
        assert "BENCHMARKS_TEST" not in os.environ
        with pytest.raises(processes.FailedError, match="the process ended: 3"):
            worker("die")
    finally:
        worker.close()
    assert not worker.process.is_alive()


def test_everyone_begins_in_turn():
    assert [*processes.in_turns("ab", 3)] == [
        *((0, "a"), (0, "b")),
        *((1, "b"), (1, "a")),
        *((2, "a"), (2, "b")),
    ]


def result(name, turns, error=None, operations=0.0):
    contender = contenders.Contender(name, "jax", takes=None, build=None)
    once = {"build (s)": 1.25, "first step (s)": 2.5, "peak memory (MB)": 100.0}
    return runner.Result(contender, once, turns, operations, error)


def test_ratios_are_those_within_a_round():
    ours, theirs = [1.0, 2.0, 10.0], [2.0, 2.0, 5.0]
    assert tables.paired_ratios(ours, theirs) == [0.5, 1.0, 2.0]
    assert tables.median_and_range([0.5, 1.0, 2.0]) == "1 (0.5 - 2)"


def test_table_of_results():
    results = [
        result("ours", [0.1, 0.1], operations=4e9),
        result("broken", [], error="ValueError: no"),
        result("theirs", [0.2, 0.3], operations=4e9),
        result(runner.PRODUCT, [0.01, 0.01], operations=8e8),
    ]
    peaks = report.fastest_products([(WORK, "jax", results)])
    assert peaks == {"float32": pytest.approx(8e10)}
    lines = report.results_table(WORK, results, peaks["float32"]).splitlines()
    assert lines[2:] == [
        "| ours | 100 (100 - 100) | 1 (1 - 1) | 20 | 40 | 50% | 1.25 | 2.5 | 100 |",
        "| theirs | 250 (200 - 300) | 0.417 (0.333 - 0.5) | 8 | 16 | 20% | 1.25 | 2.5 | 100 |",
    ]
    assert [*report.sections([(WORK, "jax", results)])][-1] == "- broken failed: ValueError: no"


def test_goal_is_held_against_the_fastest_peer():
    work = workloads.Workload("inference", "resnet50_keras", 224, 1)
    slow, fast = workloads.APPS_FASTEST
    ours = "keras_resblocks, inference_function"
    results = [result(ours, [1.0, 1.0]), result(slow, [4.0, 4.0]), result(fast, [1.25, 1.25])]
    ((*_, at_most, ratio, reached),) = report.goal_rows(work, "jax", results)
    assert (at_most, ratio, reached) == ("0.85", f"0.8 (0.8 - 0.8) of {fast}", "yes")
    results[0].turns = [1.1, 1.2]
    ((*_, reached),) = report.goal_rows(work, "jax", results)
    assert reached == "no"
    results[0].turns = [1.05, 1.2]
    ((*_, reached),) = report.goal_rows(work, "jax", results)
    assert reached == "within noise"
    ((*_, ratio, reached),) = report.goal_rows(work, "jax", results[:1])
    assert (ratio, reached) == ("not measured", "")
    assert not [*report.goal_rows(dataclasses.replace(work, batch=8), "jax", results)]


def test_every_goal_names_a_workload_and_contenders_that_there_are():
    known = contenders.every(contenders.BACKENDS)
    works = [*workloads.on_cpu(), *workloads.on_gpu()]
    for goal in workloads.GOALS:
        measured = [work for work in works if goal.is_for(work, goal.group)]
        assert measured
        taking = [
            {c.name for c in known if c.group == goal.group and c.takes(work)} for work in measured
        ]
        assert any(goal.ours in names and names & set(goal.theirs) for names in taking)


def test_contenders_have_names_of_their_own():
    names = [(c.name, c.group) for c in contenders.every(contenders.BACKENDS)]
    assert len(set(names)) == len(names)


def test_options_choose_and_change_the_workloads():
    settings = parse(["--parts", "training", "--networks", "resnet50", "--batches", "4", "2"])
    works = chosen(settings, is_gpu=False)
    assert {(work.size, work.batch) for work in works} == {(64, 4), (64, 2), (224, 4), (224, 2)}
    assert {(work.kind, work.network) for work in works} == {("training", "resnet50")}
    assert all(work.device == "gpu" for work in chosen(parse([]), is_gpu=True))


def test_operations_of_a_step():
    inference = workloads.Workload("inference", "resnet50", 224, 2)
    assert inference.operations == 2 * 2 * 4_089_184_256
    training = dataclasses.replace(inference, kind="training")
    assert training.operations == 3 * inference.operations


def test_missing_packages_are_named():
    contender = contenders.Contender("x", "jax", None, None, requires=("keras", "no_such_package"))
    assert contender.missing() == ["no_such_package"]
    with pytest.raises(ImportError):
        contender.import_required()
