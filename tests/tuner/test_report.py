"""The report of a search: its files, and its page in a browser."""

import csv
import html
import json
import math
import random
import re
import shutil

import keras_tuner
import pytest
from projects import observed, trial, write_project

from keras_resblocks import tuner
from keras_resblocks.tuner.reports.charts import ScoreChart
from keras_resblocks.tuner.reports.importance import hyperparameter_importance
from keras_resblocks.tuner.reports.records import SearchRecords, TrialRecord

AWKWARD = {
    "<b>bold</b>": "<script>alert('x')</script>",
    "größe, 'in' \"quotes\"": "a,b|c\nd",
    "$x_1^2$": "\\frac{1",
    "score": True,  # the name of another column
}

COST = ("params", "trainable_params", "macs", "activation_memory")


def full_trials(count=6, direction="max"):
    """Trials of which all is known, then one that failed and one that is under way."""
    rng = random.Random(0)
    trials = []
    for number in range(count):
        score, params = rng.random(), rng.randrange(1000, 100_000)
        trials.append(
            trial(
                {"width": rng.choice([8, 16]), "activation": rng.choice(["relu", "elu"])},
                score,
                metrics={"val_accuracy": observed(score, direction)},
                cost={name: (place + 1) * params for place, name in enumerate(COST)},
                history={"loss": [2.0, 1.0, 0.5], "val_accuracy": [0.0, score / 2, score]},
                seconds={"total": 10.0 + number, "training": 9.0},
                summary=f"Model of trial {number}: <b>│</b>",
            )
        )
    message = "Traceback:\n  in <module>\nMemoryError: <b>too large</b>"
    trials += [trial({"width": 99}, None, "FAILED", message=message), trial({}, None, "RUNNING")]
    return trials


def awkward_trials():
    return [trial({**AWKWARD, "x": x}, x / 10, cost={"params": 10 + x}) for x in range(5)]


PROJECTS = {
    "maximized": full_trials(),
    "minimized": full_trials(direction="min"),
    "awkward": awkward_trials(),
    "single": full_trials()[:1],
    "ties": [trial({"x": x % 2}, 0.5, cost={"params": 7, "macs": 0}) for x in range(5)],
    "only_scores": [trial({"x": x}, x / 10) for x in range(3)],
    "none_finished": full_trials()[-2:],
    "empty": [],
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("projects")
    return {
        name: tuner.report(write_project(folder / name, trials))
        for name, trials in PROJECTS.items()
    }


@pytest.mark.parametrize("name", PROJECTS)
def test_files_lie_in_the_project(name, reports):
    found = reports[name]
    assert all(path.parent.parts[-2:] == (name, "report") for path in found.paths.values())
    assert sorted(found.paths) == sorted(
        path.name for path in found.paths["trials.md"].parent.iterdir()
    )
    for file_name, path in found.paths.items():
        if file_name.endswith(".png"):
            assert path.read_bytes().startswith(b"\x89PNG")


CHARTS = {
    "val_accuracy_against_parameters.png",
    "val_accuracy_against_multiply_accumulates.png",
    "val_accuracy_against_activation_memory.png",
    "val_accuracy_against_time.png",
    "learning_curves.png",
    "hyperparameter_importance.png",
}
PARAMS_ONLY = {"val_accuracy_against_parameters.png"}


@pytest.mark.parametrize(
    ("name", "charts"),
    [
        ("maximized", CHARTS),
        ("single", CHARTS - {"hyperparameter_importance.png"}),
        ("awkward", PARAMS_ONLY | {"hyperparameter_importance.png"}),
        ("ties", PARAMS_ONLY),  # no multiply-accumulates on a logarithmic axis, no importance
        ("only_scores", set()),
        ("none_finished", set()),
        ("empty", set()),
    ],
)
def test_a_chart_is_drawn_if_its_data_is_known(name, charts, reports):
    assert {path for path in reports[name].paths if path.endswith(".png")} == charts


@pytest.mark.parametrize("name", PROJECTS)
def test_csv_reads_back(name, reports):
    found = reports[name]
    with open(found.paths["trials.csv"], encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(found.rows) == len(PROJECTS[name])
    for line, row in zip(lines, found.rows):
        assert line["status"] == row.status
        assert line["score"] == ("" if row.score is None else str(row.score))
        assert line["params"] == ("" if row.params is None else str(row.params))
        for hyperparameter, value in row.hyperparameters.items():
            clash = hyperparameter == "score"
            assert line[f"hyperparameter {hyperparameter}" if clash else hyperparameter] == str(
                value
            )


@pytest.mark.parametrize("name", PROJECTS)
def test_the_printed_table_is_markdown_with_a_row_for_each_trial(name, reports):
    found = reports[name]
    assert found.paths["trials.md"].read_text(encoding="utf-8") == str(found)
    header, _, *rows = [line for line in str(found).splitlines() if line.startswith("|")]
    assert [int(row.split("|")[1]) for row in rows] == [row.number for row in found.rows]
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in (header, *rows)]
    assert len(set(cells)) == 1
    assert not re.search(r"(?<!\\)<", str(found))  # no markup of others


def test_rows_are_best_first_and_then_those_without_a_score(reports):
    for name, sign in (("maximized", -1), ("minimized", 1)):
        found = reports[name]
        scores = [row.score for row in found.rows if row.score is not None]
        assert scores == sorted(scores, key=lambda score: sign * score)
        assert [row.status for row in found.rows[-2:]] == ["FAILED", "RUNNING"]
        assert found.best is found.rows[0]


def test_what_was_not_recorded_is_said(reports):
    for text in (str(reports["only_scores"]), page_of(reports["only_scores"])):
        assert "parameters" in text
        assert "learning curves" in text
    assert "Not recorded" not in str(reports["maximized"])
    assert "Not recorded" not in page_of(reports["maximized"])


def test_nothing_to_show_has_no_best(reports):
    for name in ("none_finished", "empty"):
        assert reports[name].best is None
        assert reports[name].pareto_front("params") == []
        assert reports[name].importance == {}
        assert "No trial has a score" in page_of(reports[name])


def test_out_and_objective_are_the_callers(tmp_path):
    project = write_project(tmp_path / "a", [trial({}, 0.5, metrics={})])
    objective = keras_tuner.Objective("f1 / macro", "max")
    found = tuner.report(project, tmp_path / "deep" / "out", objective=objective)
    assert found.paths["report.html"] == tmp_path / "deep" / "out" / "report.html"
    assert "f1 / macro" in page_of(found)
    assert not (project / "report").exists()


def test_a_report_is_printed_by_rich_as_a_table(reports, capsys):
    rich_console = pytest.importorskip("rich.console")
    rich_console.Console(width=300).print(reports["awkward"].__rich__())
    table = capsys.readouterr().out
    assert "<script>alert('x')</script>" in table
    assert all(f"{row.score:.4f}" in table for row in reports["awkward"].rows)


def test_a_plot_without_points_is_a_plot(tmp_path):
    ScoreChart(SearchRecords("s", "score", None, ()), "params").save_png(tmp_path / "empty.png")
    assert (tmp_path / "empty.png").read_bytes().startswith(b"\x89PNG")


def records(values, scores):
    trials = (
        TrialRecord(n, str(n), "COMPLETED", score, value)
        for n, (value, score) in enumerate(zip(values, scores))
    )
    return SearchRecords("s", "score", "max", tuple(trials))


class TestImportance:
    def test_finds_the_one_hyperparameter_that_matters(self):
        rng = random.Random(0)
        values = [
            {
                "matters": rng.choice(["a", "b", "c"]),
                "number": rng.random(),
                "flag": rng.choice([True, False]),
                **({"sometimes": 3} if rng.random() < 0.5 else {}),
            }
            for _ in range(40)
        ]
        search = records(values, ["abc".index(v["matters"]) + rng.random() / 100 for v in values])
        shares = hyperparameter_importance(search)
        assert next(iter(shares)) == "matters"
        assert shares["matters"] > 0.9
        assert shares.keys() == {"matters", "number", "flag", "sometimes"}
        assert math.isclose(sum(shares.values()), 1)
        assert shares == hyperparameter_importance(search)

    def test_a_value_that_is_absent_can_matter(self):
        values = [{"x": n % 3, **({"y": 1} if n % 2 else {})} for n in range(20)]
        shares = hyperparameter_importance(records(values, [n % 2 for n in range(20)]))
        assert shares["y"] > 0.9

    def test_epochs_of_hyperband_are_apart(self):
        values = [{"x": n % 3, "tuner/epochs": 2 + 4 * (n % 2)} for n in range(20)]
        shares = hyperparameter_importance(records(values, [n % 2 for n in range(20)]))
        assert next(iter(shares)) == "epochs (Hyperband)"
        assert shares.keys() == {"epochs (Hyperband)", "x"}

    @pytest.mark.parametrize(
        ("values", "scores"),
        [
            ([{"x": n} for n in range(3)], [0.1, 0.2, 0.3]),
            ([{"x": n} for n in range(5)], [0.1] * 5),
            ([{"x": 1} for n in range(5)], [0.1 * n for n in range(5)]),
            ([{} for n in range(5)], [0.1 * n for n in range(5)]),
        ],
    )
    def test_says_nothing_of_too_little(self, values, scores):
        assert hyperparameter_importance(records(values, scores)) == {}


def page_of(found):
    return found.paths["report.html"].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PROJECTS)
def test_the_page_refers_to_nothing_outside(name, reports):
    page = re.sub(r"<script.*?</script>", "", page_of(reports[name]), flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=\s*(?![\"']?data:)", page)
    assert "@import" not in page
    assert "url(" not in page


def test_the_page_escapes_the_names_of_others(reports):
    page = re.sub(r"<script.*?</script>", "", page_of(reports["awkward"]), flags=re.DOTALL)
    for name, value in AWKWARD.items():
        assert html.escape(name).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in page
        assert str(value) in html.unescape(page)
    assert "<b>bold" not in page
    assert "<script>alert" not in page_of(reports["awkward"])


@pytest.fixture(scope="module")
def browser():
    programs = ("google-chrome", "chromium", "chromium-browser")
    chromium = next(filter(None, map(shutil.which, programs)), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("Chromium and chromedriver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--no-sandbox", "--headless=new", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1400,1200")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.chrome.service.Service(driver)
    opened = webdriver.Chrome(options=options, service=service)
    yield opened
    opened.quit()


def open_page(browser, found):
    """Opens the page, and returns what it asked for beside itself."""
    for log in ("performance", "browser"):
        browser.get_log(log)  # which empties it
    browser.get(found.paths["report.html"].as_uri())  # the charts are drawn while it loads
    entries = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [
        entry["params"]["request"]["url"]
        for entry in entries
        if entry["method"] == "Network.requestWillBeSent"
        and not entry["params"]["request"]["url"].startswith(("file:", "data:", "blob:"))
    ]


def count(browser, selector):
    return len(browser.find_elements("css selector", selector))


@pytest.mark.parametrize("name", PROJECTS)
class TestPageInABrowser:
    def test_runs_without_errors_and_alone(self, name, reports, browser):
        assert open_page(browser, reports[name]) == []
        assert browser.get_log("browser") == []
        assert browser.title == f"{name}: search report"
        assert "sendChart" not in browser.page_source.split("</head>")[-1]
        assert count(browser, "[data-title*=Share]") == 0  # plotly's button to its own server

    def test_draws_every_trial(self, name, reports, browser):
        found = reports[name]
        open_page(browser, found)
        charts = [path[:-4] for path in found.paths if path.endswith(".png")]
        scored = [row for row in found.rows if row.score is not None]
        for chart in charts:
            if "_against_" in chart:
                assert count(browser, f"#{chart} .scatterlayer .point") == len(scored)
            elif chart == "learning_curves":
                curves = count(browser, f"#{chart} .scatterlayer .js-line")
                assert curves == sum(bool(row.history) for row in found.rows)
            else:
                assert count(browser, f"#{chart} .barlayer .point") == len(found.importance)
        assert count(browser, ".trials tbody tr") == len(found.rows)

    def test_shows_the_best_trial(self, name, reports, browser):
        found = reports[name]
        open_page(browser, found)
        text = browser.find_element("tag name", "main").text
        if found.best:
            assert f"Best trial ({found.best.number})" in text
            assert f"{found.best.score:.4f}" in text
            assert all(key in text for key in found.best.hyperparameters)
            assert (found.best.summary or "") in text


def column_of(browser, place):
    cells = browser.find_elements("css selector", f".trials tbody td:nth-child({place})")
    return [cell.text for cell in cells]


def test_a_click_on_a_header_sorts_and_another_turns_around(reports, browser):
    found = reports["maximized"]
    open_page(browser, found)
    headers = browser.find_elements("css selector", ".trials th button")
    titles = [header.text.split("\u00a0")[0] for header in headers]
    for title in ("trial", "val_accuracy", "parameters", "activation"):
        place = titles.index(title) + 1
        before = column_of(browser, place)
        columns = {}
        for order in ("ascending", "descending"):
            headers[place - 1].click()
            columns[order] = column_of(browser, place)
            marked = browser.find_elements("css selector", f".trials th[aria-sort={order}]")
            assert len(marked) == 1

        def key(text):
            number = text.replace(",", "").replace(".", "")
            return (0, float(text.replace(",", ""))) if number.isdigit() else (1, text)

        known = [text for text in before if text and text not in ("failed", "running")]
        assert columns["ascending"][: len(known)] == sorted(known, key=key)
        assert columns["descending"][: len(known)] == sorted(known, key=key, reverse=True)


def test_a_hovered_point_names_its_hyperparameters(reports, browser):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    found = reports["awkward"]
    open_page(browser, found)
    points = browser.find_elements("css selector", ".scatterlayer .point")
    ActionChains(browser).move_to_element(points[0]).perform()
    WebDriverWait(browser, 10).until(lambda b: count(b, ".hoverlayer .hovertext"))
    text = browser.find_element("css selector", ".hoverlayer .hovertext").text
    assert "<b>bold</b>: <script>alert('x')</script>" in text
    assert "parameters: 10" in text


def test_the_curves_of_another_metric_can_be_chosen(reports, browser):
    open_page(browser, reports["maximized"])
    before = browser.find_element("css selector", "#learning_curves .ytitle").text
    browser.find_element("css selector", "#learning_curves .updatemenu-header").click()
    browser.find_elements("css selector", "#learning_curves .updatemenu-dropdown-button")[1].click()
    after = browser.find_element("css selector", "#learning_curves .ytitle").text
    assert (before, after) == ("val_accuracy", "loss")
