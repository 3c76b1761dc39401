"""What stages write is read as it was written; everything else is refused with all that is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cclnet.experiments.written import (
    read_class_table,
    read_conditions,
    read_history,
    read_provenance,
    read_reliability,
    read_similarity,
)
from cclnet.metrics.calibration import reliability_table
from cclnet.metrics.scores import class_table
from cclnet.system.errors import DataError
from cclnet.system.files import write_csv, write_json
from tests.inference.builders import predictions
from tests.project.modules import PROJECT

HISTORY = PROJECT / "metrics" / "history.csv"
"""The committed run's, which has a head."""


def refused(read: Callable[[Path], Any], path: Path, stage: str) -> list[str]:
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path} is not what the {stage} stage wrote: run that again\n")
    assert {problem.where for problem in caught.value.problems} == {str(path)}
    return [problem.what for problem in caught.value.problems]


def test_tables_are_read_as_they_were_written(tmp_path: Path):
    labels, probabilities = predictions()
    labels[labels == 2] = 0  # a class without images has empty cells
    tables = {
        read_class_table: class_table(labels, probabilities, ["NA", "007", "é"]),
        read_reliability: reliability_table(labels, probabilities),
    }
    for read, table in tables.items():
        write_csv(tmp_path / "table.csv", table)
        found = read(tmp_path / "table.csv")
        write_csv(tmp_path / "again.csv", found)
        assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "table.csv").read_bytes()
        assert any(found.isna().to_numpy().ravel()) == (read is read_class_table)
    pd.testing.assert_frame_equal(read_history(HISTORY), pd.read_csv(HISTORY))


def test_a_history_without_a_head_has_empty_columns(tmp_path: Path):
    history = pd.read_csv(HISTORY)
    history[["ccl_loss", "class_correlation_loss", "lr_ccl", "gradient_norm_ccl"]] = np.nan
    write_csv(tmp_path / "history.csv", history)
    assert np.isnan(read_history(tmp_path / "history.csv")["ccl_loss"].to_numpy()).all()


COLUMNS = "class,images,sensitivity,specificity,precision,f1,auc"
CLASSES = f"{COLUMNS}\nMEL,3,0.5,0.5,0.5,0.5,0.5\nNV,4,0.5,0.5,,0.5,0.5\n"
BINS = "bin,confidence,accuracy,count\n4,0.25,1.0,1\n5,0.3,0.5,10\n"
NO_NUMBERS, NO_COUNTS = "has no numbers in the column sensitivity", "has no whole numbers in the column images"
NO_TABLE = ["is no CSV table"]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", NO_TABLE),
        ("\x00", [r"has the columns '\x00'"]),
        (CLASSES.replace("NV,4", "NV,4,1,2,3"), NO_TABLE),
        (CLASSES.splitlines()[0], ["has no rows"]),
        (CLASSES.replace("images", "imagse"), [f"has the columns {COLUMNS.replace('images', 'imagse')!r}"]),
        (CLASSES.replace("NV", "MEL"), ["has a class more than once"]),
        (CLASSES.replace("NV,", ","), ["has gaps in the column class"]),
        (CLASSES.replace("3,0.5", "x,y"), [NO_NUMBERS, NO_COUNTS]),
        (CLASSES.replace("3,0.5", "3.5,inf"), [NO_NUMBERS, NO_COUNTS]),
        (CLASSES.replace("3,", "-3,"), ["has a negative number of images"]),
        (CLASSES.replace(",,", ",1.5,"), ["has values outside of 0 … 1 in the column precision"]),
        (CLASSES.replace("3,", f"{10**30},"), [NO_COUNTS]),
        (CLASSES.replace("3,", "True,").replace("4,", "False,"), [NO_COUNTS]),
        (CLASSES[:-2], ["is cut off within its last line"]),
    ],
)
def test_spoilt_tables_of_classes(tmp_path: Path, text: str, faults: list[str]):
    (tmp_path / "classes.csv").write_text(text, encoding="utf-8")
    assert refused(read_class_table, tmp_path / "classes.csv", "evaluate") == faults


def test_a_table_of_classes_that_the_run_does_not_have(tmp_path: Path):
    (tmp_path / "classes.csv").write_text(CLASSES, encoding="utf-8")
    assert read_class_table(tmp_path / "classes.csv", ("MEL", "NV"))["class"].tolist() == ["MEL", "NV"]
    for classes in (["MEL", "NV", "BCC"], ["NV", "MEL"], ["MEL"]):
        faults = refused(
            lambda path, known=classes: read_class_table(path, known), tmp_path / "classes.csv", "evaluate"
        )
        assert faults == ["does not have the classes of the run"]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (BINS.replace("5,", "4,"), ["has bins that do not rise from 1 on"]),
        (BINS.replace("4,", "0,"), ["has bins that do not rise from 1 on"]),
        (BINS.replace(",1\n", ",0\n").replace("0.3", ""), ["has bins without an image", "has gaps"]),
        (BINS.replace("1.0", "1.5"), ["has values outside of 0 … 1 in the column accuracy"]),
        (BINS.replace(",10", f",{2**63}"), ["has no whole numbers in the column count"]),
    ],
)
def test_spoilt_tables_of_bins(tmp_path: Path, text: str, faults: list[str]):
    (tmp_path / "reliability.csv").write_text(text, encoding="utf-8")
    assert refused(read_reliability, tmp_path / "reliability.csv", "evaluate") == faults


def test_spoilt_histories(tmp_path: Path):
    path = tmp_path / "history.csv"
    history = pd.read_csv(HISTORY)
    write_csv(path, history.drop(index=1))
    assert refused(read_history, path, "train") == ["has epochs that do not count from 1"]
    write_csv(path, history.assign(frozen=2, softness=[np.nan, *history["softness"][1:]]))
    assert refused(read_history, path, "train") == [
        "has a column frozen that is not 0 or 1",
        "has gaps in the column softness",
    ]
    path.write_bytes(HISTORY.read_bytes()[:-40] + b"\xff" * 40)
    assert refused(read_history, path, "train") == NO_TABLE
    path.unlink()
    assert refused(read_history, path, "train") == ["cannot be read: No such file or directory"]


FILE = {"name": "a.zip", "source": "drawn", "bytes": 3, "sha256": "0"}


def test_records_are_read_as_they_were_written(tmp_path: Path):
    path, conditions = tmp_path / "a.json", {"threads": 2, "versions": {"torch": "2"}, "cuda": None}
    write_json(path, [FILE])
    assert read_provenance(path) == [FILE]
    write_json(path, conditions)
    assert read_conditions(path) == conditions


@pytest.mark.parametrize(
    "value",
    [[], {}, None, "a", [FILE | {"bytes": "3"}], [FILE | {"more": 1}], [{}], [FILE, 3], [FILE | {"bytes": True}]],
)
def test_spoilt_provenance(tmp_path: Path, value: Any):
    write_json(tmp_path / "a.json", value)
    assert refused(read_provenance, tmp_path / "a.json", "download") == [
        "is no list of files with name, source, bytes, sha256"
    ]


@pytest.mark.parametrize("value", [[], None, 3, {"threads": [2]}, {"versions": {"torch": {"a": []}}}])
def test_spoilt_conditions(tmp_path: Path, value: Any):
    write_json(tmp_path / "a.json", value)
    assert refused(read_conditions, tmp_path / "a.json", "train") == ["is no table of settings"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, json.dumps(FILE).encode("utf-16")])
def test_what_is_no_json(tmp_path: Path, content: bytes):
    (tmp_path / "a.json").write_bytes(content)
    assert refused(read_conditions, tmp_path / "a.json", "train") == ["is no JSON"]


PAIR = {"a": "x", "b": "y", "nearest": [["1", "2"]], "typical_a": ["1"], "typical_b": ["2"]}
SIMILARITY = {
    "classes": ["x", "y", "z"],
    "pairs": [PAIR, {"a": "x", "b": "z", "similarity": 0.1}],
    "similarity": [[1, 0.5, 0.1], [0.5, 1, 0], [0.1, 0, 1]],
}


def test_the_pairs_of_similar_classes_are_read_as_they_were_written(tmp_path: Path):
    write_json(tmp_path / "it.json", SIMILARITY)
    assert read_similarity(tmp_path / "it.json", ("x", "y", "z")) == SIMILARITY


def test_a_note_may_stand_for_the_pairs(tmp_path: Path):
    write_json(tmp_path / "it.json", {"pairs": [], "note": "too few images"})
    assert read_similarity(tmp_path / "it.json", ["x"])["note"] == "too few images"


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"pairs": []},
        {"pairs": [], "note": 3},
        SIMILARITY | {"pairs": [1]},
        SIMILARITY | {"pairs": [{"a": "x", "b": "y"}]},
        SIMILARITY | {"classes": ["y", "x", "z"]},
        SIMILARITY | {"similarity": [[1]] * 2},
        SIMILARITY | {"similarity": [[1, 0.5], [0.5, 1]]},
        SIMILARITY | {"similarity": "x"},
        *(
            SIMILARITY | {"pairs": [PAIR | change]}
            for change in (
                {"nearest": [["1"]]},
                {"nearest": None},
                {"nearest": 3},
                {"nearest": "12"},
                {"typical_a": None},
                {"a": 1},
                {"a": "y"},
                {"a": "another"},
            )
        ),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, value: Any):
    write_json(tmp_path / "it.json", value)
    assert refused(lambda path: read_similarity(path, ["x", "y", "z"]), tmp_path / "it.json", "evaluate") == [
        "is no table of pairs of the run's classes"
    ]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_what_is_no_json_is_one_line(tmp_path: Path, content: bytes):
    (tmp_path / "it.json").write_bytes(content)
    with pytest.raises(DataError, match=r"it.json"):
        read_similarity(tmp_path / "it.json", ["x"])
    with pytest.raises(DataError, match=r"missing.json"):
        read_similarity(tmp_path / "missing.json", ["x"])
