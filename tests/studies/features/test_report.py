"""Tables of the study of features, against hand-computed values."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from studies.features.records import rounded
from studies.features.report import difference, difference_column, pair_interval, sizes_row, write
from studies.running.settings import ROOT


def test_equal_matrices_agree_wholly():
    matrix = np.random.default_rng(0).random((7, 7))
    assert pair_interval([matrix, matrix, matrix]) == "1.00 (1.00 to 1.00)"


def test_a_matrix_of_the_sizes_follows_the_size_and_not_the_class():
    cells = []
    for order in range(8):
        sizes = np.random.default_rng(order).permutation([64, 32, 16, 8, 4, 2, 1])
        distances = np.log(np.outer(sizes, sizes)) + 1
        cells.append({"sizes": sizes.tolist(), "distances": rounded(distances)})
    row = sizes_row("made up", cells, lambda cell: cell["distances"])
    assert row["by size"] == "1.00 (1.00 to 1.00)"
    assert row["by class"] != row["by size"]
    assert float(row["counts explain"].split()[0]) > 0.8


def test_a_matrix_of_the_classes_follows_the_class_and_not_the_size():
    distances = np.random.default_rng(1).random((7, 7))
    distances = rounded(distances + distances.T)
    cells = [
        {"sizes": np.random.default_rng(order).permutation(7).tolist(), "distances": distances} for order in range(8)
    ]
    cells = [cell | {"sizes": [size + 1 for size in cell["sizes"]]} for cell in cells]
    row = sizes_row("made up", cells, lambda cell: cell["distances"])
    assert row["by class"] == "1.00 (1.00 to 1.00)"
    assert row["by size"] != row["by class"]


def test_the_interval_of_a_difference_is_that_of_nadeau_and_bengio():
    reference = {fold: {"accuracy": 0.5} for fold in range(5)}
    values = [0.01, 0.02, 0.03, 0.04, 0.05]
    folds = {fold: {"accuracy": 0.5 + value} for fold, value in enumerate(values)}
    error = np.std(values, ddof=1) * np.sqrt(1 / 5 + 1 / 4)
    found = difference(folds, reference, "accuracy")
    assert found.mean == pytest.approx(0.03)
    assert found.half == pytest.approx(student.ppf(0.975, 4) * error) == pytest.approx(0.02945, abs=1e-4)
    # With as many degrees of freedom as make 0.03 / error = 2.828 the quantile: p = 0.0474 (table of t, 4 degrees).
    assert found.p == pytest.approx(0.0474, abs=1e-4)
    assert difference({0: folds[0]}, reference, "accuracy") == (pytest.approx(0.01), None, None)


def test_only_common_folds_are_compared_and_p_is_corrected():
    reference = {fold: {"accuracy": 0.5} for fold in range(5)}
    folds = {fold: {"accuracy": 0.51 + fold / 100} for fold in range(5)}
    found = {"baseline": reference, "a": folds | {7: {"accuracy": 0.9}}, "b": folds, "c": {0: folds[0]}}
    expected = "+0.030 (+0.001, +0.059), p = 0.095"  # twice 0.0474
    assert difference_column(found, ["a", "b", "c"], "accuracy") == [expected, expected, "+0.010"]


def test_the_committed_report_is_that_of_the_cells(tmp_path: Path):
    write(tmp_path)
    committed = ROOT / "studies" / "features" / "report.md"
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == committed.read_text(encoding="utf-8")
