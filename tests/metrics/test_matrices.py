import json
from pathlib import Path

import numpy as np
import pytest

from cclnet.metrics.matrices import (
    read_confusion,
    read_soft_label_table,
    read_soft_labels,
    write_confusion,
    write_soft_labels,
)
from cclnet.metrics.scores import confusion_table
from cclnet.system.errors import DataError

CLASSES = ["NA", "1", "dog, old"]
MATRIX = np.array([[0.5, 0.25, 0.25], [0.1, 0.7, 0.2], [0.0, 1 / 3, 2 / 3]])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "matrix.json"


def test_soft_labels_come_back_to_the_last_bit(path: Path):
    write_soft_labels(path, MATRIX, CLASSES)
    classes, soft_labels = read_soft_labels(path)
    assert classes == CLASSES
    np.testing.assert_array_equal(soft_labels, MATRIX)


def test_a_cell_is_a_row_that_names_the_class_and_what_its_label_gives_to_another(path: Path):
    write_soft_labels(path, MATRIX, CLASSES)
    cells = json.loads(path.read_text(encoding="utf-8"))
    assert len(cells) == 9
    assert cells[5] == {"true_class": "1", "soft_class": "dog, old", "value": 0.2}


def test_a_confusion_matrix_has_the_true_class_as_its_row(path: Path):
    write_confusion(path, confusion_table(np.array([0, 0, 0, 1]), np.array([0, 2, 2, 1]), CLASSES))
    classes, counts = read_confusion(path)
    assert classes == CLASSES
    assert counts.tolist() == [[1, 0, 2], [0, 1, 0], [0, 0, 0]]
    assert json.loads(path.read_text(encoding="utf-8"))[-1]["share"] is None


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "3",
        "[3]",
        '[{"value": 1}]',
        '[{"true_class": "a", "soft_class": "a", "value": "much"}]',
        '[{"true_class": "a", "soft_class": "a", "value": NaN}]',
        '[{"true_class": "a", "soft_class": "b", "value": 1}]',
        '[{"true_class": "a", "soft_class": "a", "value": 1}, {"true_class": "b", "soft_class": "b", "value": 1}]',
    ],
)
def test_what_is_no_matrix_is_refused_in_one_line(path: Path, text: str):
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"^matrix\.json is not what the evaluate stage writes .* dvc repro$"):
        read_soft_labels(path)


def votes(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_votes_become_soft_labels_in_the_order_that_is_wanted(tmp_path: Path):
    file = votes(tmp_path / "votes.csv", "label,b,a,c\nc,1,1,2\na,3,9,0\nb,1,0,0\n")
    expected = [[0.75, 0.25, 0], [0, 1, 0], [0.25, 0.25, 0.5]]
    np.testing.assert_allclose(read_soft_label_table(file, ["a", "b", "c"]), expected)
    np.testing.assert_allclose(read_soft_label_table(file), np.array(expected)[np.ix_([1, 0, 2], [1, 0, 2])])


def test_class_names_are_taken_as_they_are(tmp_path: Path):
    file = votes(tmp_path / "votes.csv", "label,NA,007\nNA,1,0\n007,0,1\n")
    np.testing.assert_array_equal(read_soft_label_table(file, ["007", "NA"]), np.eye(2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a CSV table"),
        ("a,b\n1,0\n0,1\n", "the first column must be label"),
        ("label,a\na,1\n", "a column for each of two classes or more is needed"),
        ("label,a,b\nx,a,1,0\ny,b,0,1\n", "2 rows have not one value for each of the 3 columns"),
        ("label,a,b\na,1e308,1e308\nb,0,1\n", "the row of a must hold numbers from 0"),
        (
            "label,a,c\na,1,0\nc,0,1\n",
            "no column of class b; no row of class b; a column of no class: c; a row of no class: c",
        ),
        ("label,a,b\na,1,0\nb,0,1\nb,1,1\n", "several rows of b"),
        ("label,a,b\na,1,-1\nb,x,1\n", "the row of a, b must hold numbers from 0, not all of them 0"),
        ("label,a,b\na,0,0\nb,inf,1\n", "the row of a, b must hold"),
    ],
)
def test_a_table_of_soft_labels_with_faults_is_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(DataError, match=message):
        read_soft_label_table(votes(tmp_path / "votes.csv", text), ["a", "b"])


def test_a_missing_table_of_soft_labels_is_one_line(tmp_path: Path):
    with pytest.raises(DataError, match=r"votes.csv is missing: a CSV table is needed"):
        read_soft_label_table(tmp_path / "votes.csv")


def test_a_thousand_classes_that_do_not_fit_are_counted_and_their_names_steer_nothing(tmp_path: Path):
    names = ["\x1b[2J\n", *(f"c{number}" for number in range(999))]
    header = ",".join(f'"{name}"' for name in ["label", *names])
    with pytest.raises(DataError) as error:
        read_soft_label_table(votes(tmp_path / "votes.csv", f"{header}\n"), ["a", "b"])
    assert str(error.value).split("votes.csv: ")[1] == (
        "no column of class a, b; no row of class a, b; "
        r"a column of no class: '\x1b[2J', c0, c1, c2, c3 and 995 more"
    )


def test_names_of_one_look_are_the_same_class(tmp_path: Path):
    file = votes(tmp_path / "votes.csv", "label,N\xe9vus ,b\nNe\u0301vus,3,1\nb,0,1\n")
    np.testing.assert_array_equal(read_soft_label_table(file, ["N\xe9vus", "b"]), [[0.75, 0.25], [0, 1]])
