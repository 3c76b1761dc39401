"""The publication figures, in the style of the paper's Fig. 3; the same numbers give the same bytes.

Every function returns a new :class:`matplotlib.figure.Figure`: nothing is shown, and no state is kept between calls.
"""

import io
from collections.abc import Mapping, Sequence
from math import ceil, exp
from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from cclnet.metrics.names import LOSSES, VALIDATION_METRICS
from cclnet.system.files import write_bytes

# The eight colours of Okabe and Ito (2008) without black and yellow: colour-blind safe, visible on white.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"]

in_house_style = matplotlib.style.context(
    {
        "axes.prop_cycle": f"cycler(color={COLOURS})",
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.constrained_layout.use": True,
        "figure.dpi": 200,
        "grid.color": "#e0e0e0",
        "legend.frameon": False,
        "savefig.dpi": "figure",
        "svg.hashsalt": "cclnet",
    },
    after_reset=True,
)
"""matplotlib's defaults with these changes, independent of the user's matplotlibrc."""

PANELS_PER_ROW = 3
LARGEST_SIDE = 12.0
"""Largest side of a matrix in inches."""
LEGIBLE_CLASSES = 40
"""Largest number of classes for which the cells show numbers."""
SHORT_NAME = 5
"""Number of letters of a class's name that fit into the margins."""


def soft_label_figure(matrix: ArrayLike, classes: Sequence[str], title: str) -> Figure:
    """The K×K soft-label matrix: each row is the soft label of a class; numbers in the cells, colours from 0 to 1."""
    return soft_label_figures({title: matrix}, classes)


@in_house_style
def soft_label_figures(matrices: Mapping[str, ArrayLike], classes: Sequence[str]) -> Figure:
    """Several soft-label matrices (title → K×K, at least one) of the same classes, side by side on one scale."""
    arrays = {title: np.asarray(matrix, dtype=float) for title, matrix in matrices.items()}
    texts = {title: [[f"{value:.2f}" for value in row] for row in array] for title, array in arrays.items()}
    return matrix_figure(arrays, texts, classes, xlabel="probability given to", ylabel="class", scale="probability")


@in_house_style
def rank_figure(matrices: Mapping[str, ArrayLike], classes: Sequence[str]) -> Figure:
    """Several matrices of classes (title → K×K, at least one), coloured by the rank of each entry.

    Rank correlations compare these ranks. The numbers are the values of the entries; the diagonal has no rank.
    """
    arrays = {title: np.asarray(matrix, dtype=float) for title, matrix in matrices.items()}
    texts = {title: [[f"{value:.2f}" for value in row] for row in array] for title, array in arrays.items()}
    ranks = {title: off_diagonal_ranks(array) for title, array in arrays.items()}
    scale = "rank among the entries off the diagonal (0 lowest, 1 highest)"
    return matrix_figure(ranks, texts, classes, xlabel="", ylabel="class", scale=scale)


def off_diagonal_ranks(matrix: np.ndarray) -> np.ndarray:
    """The ranks of the off-diagonal entries, scaled to 0 to 1, with mean ranks for ties; NaN on the diagonal."""
    ranks = np.full(matrix.shape, np.nan)
    beside = ~np.eye(len(matrix), dtype=bool)
    ranks[beside] = (pd.Series(matrix[beside]).rank().to_numpy() - 1) / (beside.sum() - 1)
    return ranks


@in_house_style
def confusion_figure(counts: ArrayLike, classes: Sequence[str], title: str = "Confusion matrix") -> Figure:
    """The K×K confusion matrix with one row per true class: counts as numbers, shares of the row as colours."""
    counts = np.asarray(counts, dtype=int)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return matrix_figure(
        {title: shares},
        {title: counts.astype(str).tolist()},
        classes,
        xlabel="predicted class",
        ylabel="true class",
        scale="share of the true class",
    )


@in_house_style
def history_figure(history: pd.DataFrame, num_classes: int) -> Figure:
    """Losses, softness and validation metrics by epoch (the columns of ``metrics/history.csv``).

    A column without numbers is left out, and so is the softness of a method without a CCL head. The dotted line is the
    softness for pairwise orthogonal class embeddings, e² / (e² + K − 1): 0.551873 for K = 7.
    """
    softness = has_numbers(history, "softness")
    frozen_epochs = history["epoch"].to_numpy()[history["frozen"].to_numpy() == 1]
    figure = Figure(figsize=(8, 7.5 if softness else 5))
    panels = list(figure.subplots(3 if softness else 2, 1, sharex=True))
    draw_curves(panels[0], history, LOSSES)
    panels[0].set(ylabel="training loss")
    draw_curves(panels[-1], history, VALIDATION_METRICS)
    panels[-1].set(ylabel="validation metric", xlabel="epoch", xlim=(0, None))
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    if softness:
        draw_curves(panels[1], history, {"softness": "learned"})
        right_angles = exp(2) / (exp(2) + num_classes - 1)
        panels[1].axhline(right_angles, color="black", linestyle=":", label=f"at right angles, {right_angles:.6f}")
        panels[1].set(ylabel="softness")
    for axes in panels:
        if len(frozen_epochs):
            axes.axvline(frozen_epochs[0], color="gray", linestyle="--", label="dictionary frozen")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.align_ylabels()
    return figure


@in_house_style
def reliability_figure(reliability: pd.DataFrame, bins: int = 15, title: str = "Reliability") -> Figure:
    """Accuracy by confidence, with a histogram of images (columns bin from 1, confidence, accuracy, count)."""
    figure = Figure(figsize=(5, 6))
    diagram, histogram = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    diagram.plot([0, 1], [0, 1], color="gray", linestyle="--", label="perfect calibration")
    diagram.plot(reliability["confidence"], reliability["accuracy"], marker="o", label="predictions")
    diagram.set(title=title, ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    diagram.legend(loc="upper left")
    histogram.bar((reliability["bin"] - 0.5) / bins, reliability["count"], width=0.9 / bins)
    histogram.set(xlabel="confidence", ylabel="images")
    return figure


@in_house_style
def save_figure(figure: Figure, path: Path) -> None:
    """Write PNG or SVG, depending on the suffix; without date and random identifiers, so files are reproducible."""
    undated = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.removeprefix("."), metadata=undated)
    write_bytes(path, picture.getvalue())


def matrix_figure(
    matrices: Mapping[str, np.ndarray],
    texts: Mapping[str, list[list[str]]],
    classes: Sequence[str],
    *,
    xlabel: str,
    ylabel: str,
    scale: str,
) -> Figure:
    """Square matrices (title → K×K in [0, 1]) with texts in their cells; seven classes are legible at 800 pixels.

    NaN cells are grey.
    """
    columns = min(len(matrices), PANELS_PER_ROW)
    rows = ceil(len(matrices) / columns)
    side = min(max({1: 5.0, 2: 3.2}.get(columns, 2.1), 0.3 * len(classes)), LARGEST_SIDE)
    cell = 72 * side / len(classes)  # in points, the unit of font sizes
    margin = 0.08 * max(0, *(len(name) - SHORT_NAME for name in classes))
    figure = Figure(figsize=(columns * (side + 0.15) + 1.8 + margin, rows * (side + 1.1 + 0.7 * margin)))
    names = [name.replace("$", r"\$") for name in classes]  # disables formulas
    panels = [figure.add_subplot(rows, columns, place) for place in range(1, len(matrices) + 1)]
    for axes, (title, matrix) in zip(panels, matrices.items(), strict=True):
        draw_matrix(
            axes, matrix, texts[title] if len(classes) <= LEGIBLE_CLASSES else [], points=min(11.0, 0.36 * cell)
        )
        axes.set_xticks(range(len(classes)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(classes)), names if axes in panels[::columns] else [""] * len(classes))
        axes.tick_params(labelsize=min(10.0, 0.8 * cell))
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel if axes in panels[::columns] else "")
    figure.colorbar(panels[0].images[0], ax=panels, label=scale, shrink=0.8)
    return figure


def draw_matrix(axes: Axes, matrix: np.ndarray, texts: list[list[str]], points: float) -> None:
    """Colour the cells on a fixed scale from 0 to 1 and write the texts in black or white."""
    image = axes.imshow(matrix, cmap=colormaps["viridis"].with_extremes(bad="#eeeeee"), vmin=0, vmax=1)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    for row, cells in enumerate(texts):
        for column, text in enumerate(cells):
            red, green, blue, _ = image.to_rgba(matrix[row, column])
            colour = "white" if is_dark(red, green, blue) else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=points)


def is_dark(red: float, green: float, blue: float) -> bool:
    """Whether white has more contrast than black with an sRGB colour (relative luminance of WCAG 2)."""
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] < 0.179


def has_numbers(history: pd.DataFrame, column: str) -> bool:
    """Whether a column has any value; columns of the CCL head are empty for methods without it."""
    return bool(history[column].notna().to_numpy().any())


def draw_curves(axes: Axes, history: pd.DataFrame, labels: Mapping[str, str]) -> None:
    """Draw a curve for each given column that has numbers; the epochs are marked if there are few."""
    for column, label in labels.items():
        if has_numbers(history, column):
            axes.plot(history["epoch"], history[column], marker="." if len(history) <= 60 else "", label=label)
