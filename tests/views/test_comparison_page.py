"""The page read back as a browser would, against numbers that were come by in another way."""

from dataclasses import replace

import numpy as np
import pytest

from cclnet.experiments.comparison import compare_experiments
from cclnet.experiments.records import Record
from cclnet.experiments.run import Run
from cclnet.metrics.names import title
from cclnet.metrics.score_table import Score
from cclnet.views.comparison_page import SECTIONS, changed_params, comparison_page
from tests.views.builders import HOSTILE, Page, made_up_report

REPORT = made_up_report()
HISTORY = REPORT.history.assign(softness=0.5)
PARAMS = {"dataset": "sample", "seed": 0, "datasets": {"sample": {"epochs": 16}, "folder": {"epochs": 32}}}


@pytest.fixture(scope="module")
def runs() -> tuple[Run, Run]:
    """Two experiments on the same images, of which b is surer of the true classes."""
    a = replace(REPORT.run, name="main")
    better = a.probabilities + 0.5 * np.eye(4)[a.labels]
    soft_labels = np.random.default_rng(1).dirichlet(np.ones(4), 4)
    return a, replace(a, name="<b>", probabilities=better / better.sum(axis=1, keepdims=True), soft_labels=soft_labels)


def source_of(runs: tuple[Run, Run], a: Record | None = None, b: Record | None = None) -> str:
    a = a or Record(PARAMS, HISTORY)
    b = b or Record(PARAMS | {"seed": 1, "extra": [1]}, HISTORY.head(4))
    return comparison_page(compare_experiments(*runs), runs, (a, b))


@pytest.fixture(scope="module")
def page(runs: tuple[Run, Run]) -> Page:
    return Page(source_of(runs))


def text(value: float, places: int = 3) -> str:
    return f"{value:.{places}f}".replace("-", "−")


def plus(value: float, places: int = 3) -> str:
    return f"{value:+.{places}f}".replace("-", "−") if round(value, places) else f"{0:.{places}f}"


def test_scores_are_those_of_the_comparison(runs: tuple[Run, Run], page: Page):
    found = compare_experiments(*runs)
    assert " ".join(found.conclusion().split()) in " ".join(page.text.split())
    for change in found.metrics:
        name = title(change.name) + (f"B is {change.verdict}" if change.verdict else "")
        a, b, difference, interval, p, _ = page.row("Models of the last epoch", name)
        assert (a, b) == (text(change.a or 0), text(change.b or 0))
        assert difference == plus(change.difference or 0)
        tested = change.low is not None and change.high is not None
        assert interval == (f"{plus(change.low)} to {plus(change.high)}" if tested else "–")  # pyright: ignore
        assert p == (text(change.p or 0, 4) if tested else "–")
    assert "better" in {change.verdict for change in found.metrics}


def test_sensitivity_of_each_class(runs: tuple[Run, Run], page: Page):
    a, _ = runs
    for place, name in enumerate(HOSTILE):
        own = a.labels == place
        shares = [(run.predicted == place)[own].mean() for run in runs]
        expected = [str(own.sum()), text(shares[0]), text(shares[1]), plus(shares[1] - shares[0])]
        assert page.row("Share of the images", name) == expected


def test_matrices_and_their_differences(runs: tuple[Run, Run], page: Page):
    soft = [np.asarray(run.soft_labels) for run in runs]
    counts = []
    for run in runs:
        table = np.zeros((4, 4), dtype=int)
        np.add.at(table, (run.labels, run.predicted), 1)
        counts.append(table)
    for matrices, kind, places in ((soft, "soft labels", 2), (counts, "images", 0)):
        expected = {
            f"A main: {kind}": [[text(value, places) for value in row] for row in matrices[0]],
            f"B <b>: {kind}": [[text(value, places) for value in row] for row in matrices[1]],
            f"B − A: {kind}": [[plus(value, places) for value in row] for row in matrices[1] - matrices[0]],
        }
        for caption, cells in expected.items():
            assert [row[1:] for row in page.table(caption)[2:]] == cells, caption
    fallen = [attrs.get("class") for attrs in page.all("td") if "style" in attrs][32:48]
    difference = soft[1] - soft[0]
    assert fallen == [
        "own" if row == column else "less" if difference[row, column] < 0 else None
        for row in range(4)
        for column in range(4)
    ]


def test_both_histories_are_in_one_chart_and_in_a_table(page: Page):
    loss, validation, softness = page.charts()
    assert {(point["experiment"], point["epoch"]) for point in loss["data"]["values"]} == {
        *(("A main", epoch) for epoch in range(1, 7)),
        *(("B <b>", epoch) for epoch in range(1, 5)),
    }
    assert {point["curve"] for point in validation["data"]["values"]} == {"accuracy", "balanced accuracy"}
    assert len(softness["data"]["values"]) == 10
    header, *rows = page.table("Curves by epoch")
    assert header[:3] == ["epoch", "classification loss, A", "classification loss, B"]
    losses = HISTORY["classification_loss"].tolist()
    assert rows[0][:3] == ["1", text(losses[0]), text(losses[0])]
    assert rows[5][:3] == ["6", text(losses[5]), "–"]


def test_params_that_differ(page: Page):
    assert page.table("Params that differ")[1:] == [["extra", "–", "[1]"], ["seed", "0", "1"]]


def test_blocks_of_other_datasets_are_left_out():
    other = PARAMS | {"datasets": {"sample": {"epochs": 16}, "folder": {"epochs": 1}}}
    assert changed_params(PARAMS, other) == []
    assert changed_params(PARAMS, other | {"dataset": "folder"}) == [
        ("dataset", "sample", "folder"),
        ("datasets.folder.epochs", "32", "1"),
    ]
    assert changed_params({"a": None}, {}) == [("a", "null", "–")]


def test_equal_params_are_said_to_be_equal(runs: tuple[Run, Run]):
    page = Page(source_of(runs, b=Record(PARAMS, HISTORY)))
    assert "None: both have the same params." in page.text


def test_prediction_files_have_neither_history_nor_params_nor_soft_labels(runs: tuple[Run, Run]):
    a, b = (replace(run, soft_labels=None, scores={}) for run in runs)
    page = Page(source_of((a, b), Record(), Record()))
    assert "A prediction file has no history." in page.text
    assert "The params of a prediction file are not known." in page.text
    assert page.charts() == []
    assert [caption[:6] for caption in page.tables if "coloured" in caption] == ["A main", "B <b>:", "B − A:"]
    half = Page(source_of((a, runs[1]), Record()))
    assert {point["experiment"] for point in half.charts()[0]["data"]["values"]} == {"B <b>"}
    assert next(caption for caption in half.tables if "soft labels" in caption).startswith("B <b>")
    assert "A prediction file has no history." in half.text


def test_a_method_without_a_head_has_no_softness(runs: tuple[Run, Run]):
    without = {"softness_epoch": Score(None)}
    a, b = (replace(run, scores=without) for run in runs)
    page = Page(source_of((a, b)))
    assert len(page.charts()) == 2
    assert not [caption for caption in page.tables if "soft labels" in caption]


def test_an_experiment_may_be_compared_with_itself(runs: tuple[Run, Run]):
    page = Page(source_of((runs[0], runs[0]), b=Record(PARAMS, HISTORY)))
    assert len({point["experiment"] for point in page.charts()[0]["data"]["values"]}) == 2


def test_every_section_is_in_the_contents(page: Page):
    links = [str(attrs["href"]) for attrs in page.all("a")]
    assert links == [f"#{attrs['id']}" for attrs in page.all("section")] == [f"#{name}" for name in SECTIONS]


def test_hostile_names_are_text_and_nothing_is_loaded(page: Page):
    assert not [script for script in page.scripts if "alert(1)" in script]
    assert not page.all("b")
    loading = {"src", "srcset", "data", "action", "poster"}
    assert not [name for _, attrs in page.elements for name in attrs if name in loading]
    [policy] = [str(attrs["content"]) for attrs in page.all("meta") if "http-equiv" in attrs]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy


def test_the_same_experiments_give_the_same_page(runs: tuple[Run, Run]):
    assert source_of(runs) == source_of(runs)
