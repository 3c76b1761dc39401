"""Numbers as the experiments record them."""

import numpy as np
import pytest

from studies.features.records import rounded, soft_labels_of_distances, square


def test_recorded_cells_give_the_matrix_back():
    matrix = np.array([[0, 0.1, 0.2], [0.1, 0, 0.3], [0.2, 0.3, 0]])
    assert rounded(matrix) == [0.1, 0.2, 0.3]
    assert square(rounded(matrix)) == pytest.approx(matrix)
    labels = soft_labels_of_distances(rounded(matrix))
    assert labels[0] == pytest.approx(np.exp([0, -0.1, -0.2]) / np.exp([0, -0.1, -0.2]).sum())
