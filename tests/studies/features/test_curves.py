"""Rows of the tables that follow a training, against values computed by hand."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from studies.features import curves
from studies.features.course import EPOCHS
from studies.features.records import balanced_confusions, rounded


@pytest.fixture
def by_epoch() -> list[list[float]]:
    """Distances of seven classes after each of 40 epochs."""
    return np.random.default_rng(0).uniform(0.5, 2, size=(EPOCHS, 21)).round(5).tolist()


def agreement(distances: list[float]) -> float:
    """The rank correlation of the soft labels with the balanced confusions, in loops."""
    pairs = [(row, column) for row in range(7) for column in range(row + 1, 7)]
    between = dict(zip(pairs, distances, strict=True))
    learned, confused = [], []
    for row in range(7):
        powers = [1.0 if row == other else np.exp(-between[min(row, other), max(row, other)]) for other in range(7)]
        for column in range(7):
            if row != column:
                learned.append(powers[column] / sum(powers))
                confused.append(balanced_confusions()[row, column])
    return float(np.asarray(spearmanr(learned, confused))[0])


def test_the_agreement_of_every_epoch_is_a_rank_correlation(by_epoch: list[list[float]]):
    found = curves.agreement_by_epoch({"distances": by_epoch})
    assert found == pytest.approx([agreement(distances) for distances in by_epoch])


def test_a_row_of_the_course_reads_the_epochs_of_the_extremes(by_epoch: list[list[float]]):
    softness = np.linspace(0.5, 0.6, EPOCHS)
    softness[6] = 0.4
    cell = {"distances": by_epoch, "softness": softness.tolist(), "accuracy": [0.25] * EPOCHS}
    row = curves.course_row(("weights", 0.005, "original"), [cell])
    values = [agreement(distances) for distances in by_epoch]
    assert row["highest"] == f"{max(values):.2f}"
    assert row["its epoch"] == str(values.index(max(values)) + 1)
    assert row["at the lowest p̄"] == row_value(values[6])
    assert (row["epoch 1"], row["epoch 40"]) == (row_value(values[0]), row_value(values[-1]))
    assert (row["lowest p̄"], row["last p̄"], row["training accuracy"]) == ("0.400", "0.600", "0.250")


def row_value(value: float) -> str:
    """A correlation as the tables show it."""
    return f"{value:.2f}"


def test_a_row_of_networks_has_the_lowest_and_the_mean_of_the_later_epochs():
    early, later = [9.0] * 9, [0.2, 0.4, 0.9]
    columns = ("predictions_all", "predictions_validation", "discriminant_all", "class_means_all")
    cell = dict.fromkeys(columns, early + later) | {"soft_labels": [None] * 12, "accuracy": [0.1, 0.7]}
    row = curves.network_row((50, "baseline", "original"), [cell])
    assert row["predictions, all images"] == row["class means, all images"] == "0.20 / 0.50"
    assert row["soft labels"] == "–"
    assert row["accuracy"] == "0.700"
    assert row["data"] == "sample, 50 : 1"


def test_two_trainings_on_the_same_data_are_compared_at_the_same_epoch(monkeypatch: pytest.MonkeyPatch):
    matrix = np.arange(49.0).reshape(7, 7)
    same, other = rounded(matrix + matrix.T), rounded(-matrix - matrix.T)
    courses = [same] * 10 + [same, same], [other] * 9 + [same, other, same]
    cells = [{"distances": distances} for distances in courses]
    place = (50, "weights", "original", 0)
    monkeypatch.setattr(curves, "results_by", lambda *_: {place: cells, (50, "weights", "shuffled", 0): cells[:1]})
    assert curves.between_seeds(50, "weights", "original") == "-1.00"
    assert curves.between_seeds(50, "weights", "shuffled") == "–"
