import re

import numpy as np
import pandas as pd
import pytest

from cclnet.views.charts import (
    HISTOGRAM_HEIGHT,
    confidence_chart,
    curves_chart,
    epochs,
    histories_chart,
    precision_recall_chart,
    reliability_chart,
    roc_chart,
    softness_chart,
)
from cclnet.views.class_curves import ClassCurves
from cclnet.views.rendering import PAGES

RELIABILITY = pd.DataFrame(
    {"bin": [2, 4, 5], "confidence": [0.35, 0.7, 0.95], "accuracy": [0.5, 0.6, 0.9], "count": [2, 5, 9]}
)
HISTORY = pd.DataFrame(
    {"epoch": [1, 2, 3], "loss": [2.0, 1.5, 1.25], "head": [np.nan] * 3, "softness": [0.5, 0.25, 0.375]}
)


POINTS = np.array([[0.0, 0.0], [0.0, 0.123456], [1.0, 1.0]])
CURVES = [ClassCurves(name, 0.75, 0.5, POINTS, 1 - POINTS, []) for name in "abcdefgh"]


def values(chart: dict) -> list[dict]:
    return chart["data"]["values"]


def texts(chart: dict) -> list[str]:
    marks = [layer["mark"] for layer in chart["layer"]]
    return [mark["text"] for mark in marks if isinstance(mark, dict) and mark["type"] == "text"]


def test_a_curve_for_each_column_with_numbers_and_none_for_one_without():
    chart = curves_chart(HISTORY, {"loss": "training loss", "head": "CCL head", "softness": "p̄"}, "Losses")
    assert values(chart) == [
        *(
            {"epoch": epoch, "curve": "training loss", "value": value}
            for epoch, value in [(1, 2.0), (2, 1.5), (3, 1.25)]
        ),
        *({"epoch": epoch, "curve": "p̄", "value": value} for epoch, value in [(1, 0.5), (2, 0.25), (3, 0.375)]),
    ]
    assert chart["encoding"]["color"]["sort"] is None  # the order of the labels, not of the alphabet
    assert chart["description"] == "Losses"


def test_two_histories_have_a_colour_each_and_a_dash_for_each_column():
    other = HISTORY.head(2).assign(loss=[1.0, np.nan])
    chart = histories_chart({"A": HISTORY, "B": other}, {"loss": "loss", "softness": "p̄", "head": "head"}, "Both")
    found = [(point["experiment"], point["curve"], point["epoch"], point["value"]) for point in values(chart)]
    assert found == [
        *(("A", "loss", epoch, value) for epoch, value in [(1, 2.0), (2, 1.5), (3, 1.25)]),
        *(("A", "p̄", epoch, value) for epoch, value in [(1, 0.5), (2, 0.25), (3, 0.375)]),
        *[("B", "loss", 1, 1.0), ("B", "p̄", 1, 0.5), ("B", "p̄", 2, 0.25)],
    ]
    assert chart["encoding"]["color"]["scale"]["domain"] == ["A", "B"]
    assert chart["encoding"]["strokeDash"]["scale"]["domain"] == ["loss", "p̄"]
    assert "strokeDash" not in histories_chart({"A": HISTORY}, {"loss": "loss"}, "One")["encoding"]


def test_an_epoch_that_lacks_a_number_leaves_a_gap():
    history = HISTORY.assign(loss=[2.0, np.nan, 1.25])
    assert [point["epoch"] for point in values(curves_chart(history, {"loss": "loss"}, ""))] == [1, 3]


def test_lowest_softness_and_freeze_are_marked_at_their_epochs():
    chart = softness_chart(HISTORY, lowest_epoch=2, frozen_epoch=3)
    assert texts(chart) == ["frozen, epoch 3", "lowest, epoch 2"]
    assert chart["description"].endswith("dictionary frozen in epoch 3; lowest in epoch 2")
    filters = [layer["transform"][0]["filter"] for layer in chart["layer"] if "transform" in layer]
    assert filters == ["datum.epoch === 3"] * 2 + ["datum.epoch === 2"] * 2
    assert [point["softness"] for point in values(chart)] == [0.5, 0.25, 0.375]


def test_what_did_not_happen_is_not_marked():
    assert len(softness_chart(HISTORY, lowest_epoch=None, frozen_epoch=None)["layer"]) == 1


def test_bins_stand_between_their_edges():
    chart = confidence_chart(RELIABILITY, bins=5)
    bars = values(chart)
    assert [bar["low"] for bar in bars] == pytest.approx([0.2, 0.6, 0.8])
    assert [bar["middle"] for bar in bars] == pytest.approx([0.3, 0.7, 0.9])
    assert [bar["high"] for bar in bars] == pytest.approx([0.4, 0.8, 1.0])
    assert [bar["count"] for bar in bars] == [2, 5, 9]
    assert chart["height"] == HISTOGRAM_HEIGHT


def test_reliability_runs_over_the_whole_unit_square():
    chart = reliability_chart(RELIABILITY)
    diagonal, bins = chart["layer"]
    assert [list(point.values()) for point in values(diagonal)] == [[0, 0], [1, 1]]
    assert [(point["confidence"], point["accuracy"], point["count"]) for point in values(bins)] == [
        (0.35, 0.5, 2),
        (0.7, 0.6, 5),
        (0.95, 0.9, 9),
    ]
    assert [chart["encoding"][axis]["scale"]["domain"] for axis in ("x", "y")] == [[0, 1], [0, 1]]


def test_curves_of_classes_have_their_points_in_order_and_their_areas_in_the_legend():
    names = {name: f"class {name}" for name in "abcdefgh"}
    chance, lines = roc_chart(CURVES, names)["layer"]
    assert [list(point.values()) for point in values(chance)] == [[0, 0], [1, 1]]
    assert values(lines)[:3] == [
        {"curve": "class a, AUC 0.750", "x": x, "y": y} for x, y in [(0, 0), (0, 0.1235), (1, 1)]
    ]
    assert lines["encoding"]["order"] == {"value": None}
    chart = precision_recall_chart(CURVES, names)
    assert [point["y"] for point in values(chart)[:3]] == [1, 0.8765, 0]
    assert chart["mark"]["interpolate"] == "step-before"
    assert chart["encoding"]["color"]["scale"]["domain"] == [f"class {name}, AP 0.500" for name in "abcdefgh"]


def test_eight_curves_have_eight_looks():
    encoding = precision_recall_chart(CURVES, {name: name for name in "abcdefgh"})["encoding"]
    colours, dashes = (encoding[channel]["scale"]["range"] for channel in ("color", "strokeDash"))
    assert len({(colour, tuple(dash)) for colour, dash in zip(colours, dashes, strict=True)}) == 8


@pytest.mark.parametrize("last", [1, 2, 3, 4, 5, 6, 7, 16, 200])
def test_epochs_are_ticked_at_whole_numbers(last):
    count = epochs(pd.DataFrame({"epoch": range(1, last + 1)}))["axis"]["tickCount"]
    assert 1 <= count <= 5
    assert last == 1 or (last - 1) / count >= 1  # the least step between ticks


def test_colours_are_those_of_the_page():
    page = (PAGES / "style.css").read_text(encoding="utf-8")
    charts = [
        curves_chart(HISTORY, {"loss": "loss"}, ""),
        softness_chart(HISTORY, 2, 3),
        reliability_chart(RELIABILITY),
        confidence_chart(RELIABILITY, 5),
        roc_chart(CURVES, {name: name for name in "abcdefgh"}),
        histories_chart({"A": HISTORY}, {"loss": "loss"}, ""),
    ]
    used = set(re.findall(r"var\((--\w+)\)", str(charts)))
    light, dark = re.search(r":root \{(.*?)\}", page, re.DOTALL), re.search(r"dark\) \{(.*?)\}", page, re.DOTALL)
    assert light and dark
    assert used and used <= set(re.findall(r"--\w+(?=:)", light[1]))
    assert not re.search(r"#[0-9a-fA-F]{3,6}\b", str(charts))
