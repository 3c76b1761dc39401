import base64
import io

import numpy as np
from PIL import Image

from cclnet.views.matrix_view import CELL_COLOUR, NEGATIVE_COLOUR, PAIRS, Cell, matrix_view

SHARES = np.array([[0.8, -0.1, 0.3], [0.2, -0.5, 0.4], [0.0, 0.1, 0.9]])


def test_the_full_colour_is_the_largest_value_off_the_diagonal():
    found = matrix_view(SHARES, ["a", "b", "c"], lambda value: f"{value:.1f}")
    assert found.largest == 0.4
    assert found.rows == [
        [Cell("0.8", 0.8, "own"), Cell("-0.1", 0.25, "less"), Cell("0.3", 0.3 / 0.4, "")],
        [Cell("0.2", 0.5, ""), Cell("-0.5", 0.5, "own"), Cell("0.4", 1, "")],
        [Cell("0.0", 0, ""), Cell("0.1", 0.25, ""), Cell("0.9", 0.9, "own")],
    ]
    assert (found.picture, found.pairs) == ("", [])


def test_other_numbers_than_the_shares_may_be_printed():
    found = matrix_view(np.eye(2), ["a", "b"], str, np.array([[7, 0], [0, 12]]))
    assert [[cell.text for cell in row] for row in found.rows] == [["7", "0"], ["0", "12"]]
    assert [cell.strength for row in found.rows for cell in row] == [1, 0, 0, 1]


def test_a_matrix_that_is_too_large_to_print_is_a_picture_and_its_largest_cells():
    shares = np.random.default_rng(0).uniform(-1, 1, (50, 50))
    found = matrix_view(shares, [str(place) for place in range(50)], lambda value: f"{value:.3f}")
    assert found.rows == []
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(found.picture))))
    beside = np.where(np.eye(50, dtype=bool), 0, shares)
    np.testing.assert_allclose(pixels[..., 3] / 255, np.abs(beside) / np.abs(beside).max(), atol=0.5 / 255 + 1e-9)
    assert (pixels[beside < 0][:, :3] == NEGATIVE_COLOUR).all()
    assert (pixels[beside >= 0][:, :3] == CELL_COLOUR).all()
    largest = sorted(
        ((abs(beside[row, column]), row, column) for row in range(50) for column in range(50)), reverse=True
    )
    assert found.pairs == [(str(row), str(column), f"{shares[row, column]:.3f}") for _, row, column in largest[:PAIRS]]
