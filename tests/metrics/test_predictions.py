"""What every metric demands of predictions, and their table."""

import numpy as np
import pytest

from cclnet.metrics.calibration import (
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    reliability_table,
)
from cclnet.metrics.predictions import checked_predictions, prediction_table
from cclnet.metrics.scores import evaluate
from cclnet.system.errors import DataError


def test_the_table_has_the_images_and_then_the_classes_in_their_order() -> None:
    table = prediction_table(["b", "a"], [[0.25, 0.75], [1, 0]], ("NV", "MEL"))
    assert table.to_csv(index=False) == "image,NV,MEL\nb,0.25,0.75\na,1.0,0.0\n"


def test_rows_are_scaled_to_sum_to_one_and_labels_stay() -> None:
    given = np.array([[0.2, 0.3, 0.50004], [1, 0, 0]], dtype=np.float32)
    labels, rows = checked_predictions([2, 0], given)
    assert labels.tolist() == [2, 0]
    assert rows.dtype == np.float64
    assert rows[0].tolist() == pytest.approx([0.2 / 1.00004, 0.3 / 1.00004, 0.50004 / 1.00004], rel=1e-6)
    assert rows[1].tolist() == [1, 0, 0]
    assert given[0, 2] == np.float32(0.50004)  # the caller's array is its own


@pytest.mark.parametrize(("total", "refused"), [(1.00009, False), (0.99991, False), (1.00011, True), (0.99989, True)])
def test_a_sum_may_differ_from_one_by_a_ten_thousandth(total: float, refused: bool) -> None:
    rows = [[0.5, 0.5], [0.25, total - 0.25]]
    if refused:
        with pytest.raises(DataError, match="not to 1"):
            checked_predictions([0, 1], rows)
    else:
        checked_predictions([0, 1], rows)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1, 1], np.full((2, 2), 0.5), "3 labels for 2 rows"),
        ([0, 2], np.full((2, 2), 0.5), "labels run from 0 to 2, not within 0 … 1"),
        ([-1, 0], np.full((2, 2), 0.5), "labels run from -1 to 0"),
        ([0.0, 1.0], np.full((2, 2), 0.5), "labels are float64, not integers"),
        ([[0, 1]], np.full((2, 2), 0.5), "labels have the shape"),
        ([], np.empty((0, 2)), "at least 1"),
        ([0, 1], np.full(2, 0.5), "probabilities have the shape"),
        ([0, 0], np.ones((2, 1)), "probabilities have the shape"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.51]], "sum to 1 … 1.01, not to 1"),
        ([0, 1], [[0.5, 0.5], [np.nan, 1]], "1 rows of probabilities are not finite (the first is row 1)"),
        ([0, 1], [[0.5, 0.5], [np.inf, 1]], "not finite"),
        ([0, 1], [[1.5, -0.5], [0.5, 0.5]], "negative"),
    ],
)
def test_what_is_no_prediction_is_refused_in_one_line(labels: list, probabilities: np.ndarray, message: str) -> None:
    for function in (
        checked_predictions,
        evaluate,
        expected_calibration_error,
        classwise_calibration_error,
        brier_score,
        reliability_table,
    ):
        with pytest.raises(DataError) as caught:
            function(labels, probabilities)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_names_of_classes_are_as_many_as_columns() -> None:
    rows = [[0.5, 0.5], [0.25, 0.75]]
    checked_predictions([0, 1], rows, ["a", "b"])
    with pytest.raises(
        DataError, match=r"^cannot score these predictions: 3 class names for 2 columns of probabilities$"
    ):
        checked_predictions([0, 1], rows, ["a", "b", "c"])
