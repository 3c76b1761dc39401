"""The images that show how alike two classes are: the nearest pairs, and the most typical images of each class."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

NEAREST = 4
TYPICAL = 4


class Examples(NamedTuple):
    """Rows of images that belong to a pair of classes.

    Attributes:
        nearest: pairs of an image of a and one of b, the nearest first; no image is in two of them.
        typical_a, typical_b: the images nearest to the mean of their class, the nearest first.
    """

    nearest: list[tuple[int, int]]
    typical_a: list[int]
    typical_b: list[int]


def examples(features: NDArray[np.floating], labels: Sequence[str], a: str, b: str) -> Examples:
    """Find the images that show how alike the classes a and b are.

    Distances are Euclidean in the n×d features; the neighbours are exact.
    """
    names = np.asarray(labels)
    rows_a, rows_b = np.flatnonzero(names == a), np.flatnonzero(names == b)
    wanted = min(len(rows_b), NEAREST * NEAREST)  # enough for pairs that share no image
    distances, neighbours = NearestNeighbors(n_neighbors=wanted).fit(features[rows_b]).kneighbors(features[rows_a])
    found: list[tuple[int, int]] = []
    used: set[int] = set()
    for place in np.argsort(distances, axis=None, kind="stable"):
        first, second = np.unravel_index(place, distances.shape)
        pair = int(rows_a[first]), int(rows_b[neighbours[first, second]])
        if used.isdisjoint(pair):
            found.append(pair)
            used.update(pair)
        if len(found) == NEAREST:
            break
    return Examples(found, _typical(features, rows_a), _typical(features, rows_b))


def _typical(features: NDArray[np.floating], rows: NDArray[np.int64]) -> list[int]:
    own = features[rows]
    distances = ((own - own.mean(axis=0)) ** 2).sum(axis=1)
    return [int(row) for row in rows[np.argsort(distances, kind="stable")[:TYPICAL]]]
