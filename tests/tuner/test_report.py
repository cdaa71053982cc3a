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
from keras_resblocks.tuner.reports import tables
from keras_resblocks.tuner.reports.charts import importance
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


# More hyperparameters than anyone searches, with long names and values.
WIDE = {
    **{f"depth_{stage}": (1, 2, 3) for stage in (1, 2, 3)},
    "activation": ("relu", "elu"),
    "normalization": ("batch_normalization", "layer_normalization"),
    "attention": ("none", "efficient_channel_attention"),
    "shortcut": ("projection_always", "zero_pad"),
    "preactivation": (True, False),
    "augmentation": ("none", "shift_and_flip"),
    "learning_rate": (0.0001, 0.00123, 0.01),
    **dict.fromkeys(("block", "width", "width_multiplier", "expansion", "groups"), (1, 2, 64)),
    **dict.fromkeys(("stem", "l2", "drop_path_rate", "optimizer", "schedule"), (0.0, 0.05, 0.1)),
    **dict.fromkeys(("batch_size", "label_smoothing"), (32, 64)),
}


def wide_trials(count, epochs=3):
    rng = random.Random(0)
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    return [
        trial(
            {"momentum": 0.9, **{name: rng.choice(values) for name, values in WIDE.items()}},
            rng.random(),
            cost={name: rng.randrange(1_000_000, 20_000_000) for name in COST},
            history={name: [rng.random() for _ in range(epochs)] for name in names},
            seconds={"total": 60 * rng.random(), "training": 9.0},
            summary=100 * "A model.\n",
        )
        for _ in range(count)
    ]


SEARCH = {
    "objective": {"name": "val_accuracy", "direction": "max"},
    "hypermodel": "ResNetHyperModel",
    "budget": {"max_params": 123456},
    "seed": 77,
    "versions": {"keras": "3.99", "tensorflow": "2.99"},
}
PROJECTS = {
    "maximized": full_trials(),
    "minimized": full_trials(direction="min"),
    "awkward": [
        trial({**AWKWARD, "<i>x</i>": f"<b>{x % 2}</b>", "x": x}, x / 10, cost={"params": 10 + x})
        for x in range(5)
    ],
    "wide": wide_trials(12),
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
        name: tuner.report(write_project(folder / name, trials, SEARCH if name == "wide" else None))
        for name, trials in PROJECTS.items()
    }


def page_of(found):
    return found.paths["report.html"].read_text(encoding="utf-8")


def chart_titles(found):
    return re.findall(r'<div id="(\w+)" class="plotly-graph-div"', page_of(found))


HISTORY, AGAINST_PARAMETERS = "score_of_each_trial", "val_accuracy_against_parameters"
IMPORTANCE = {"hyperparameter_importance", "parallel_coordinates"}
WITHOUT_IMPORTANCE = {HISTORY, "learning_curves", AGAINST_PARAMETERS} | {
    f"val_accuracy_against_{cost}" for cost in ("multiply_accumulates", "activation_memory", "time")
}
CHARTS = {
    **dict.fromkeys(("maximized", "minimized", "wide"), WITHOUT_IMPORTANCE | IMPORTANCE),
    "single": WITHOUT_IMPORTANCE,
    "awkward": {HISTORY, AGAINST_PARAMETERS} | IMPORTANCE,
    # No multiply-accumulates on a logarithmic axis, no importance.
    "ties": {HISTORY, AGAINST_PARAMETERS},
    "only_scores": {HISTORY},
    "none_finished": set(),
    "empty": set(),
}


@pytest.mark.parametrize("name", PROJECTS)
def test_files_have_the_charts_of_known_data_and_a_row_for_each_trial(name, reports):
    found = reports[name]
    assert set(chart_titles(found)) == CHARTS[name]
    assert all(path.parent.parts[-2:] == (name, "report") for path in found.paths.values())
    with open(found.paths["trials.csv"], encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(found.rows) == len(PROJECTS[name])
    for line, row in zip(lines, found.rows):
        assert line["status"] == row.status
        assert line["score"] == ("" if row.score is None else str(row.score))
        assert line["params"] == ("" if row.params is None else str(row.params))
        for hyperparameter, value in row.hyperparameters.items():
            clash = hyperparameter == "score"
            column = f"hyperparameter {hyperparameter}" if clash else hyperparameter
            assert line[column] == str(value)

    table = found.paths["trials.md"].read_text(encoding="utf-8")
    assert table == str(found)
    header, _, *rows = [line for line in table.splitlines() if line.startswith("|")]
    assert [int(row.split("|")[1]) for row in rows] == [row.number for row in found.rows]
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in (header, *rows)]
    assert len(set(cells)) == 1
    assert not re.search(r"(?<!\\)<", table)  # no markup of others

    page = re.sub(r"<script.*?</script>", "", page_of(found), flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=\s*(?![\"']?data:)", page)  # all is within
    assert "@import" not in page
    assert "url(" not in page


def test_depths_share_a_column_and_constants_are_said_once(reports):
    header, _, best, *rest = str(reports["wide"]).splitlines()
    titles = [title.strip() for title in header.split("|")]
    values = reports["wide"].best.values
    depths = "-".join(str(values[f"depth_{stage}"]) for stage in (1, 2, 3))
    assert best.split("|")[titles.index("depth")].strip() == depths
    assert "momentum" not in titles
    assert "Equal in all trials: momentum 0.9." in rest


def test_the_page_says_what_the_search_was(reports):
    page = re.sub(r"<wbr>", "", page_of(reports["wide"]).rpartition("</head>")[2])
    for text in ("ResNetHyperModel", "123,456", "77", "keras 3.99, tensorflow 2.99"):
        assert f"<td>{text}</td>" in page
    assert "model = hypermodel.build(hp)" in page


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


def printed_by_rich(found, capsys, **options):
    pytest.importorskip("rich.console").Console(**options).print(found)
    return capsys.readouterr().out


def test_the_names_of_others_are_shown_and_are_no_markup(reports, capsys):
    found = reports["awkward"]
    printed = printed_by_rich(found, capsys, width=300)
    assert "<script>alert('x')</script>" in printed
    assert all(f"{row.score:.4f}" in printed for row in found.rows)
    cell = found._repr_html_()  # in a notebook
    assert html.escape("<script>alert('x')</script>") in cell
    assert "<script>" not in cell
    assert cell.count("<tr>") == 1 + len(found.rows)
    page = re.sub(r"<script.*?</script>", "", page_of(found), flags=re.DOTALL)
    for name, value in AWKWARD.items():
        assert html.escape(name).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in page
        assert str(value) in html.unescape(page)
    assert "<b>bold" not in page
    assert "<script>alert" not in page_of(found)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ["maximized", "wide"])
def test_a_terminal_shows_the_columns_that_it_has_room_for(name, width, reports, capsys):
    found = reports[name]
    options = {"width": width, "force_terminal": True, "no_color": True}
    printed = re.sub(r"\x1b\[[0-9;]*m", "", printed_by_rich(found, capsys, **options))
    rows = [line for line in printed.splitlines() if line.startswith("│")]
    assert len(rows) == len(found.rows)  # none takes two lines
    assert max(map(len, printed.splitlines())) <= width
    (titles,) = [line for line in printed.splitlines() if line.startswith("┃")]
    shown = [title.strip() for title in titles.strip("┃").split("┃")]
    assert shown[:2] == ["trial", "val_accuracy"]
    told = " ".join(printed.partition("Not shown: ")[2].split())
    everything = [column.title for column in tables.columns(found.search)]
    assert {*shown, *(title for title in everything if title in told)} == {*everything}


def test_several_objectives_have_a_front_each(tmp_path):
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study(directions=["maximize", "minimize"], study_name="two")
    study.set_metric_names(["val_accuracy", "val_loss"])
    points = [(0.5, 9.0), (0.7, 8.0), (0.6, 3.0), (0.4, 4.0)]
    for x in range(4):
        study.enqueue_trial({"x": x / 10})
    study.optimize(lambda t: points[round(10 * t.suggest_float("x", 0, 1))], n_trials=4)
    found = tuner.report(study, tmp_path)
    assert (found.search.objective, found.search.others) == ("val_accuracy", {"val_loss": "min"})
    against = {"val_accuracy_against_val_loss", "val_accuracy_against_time"}
    assert set(chart_titles(found)) == {HISTORY, *against} | IMPORTANCE
    numbers = {trial.number for trial in found.pareto_front("val_loss")}
    assert numbers == {trial.number for trial in study.best_trials} == {1, 2}
    assert {row.number for row in found.rows} == set(range(4))


@pytest.mark.slow
def test_thousands_of_trials_make_a_page_of_a_few_megabytes(tmp_path):
    found = tuner.report(write_project(tmp_path / "a", wide_trials(2000, epochs=20)))
    assert found.paths["report.html"].stat().st_size < 15e6


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
        shares = importance(search)
        assert next(iter(shares)) == "matters"
        assert shares["matters"] > 0.9
        assert shares.keys() == {"matters", "number", "flag", "sometimes"}
        assert math.isclose(sum(shares.values()), 1)
        assert shares == importance(search)

    @pytest.mark.parametrize(
        ("values", "most"),
        [
            # One that is absent can matter; epochs of Hyperband are apart.
            ([{"x": n % 3, **({"y": 1} if n % 2 else {})} for n in range(20)], "y"),
            (
                [{"x": n % 3, "tuner/epochs": 2 + 4 * (n % 2)} for n in range(20)],
                "epochs (Hyperband)",
            ),
        ],
    )
    def test_is_a_share_of_each_that_varies(self, values, most):
        shares = importance(records(values, [n % 2 for n in range(20)]))
        assert shares.keys() == {"x", most}
        assert next(iter(shares)) == most
        assert shares[most] > 0.9

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
        assert importance(records(values, scores)) == {}


@pytest.fixture(scope="module")
def browser():
    chromium = next(filter(None, map(shutil.which, ("google-chrome", "chromium"))), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("Chromium and chromedriver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--no-sandbox", "--headless=new", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.chrome.service.Service(driver)
    with webdriver.Chrome(options=options, service=service) as opened:
        yield opened


def open_page(browser, found, width=1400):
    """Opens the page in a window of that width."""
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(found.paths["report.html"].as_uri())  # the charts are drawn while it loads


def count(browser, selector):
    return len(browser.find_elements("css selector", selector))


def column_of(browser, place):
    script = "return [...document.querySelectorAll(arguments[0])].map(c => c.textContent)"
    return browser.execute_script(script, f".trials tbody td:nth-child({place})")


@pytest.mark.parametrize("name", PROJECTS)
def test_the_page_in_a_browser(name, reports, browser):
    found = reports[name]
    for log in ("performance", "browser"):
        browser.get_log(log)  # which empties it
    open_page(browser, found)
    entries = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [e["params"] for e in entries if e["method"] == "Network.requestWillBeSent"]
    urls = [request["request"]["url"] for request in requests]
    assert [url for url in urls if not url.startswith(("file:", "data:", "blob:"))] == []
    assert browser.get_log("browser") == []  # no errors
    assert browser.title == f"{name}: search report"
    assert count(browser, "[data-title*=Share]") == 0  # plotly's button to its own server
    scored = sum(row.score is not None for row in found.rows)
    for chart in CHARTS[name]:
        if "_against_" in chart or chart == HISTORY:
            assert count(browser, f"#{chart} .scatterlayer .point") == scored
        elif chart == "learning_curves":
            curves = count(browser, f"#{chart} .scatterlayer .js-line")
            assert curves == sum(bool(row.history) for row in found.rows)
        elif chart == "hyperparameter_importance":
            assert count(browser, f"#{chart} .barlayer .point") == len(found.importance)
        else:
            assert count(browser, f"#{chart} .scatterlayer .js-line") == scored
    assert count(browser, ".trials tbody tr") == len(found.rows)
    text = browser.find_element("tag name", "main").text
    if found.best:
        assert f"Best trial ({found.best.number})" in text
        assert f"{found.best.score:.4f}" in text
        assert all(key in text for key in found.best.hyperparameters)


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("name", ["wide", "maximized"])
def test_nothing_is_cut_or_covered(name, width, reports, browser):
    open_page(browser, reports[name], width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    outside, covered = browser.execute_script("""
        const box = (element) => element.getBoundingClientRect();
        const meet = (a, b) => a.width && b.width && a.left < b.right - 1 && b.left < a.right - 1
            && a.top < b.bottom - 1 && b.top < a.bottom - 1;
        const outside = [], covered = [];
        for (const chart of document.querySelectorAll(".js-plotly-plot")) {
          const svg = box(chart), texts = [...chart.querySelectorAll("text")];
          for (const text of texts) {
            const at = box(text);
            if (at.width && (at.left < svg.left - 1 || at.right > svg.right + 1))
              outside.push([chart.id, text.textContent]);
          }
          const parts = [...chart.querySelectorAll(".modebar-group, .legend, .updatemenu-header")];
          for (const a of parts) for (const b of parts)
            if (a !== b && meet(box(a), box(b))) covered.push([chart.id, a.className.baseVal]);
        }
        return [outside, covered];""")
    assert (outside, covered) == ([], [])
    right = browser.execute_script(
        "return [...document.querySelectorAll('.trials th')].map(h => [h.textContent,"
        " h.getBoundingClientRect().right])"
    )
    names = {"depth", *WIDE} if name == "wide" else {"width", "activation"}
    edges = {title: edge for title, edge in right if title in names}
    assert len(edges) == (len(WIDE) - 2 if name == "wide" else 2)
    if width == 1400:
        assert max(edges.values()) < width
    browser.execute_script("document.querySelector('.scroll').scrollLeft = 1e4")
    for place in (1, 2):  # number and score stay in view, beside each other
        cell = browser.find_element("css selector", f".trials td:nth-child({place})")
        assert 0 <= cell.rect["x"] < 150


def test_a_click_on_a_header_sorts_and_another_turns_around(reports, browser):
    open_page(browser, reports["maximized"])
    headers = browser.find_elements("css selector", ".trials th button")
    titles = [header.text for header in headers]
    for title in ("trial", "val_accuracy", "parameters", "activation"):
        place = titles.index(title) + 1
        known = [
            text for text in column_of(browser, place) if text not in ("", "failed", "running")
        ]
        is_text = title == "activation"
        known.sort(key=lambda text: text if is_text else float(text.replace(",", "")))
        for order in ("ascending", "descending"):
            browser.execute_script("arguments[0].click()", headers[place - 1])
            assert column_of(browser, place)[: len(known)] == known
            assert count(browser, f".trials th[aria-sort={order}]") == 1
            known.reverse()


def test_a_hovered_point_names_its_hyperparameters(reports, browser):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    open_page(browser, reports["awkward"])
    chart = "#val_accuracy_against_parameters"
    points = browser.find_elements("css selector", f"{chart} .scatterlayer .point")
    ActionChains(browser).move_to_element(points[0]).perform()
    WebDriverWait(browser, 10).until(lambda b: count(b, f"{chart} .hoverlayer .hovertext"))
    text = browser.find_element("css selector", f"{chart} .hoverlayer .hovertext").text
    assert "trial 0" in text
    assert "x: 0" in text
    assert "parameters: 10" in text


def test_the_curves_of_another_metric_can_be_chosen(reports, browser):
    open_page(browser, reports["maximized"])
    before = browser.find_element("css selector", "#learning_curves .ytitle").text
    browser.find_element("css selector", "#learning_curves .updatemenu-header").click()
    browser.find_elements("css selector", "#learning_curves .updatemenu-dropdown-button")[1].click()
    after = browser.find_element("css selector", "#learning_curves .ytitle").text
    assert (before, after) == ("val_accuracy", "loss")
