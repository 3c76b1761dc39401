"""K×K matrices of classes as pages show them: numbers, and colours on the scale of the cells off the diagonal.

The diagonal is much larger than the other cells, so on a common scale these would all look alike.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cclnet.views.figures import LEGIBLE_CLASSES
from cclnet.views.rendering import png

PAIRS = 20  # of classes that are listed for a matrix that is too large to print
CELL_COLOUR, NEGATIVE_COLOUR = (86, 180, 233), (213, 94, 0)  # of a matrix that is too large to print


class Cell(NamedTuple):
    """A cell: its number, the strength of its colour in [0, 1], and its kind, which determines the colour.

    The kinds are ``own`` on the diagonal, ``less`` for a negative value, otherwise empty.
    """

    text: str
    strength: float
    kind: str


class MatrixView(NamedTuple):
    """A K×K matrix for display on a page.

    Attributes:
        rows: the cells.
        largest: the value that has the full colour, the largest absolute one off the diagonal.
        picture: for matrices that are too large to print, the colours off the diagonal as a PNG in base64; otherwise
            empty.
        pairs: for such matrices, the largest off-diagonal cells: the row's class, the column's class, the number.
    """

    rows: list[list[Cell]]
    largest: float
    picture: str
    pairs: list[tuple[str, str, str]]


def matrix_view(
    shares: NDArray[np.float64],
    classes: Sequence[str],
    text: Callable[[Any], str],
    numbers: NDArray[Any] | None = None,
) -> MatrixView:
    """Prepare a matrix for display.

    Args:
        shares: K×K in [−1, 1]: the colours. Off the diagonal, the full colour is the largest absolute value there; on
            the diagonal it is 1.
        classes: the K names.
        text: formats a number.
        numbers: K×K, the printed numbers if they are not the shares.
    """
    numbers = shares if numbers is None else numbers
    diagonal = np.eye(len(classes), dtype=bool)
    beside = np.where(diagonal, 0, shares)
    largest = float(np.abs(beside).max())
    strengths = np.where(diagonal, np.abs(shares), np.abs(beside) / (largest or 1))
    if len(classes) > LEGIBLE_CLASSES:
        order = np.argsort(-np.abs(beside), axis=None, kind="stable")[:PAIRS]
        places = [(int(row), int(column)) for row, column in zip(*np.unravel_index(order, shares.shape), strict=True)]
        pairs = [(classes[row], classes[column], text(numbers[row, column])) for row, column in places]
        return MatrixView([], largest, _picture(np.where(diagonal, 0, strengths), beside < 0), pairs)
    kinds = np.where(diagonal, "own", np.where(beside < 0, "less", ""))
    rows = [
        [Cell(text(number), float(strength), str(kind)) for number, strength, kind in zip(*parts, strict=True)]
        for parts in zip(numbers, strengths, kinds, strict=True)
    ]
    return MatrixView(rows, largest, "", [])


def _picture(strengths: NDArray[np.float64], negative: NDArray[np.bool_]) -> str:
    """An image with one pixel per cell, whose opacity is the strength."""
    colours = np.where(negative[..., None], NEGATIVE_COLOUR, CELL_COLOUR).astype(np.uint8)
    return png(Image.fromarray(np.dstack([colours, np.rint(255 * strengths).astype(np.uint8)])))
