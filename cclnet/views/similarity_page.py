"""A page about the similarity of classes: the pairs, the matrix, a map, and the images themselves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform

from cclnet.metrics.estimators import discriminant_plane
from cclnet.metrics.similarity import ClassSimilarity, reduced
from cclnet.views.figures import LEGIBLE_CLASSES
from cclnet.views.image_pairs import ImagePair
from cclnet.views.matrix_view import CELL_COLOUR
from cclnet.views.rendering import page_environment, png

SHOWN_PAIRS = 30
DRAWN_IMAGES = 1500
COLOURS = ("blue", "vermillion", "green", "purple", "cell", "orange", "ink")
LETTER = 7.5  # pixels, of 13
TREE = 70  # pixels, the height of the dendrogram
LARGEST_CELL, LARGEST_SIDE = 46.0, 400.0  # pixels
MAP_WIDTH, MAP_HEIGHT, MAP_MARGIN = 460, 420, 30  # pixels

MEANINGS = {
    "predictions": "Similarity 0: the features never confuse the two classes; 1: they do not tell them apart.",
    "confusions": "Similarity 0: the features never confuse the two classes; 1: they do not tell them apart.",
    "class_means": "Similarity is the cosine of the two classes' mean features about the mean of all classes.",
    "discriminant": "Similarity is the overlap of the two classes as normal distributions: 1 if they are the same.",
    "head": "Similarity is the cosine of the two class embeddings of the paper's CCL head.",
    "balanced_head": "Similarity is the cosine of the two class embeddings of a CCL head with a balanced loss.",
}
"""What the values of each estimator mean, in a sentence."""
VERDICTS = (
    "A pair is called alike (distinct) if its whole 95 % interval lies above (below) the mean of all pairs, by more "
    "than the pair does when the labels are shuffled among the images."
)


def similarity_page(
    name: str,
    similarity: ClassSimilarity,
    features: NDArray[np.floating],
    labels: Sequence[str],
    groups: int | None,
    image_pairs: Sequence[ImagePair],
) -> str:
    """The page as HTML, the same for the same input.

    Args:
        name: of the input, for the title.
        similarity: fitted to the features and labels.
        features: n×d.
        labels: n.
        groups: how many there are; None if unknown.
        image_pairs: the images of some pairs; empty if there are no images.
    """
    points, means = class_map(features, labels, similarity.classes_)
    drawn = [point for row in _some_of_each(labels, DRAWN_IMAGES) if _is_on_the_map(point := points[row])]
    pairs, lowest, highest = _pairs(similarity)
    return (
        page_environment()
        .get_template("similar.html")
        .render(
            name=name,
            images=len(labels),
            groups=groups,
            classes=similarity.classes_,
            estimator=similarity.estimator,
            meaning=MEANINGS[similarity.estimator],
            verdicts=VERDICTS if not np.isnan(similarity.low_).all() else "",
            control=control_sentence(similarity),
            pairs=pairs,
            shown=len(pairs),
            pairs_in_all=len(similarity.pairs_),
            lowest=lowest,
            highest=highest,
            matrix=_matrix(similarity),
            points=drawn,
            points_left_out=len(points) - len(drawn),
            means=means,
            image_pairs=image_pairs,
        )
    )


def control_sentence(similarity: ClassSimilarity) -> str:
    """How much of the similarities class counts explain, with the labels as they are and shuffled."""
    share, shuffled = similarity.count_share_, similarity.shuffled_count_share_
    if share is None:
        return ""
    text = (
        f"Class counts explain {share.explained:.0%} of the ranks of the similarities; counts without any relation to "
        f"them would explain {share.by_chance:.0%} (p = {share.p:.4f})."
    )
    if shuffled is not None:
        text += f" With shuffled labels they explain {shuffled.explained:.0%}."
    return text


def class_map(
    features: NDArray[np.floating], labels: Sequence[str], classes: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Places of the images and of the class means on the map, in pixels, with their colours."""
    number_of = {name: number for number, name in enumerate(classes)}
    numbers = np.array([number_of[label] for label in labels], dtype=np.int64)
    places = discriminant_plane(reduced(np.asarray(features, dtype=np.float64)), numbers, len(classes))
    low, high = np.quantile(places[_some_of_each(labels, DRAWN_IMAGES)], [0.005, 0.995], axis=0)
    room = np.array([MAP_WIDTH, MAP_HEIGHT]) - 2 * MAP_MARGIN
    scaled = MAP_MARGIN + ((places - low) / np.where(high > low, high - low, 1)) * room
    colour_of = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(classes)}
    points = [
        {"x": round(float(x), 1), "y": round(float(y), 1), "colour": colour_of[label]}
        for (x, y), label in zip(scaled, labels, strict=True)
    ]
    means = []
    for name in classes:
        x, y = scaled[numbers == number_of[name]].mean(axis=0)
        means.append({"x": round(float(x), 1), "y": round(float(y), 1), "colour": colour_of[name], "name": name})
    return points, means


def _is_on_the_map(point: dict[str, Any]) -> bool:
    return 0 <= point["x"] <= MAP_WIDTH and 0 <= point["y"] <= MAP_HEIGHT


def _some_of_each(labels: Sequence[str], most: int) -> list[int]:
    """At most so many rows, of every class as many as it has, up to the same number."""
    names = np.asarray(labels)
    rows_of = [np.flatnonzero(names == name) for name in np.unique(names)]
    share = max(1, most // len(rows_of))
    return sorted(int(row) for rows in rows_of for row in rows[:: max(1, -(-len(rows) // share))])


def _pairs(similarity: ClassSimilarity) -> tuple[list[dict[str, Any]], float, float]:
    """The rows of the table of pairs, and the ends of its line."""
    rows = similarity.pairs_.head(SHOWN_PAIRS).to_dict("records")
    numbers = similarity.pairs_[["similarity", "low", "high"]].to_numpy(dtype=float)
    lowest, highest = min(0.0, float(np.nanmin(numbers))), max(1.0, float(np.nanmax(numbers)))

    def percent(value: float) -> float:
        return round(100 * (value - lowest) / (highest - lowest), 1)

    for row in rows:
        row["place"] = percent(row["similarity"])
        without = bool(np.isnan(row["low"]))
        row["left"] = None if without else percent(row["low"])
        row["width"] = None if without else round(percent(row["high"]) - percent(row["low"]), 1)
    return rows, lowest, highest  # pyright: ignore[reportReturnType] - keys are the columns' names


def _matrix(similarity: ClassSimilarity) -> dict[str, Any]:
    """The drawing of the matrix: cells, names and the branches of the dendrogram, in pixels."""
    tree = linkage(squareform(similarity.distances_, checks=False), "average", optimal_ordering=True)
    drawn = dendrogram(tree, no_plot=True)
    order = [int(leaf) for leaf in drawn["leaves"]]
    values = similarity.similarity_[np.ix_(order, order)]
    names = [similarity.classes_[place] for place in order]
    beside = ~np.eye(len(names), dtype=bool)
    low, high = values[beside].min(), values[beside].max()
    shares = np.where(beside, (values - low) / ((high - low) or 1), 0)
    cell = min(LARGEST_CELL, LARGEST_SIDE / len(names))
    legible = len(names) <= LEGIBLE_CLASSES
    left = 14 + LETTER * max(map(len, names)) if legible else 4.0
    tallest = max(max(heights) for heights in drawn["dcoord"]) or 1
    branches = [
        "M"
        + " L".join(
            f"{left + x / 10 * cell:.1f} {TREE * (1 - y / tallest) + 2:.1f}" for x, y in zip(xs, ys, strict=True)
        )
        for xs, ys in zip(drawn["icoord"], drawn["dcoord"], strict=True)
    ]
    top = TREE + 6
    cells = [
        {
            "x": round(left + column * cell, 2),
            "y": round(top + row * cell, 2),
            "percent": round(100 * float(shares[row, column])),
            "text": f"{values[row, column]:.2f}".replace("-", "−") if row != column else "",
        }
        for row in range(len(names))
        for column in range(len(names))
        if legible
    ]
    side = cell * len(names)
    return {
        "width": round(left + side + 4),
        "height": round(top + side + 4),
        "left": round(left, 1),
        "top": top,
        "side": round(side, 1),
        "cell": round(cell, 2),
        "cells": cells,
        "picture": "" if legible else _picture(shares),
        "labels": [
            {"name": name, "middle": round(top + (row + 0.5) * cell, 1)} for row, name in enumerate(names) if legible
        ],
        "branches": branches,
    }


def _picture(shares: NDArray[np.float64]) -> str:
    """A pixel for each cell, the more opaque the larger, as PNG in base64."""
    opacity = np.rint(255 * shares).astype(np.uint8)
    pixels = np.dstack([*(np.full_like(opacity, channel) for channel in CELL_COLOUR), opacity])
    return png(Image.fromarray(pixels))
