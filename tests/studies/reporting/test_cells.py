"""Cells as they are read from their files."""

import json
from pathlib import Path

import numpy as np
import pytest

from cclnet.system.errors import DataError
from studies.reporting.cells import load_cells, require_same_images
from tests.studies.reporting.made_up import IMAGES, TRUTH, cell_of, random_cell

TABLE = """image,label,lesion,A,B,C
b,B,l2,0.2,0.6,0.1
a,A,l1,0.5,0.3,0.2
"""


def write_cell(folder: Path, name: str) -> None:
    """The two files of a cell."""
    results = {
        "metrics": {"accuracy": 1.0},
        "soft_labels": np.eye(3).tolist(),
        "confusion": [[1, 0, 0], [0, 1, 0], [0, 0, 0]],
        "training_images": [5, 3, 2],
    }
    (folder / f"{name}.json").write_text(json.dumps(results))
    (folder / f"{name}.csv").write_text(TABLE)


def test_a_cell_is_read_in_the_order_of_its_images(tmp_path: Path):
    write_cell(tmp_path, "lesion-ccl-0")
    (cell,) = load_cells(tmp_path)["lesion-ccl"]
    assert (cell.group, cell.seed, cell.classes) == ("lesion-ccl", "0", ["A", "B", "C"])
    assert cell.predictions["image"].tolist() == ["a", "b"]
    assert cell.truth.tolist() == [0, 1]
    assert cell.probabilities[1] == pytest.approx([0.2 / 0.9, 0.6 / 0.9, 0.1 / 0.9])
    assert cell.right.all()
    assert cell.metrics == {"accuracy": 1.0}
    assert cell.class_counts.tolist() == [5, 3, 2]
    assert cell.confusion.trace() == 2
    assert (cell.soft_labels == np.eye(3)).all()


def test_cells_are_grouped_without_their_seed(tmp_path: Path):
    for name in ("lesion-ccl-1", "lesion-ccl-0", "lesion-lsr-u5-0"):
        write_cell(tmp_path, name)
    found = load_cells(tmp_path)
    assert {group: [cell.seed for cell in cells] for group, cells in found.items()} == {
        "lesion-ccl": ["0", "1"],
        "lesion-lsr-u5": ["0"],
    }


def test_the_first_resampled_accuracy_is_that_of_the_images():
    cell = random_cell(0)
    hits = sum(
        row.tolist().index(row.max()) == label for row, label in zip(cell.probabilities, TRUTH.tolist(), strict=True)
    )
    assert cell.resampled["accuracy"][0] == pytest.approx(hits / IMAGES)
    assert cell.resampled["accuracy"][1:].mean() == pytest.approx(hits / IMAGES, abs=0.01)


@pytest.mark.parametrize("column", ["image", "label", "lesion"])
def test_cells_of_other_images_are_not_compared(column: str):
    cells = [random_cell(seed) for seed in range(3)]
    require_same_images(cells)
    changed = cells[2].predictions.copy()
    changed[column] = changed[column].to_numpy()[::-1]
    other = cell_of(cells[2].probabilities, "other-2")
    other.predictions[column] = changed[column]
    with pytest.raises(DataError, match="other validation images than method-0, or other labels: other-2"):
        require_same_images([*cells[:2], other])
