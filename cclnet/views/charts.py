"""The report's charts as Vega-Lite specifications (5.2): plain dicts, as wide as the enclosing element.

Colours are the page's CSS variables, so that charts adapt to light and dark mode and to printing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cclnet.views.class_curves import ClassCurves
from cclnet.views.figures import has_numbers

Chart = dict[str, Any]

HEIGHT, HISTOGRAM_HEIGHT, CURVE_HEIGHT = 220, 80, 320  # pixels
MOST_MARKED_EPOCHS = 60
COLOURS = ("blue", "vermillion", "green", "purple", "ink")
DASHES = ([1, 0], [6, 3])
"""Curves beyond the number of colours have the same colours in dashes."""

CONFIG = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domain": False,
        "gridColor": "var(--line)",
        "labelColor": "var(--quiet)",
        "labelFontSize": 12,
        "tickColor": "var(--line)",
        "titleColor": "var(--quiet)",
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "axisY": {"minExtent": 40, "tickCount": 5},  # aligns charts above each other
    "legend": {
        "columns": 2,
        "labelColor": "var(--ink)",
        "labelFontSize": 12,
        "offset": 10,
        "orient": "bottom",
        "symbolStrokeWidth": 2,
        "symbolType": "stroke",
        "title": None,
    },
    "line": {"color": "var(--blue)", "strokeWidth": 2},
    "point": {"color": "var(--blue)", "filled": True, "opacity": 1, "size": 45},
    "bar": {"color": "var(--blue)"},
    "rule": {"color": "var(--quiet)", "strokeDash": [4, 4]},
    "text": {"color": "var(--ink)", "fontSize": 12},
    "range": {"category": [f"var(--{name})" for name in COLOURS]},
}


def curves_chart(history: pd.DataFrame, labels: Mapping[str, str], description: str) -> Chart:
    """A curve over the epochs for each given column (column → label) of ``metrics/history.csv`` that has numbers."""
    shown = [column for column in labels if has_numbers(history, column)]
    points = (
        pd.DataFrame(history, columns=["epoch", *shown])
        .rename(columns=dict(labels))
        .melt("epoch", var_name="curve")
        .dropna()
    )
    encoding = {
        "x": epochs(history),
        "y": numbers("value"),
        "color": {"field": "curve", "type": "nominal", "sort": None},
        "tooltip": [
            numbers("epoch", "epoch"),
            {"field": "curve", "type": "nominal"},
            numbers("value", "value", format=".4f"),
        ],
    }
    return chart(description, data=rows(points), mark=line(history), encoding=encoding)


def histories_chart(histories: Mapping[str, pd.DataFrame], labels: Mapping[str, str], description: str) -> Chart:
    """The given columns (column → label) of several histories (name → table): a colour each, and a dash per column."""
    shown = [column for column in labels if any(has_numbers(history, column) for history in histories.values())]
    points = [
        {"epoch": epoch, "experiment": name, "curve": labels[column], "value": value}
        for name, history in histories.items()
        for column in shown
        for epoch, value in pd.DataFrame(history, columns=["epoch", column]).dropna().itertuples(index=False)
    ]
    longest, legend = max(histories.values(), key=len), {"columns": 1}
    dashes = {"domain": [labels[column] for column in shown], "range": [[1, 0], [6, 3], [2, 2]]}
    encoding = {
        "x": epochs(longest),
        "y": numbers("value", scale={"zero": False}),
        "color": {"field": "experiment", "type": "nominal", "scale": {"domain": list(histories)}, "legend": legend},
        "strokeDash": {"field": "curve", "type": "nominal", "scale": dashes, "legend": legend},
        "tooltip": [
            numbers("epoch", "epoch"),
            *({"field": name, "type": "nominal"} for name in ("experiment", "curve")),
            numbers("value", "value", format=".4f"),
        ],
    }
    if len(shown) == 1:
        del encoding["strokeDash"]
    return chart(description, data={"values": points}, mark=line(longest), encoding=encoding)


def softness_chart(history: pd.DataFrame, lowest_epoch: int | None, frozen_epoch: int | None) -> Chart:
    """p̄ by epoch, with marks at its minimum and at the epoch in which the dictionary was frozen, if any."""
    description = "Softness p̄ of the soft labels by epoch"
    layers: list[Chart] = [{"mark": line(history)}]
    if frozen_epoch is not None:
        description += f"; dictionary frozen in epoch {frozen_epoch}"
        whole_height = {"y": {"value": 0}, "y2": {"value": "height"}}
        text = text_beside(frozen_epoch, f"frozen, epoch {frozen_epoch}", history) | {"baseline": "top"}
        layers += [
            {"transform": only(frozen_epoch), "mark": "rule", "encoding": whole_height},
            {"transform": only(frozen_epoch), "mark": text, "encoding": {"y": {"value": 0}}},
        ]
    if lowest_epoch is not None:
        description += f"; lowest in epoch {lowest_epoch}"
        point = {"type": "point", "color": "var(--vermillion)", "size": 90}
        text = text_beside(lowest_epoch, f"lowest, epoch {lowest_epoch}", history) | {"dy": 16}
        layers += [{"transform": only(lowest_epoch), "mark": mark} for mark in (point, text)]
    encoding = {
        "x": epochs(history),
        "y": numbers("softness", axis={"format": ".3f"}, scale={"nice": False, "padding": 24, "zero": False}),
        "tooltip": [numbers("epoch", "epoch"), numbers("softness", "p̄", format=".4f")],
    }
    return chart(description, data=rows(history, "epoch", "softness"), encoding=encoding, layer=layers)


def reliability_chart(reliability: pd.DataFrame) -> Chart:
    """Accuracy by confidence (columns confidence, accuracy, count), with the diagonal of perfect calibration."""
    diagonal = {
        "data": {"values": [{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}]},
        "mark": {"type": "line", "color": "var(--quiet)", "strokeDash": [4, 4], "strokeWidth": 1},
    }
    figures = [numbers(name, name, format=".3f") for name in ("confidence", "accuracy")] + [numbers("count", "images")]
    bins = {
        "data": rows(reliability, "confidence", "accuracy", "count"),
        "mark": {"type": "line", "point": True},
        "encoding": {"tooltip": figures},
    }
    unit = {"domain": [0, 1]}
    encoding = {
        "x": numbers("confidence", scale=unit, axis={"tickCount": 5}),
        "y": numbers("accuracy", "accuracy", scale=unit),
    }
    return chart("Accuracy of the predictions by their confidence", encoding=encoding, layer=[diagonal, bins])


def confidence_chart(reliability: pd.DataFrame, bins: int) -> Chart:
    """A histogram: the number of images (column count) in each bin of equal width (column bin, from 1)."""
    upper = reliability["bin"] / bins
    edges = reliability[["count"]].assign(low=upper - 1 / bins, middle=upper - 0.5 / bins, high=upper)
    unit = {"domain": [0, 1]}
    images = numbers("count", "images", axis={"grid": False, "tickCount": 2})
    from_edge_to_edge = {
        "x": numbers("low", "confidence", bin="binned", scale=unit, axis={"tickCount": 5}),
        "x2": {"field": "high"},
        "y": images,
    }
    in_the_middle = {"x": numbers("middle", "confidence", scale=unit), "y": images, "text": numbers("count")}
    layers = [
        {"mark": "bar", "encoding": from_edge_to_edge},
        {"mark": {"type": "text", "dy": -7, "fontSize": 10}, "encoding": in_the_middle},
    ]
    description = "Images by the confidence of their prediction"
    return chart(description, data=rows(edges), layer=layers, height=HISTOGRAM_HEIGHT)


def roc_chart(curves: Sequence[ClassCurves], names: Mapping[str, str]) -> Chart:
    """Sensitivity by false-positive rate of each class, with the diagonal of chance and the areas in the legend.

    ``names`` maps a class to its name in the legend.
    """
    points = {f"{names[curve.name]}, AUC {curve.auc:.3f}": curve.roc for curve in curves}
    axes = {"x": unit_axis("x", "1 − specificity"), "y": unit_axis("y", "sensitivity")}
    chance = {
        "data": {"values": [{"x": 0, "y": 0}, {"x": 1, "y": 1}]},
        "mark": {"type": "line", "color": "var(--quiet)", "strokeDash": [4, 4], "strokeWidth": 1},
        "encoding": axes,
    }
    description = "ROC curves of each class against the rest"
    return chart(description, layer=[chance, curve_lines(points, axes, "linear")], height=CURVE_HEIGHT)


def precision_recall_chart(curves: Sequence[ClassCurves], names: Mapping[str, str]) -> Chart:
    """Precision by recall of each class, with the average precisions in the legend; ``names`` as for ``roc_chart``."""
    points = {f"{names[curve.name]}, AP {curve.average_precision:.3f}": curve.precision_recall for curve in curves}
    axes = {"x": unit_axis("x", "recall (sensitivity)"), "y": unit_axis("y", "precision")}
    description = "Precision-recall curves of each class against the rest"
    return chart(description, **curve_lines(points, axes, "step-before"), height=CURVE_HEIGHT)


def curve_lines(curves: Mapping[str, NDArray[np.float64]], axes: dict[str, Any], interpolate: str) -> Chart:
    """A line for each entry of the legend, through its points (points × 2) in the given order."""
    values = [
        {"curve": name, "x": round(float(across), 4), "y": round(float(up), 4)}
        for name, points in curves.items()
        for across, up in points
    ]
    names, places = list(curves), range(len(curves))
    looks = {
        "color": [f"var(--{COLOURS[place % len(COLOURS)]})" for place in places],
        "strokeDash": [DASHES[place // len(COLOURS) % len(DASHES)] for place in places],
    }
    encoding = axes | {
        "order": {"value": None},  # the order of the data: a step has several points with the same x
        "tooltip": [{"field": "curve", "type": "nominal"}, *(numbers(axis, axes[axis]["title"]) for axis in axes)],
    }
    for channel, range_ in looks.items():
        scale = {"domain": names, "range": range_}
        legend = {"columns": 1, "labelLimit": 0}
        encoding[channel] = {"field": "curve", "type": "nominal", "scale": scale, "legend": legend}
    mark = {"type": "line", "interpolate": interpolate, "strokeWidth": 1.5}
    return {"data": {"values": values}, "mark": mark, "encoding": encoding}


def unit_axis(field: str, title: str) -> dict[str, Any]:
    """An axis from 0 to 1."""
    return numbers(field, title, scale={"domain": [0, 1]}, axis={"tickCount": 5})


def chart(description: str, **view: Any) -> Chart:
    """A complete specification of a view; the description is the text for screen readers."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "description": description,
        "config": CONFIG,
        "width": "container",
        "height": HEIGHT,
        **view,
    }


def rows(table: pd.DataFrame, *columns: str) -> dict[str, Any]:
    """The given columns of a table (by default all) as the data of a chart."""
    return {"values": pd.DataFrame(table, columns=list(columns) or None).to_dict("records")}


def numbers(field: str, title: str | None = None, **options: Any) -> dict[str, Any]:
    """An encoding channel for a column of numbers."""
    return {"field": field, "type": "quantitative", "title": title, **options}


def epochs(history: pd.DataFrame) -> dict[str, Any]:
    """The horizontal axis of epochs, from the first to the last."""
    ticks = max(1, min(5, len(history) - 1))  # few enough for integer ticks, which tickMinStep does not ensure
    axis = {"format": "d", "grid": False, "tickCount": ticks}
    return numbers("epoch", "epoch", axis=axis, scale={"nice": False, "zero": False})


def line(history: pd.DataFrame) -> dict[str, Any]:
    """A line; the epochs are marked if there are few."""
    return {"type": "line", "point": len(history) <= MOST_MARKED_EPOCHS}


def text_beside(epoch: int, text: str, history: pd.DataFrame) -> dict[str, Any]:
    """A text beside an epoch, on the side with more space."""
    side = {"align": "right", "dx": -6} if 2 * epoch > len(history) else {"align": "left", "dx": 6}
    return {"type": "text", "text": text, **side}


def only(epoch: int) -> list[dict[str, Any]]:
    """The transform that selects one epoch."""
    return [{"filter": f"datum.epoch === {epoch}"}]
