"""Measuring again: what must be equal, what may differ, and by how much."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cclnet.system.errors import CCLNetError
from studies.reporting.cells import Cell, load_cell
from studies.running import check as checking
from studies.running.check import FACTOR, Outcome, check, deviations, distance, outcome, why_not_equal
from studies.running.grid import only, planned_cells
from studies.running.record import hardware
from tests.studies.builders import make_cell, right_every

RAN_ON = {"processor": "portable", "threads": 1, "device": "cpu", "versions": {"torch": "2.15.0"}}
MATRIX = np.random.default_rng(0).random((7, 7))
PLANNED = only(planned_cells("table2"), {"dataset": "sample"})


def cell(folder: Path, name: str, wrong: int = 5, matrix=MATRIX, **results: Any) -> Cell:
    make_cell(folder, name, right_every(wrong), matrix, **({"ran_on": RAN_ON} | results))
    return load_cell(folder / f"{name}.json")


@pytest.fixture
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the study's committed cells: two rates, two seeds each."""
    for module in ("grid", "check"):
        monkeypatch.setattr(f"studies.running.{module}.ROOT", tmp_path)
    monkeypatch.setattr(checking, "planned_cells", lambda study: PLANNED)
    folder = tmp_path / "studies" / "table2" / "cells"
    for rate, (first, second) in {"0.0005": (5, 7), "0.05": (4, 5)}.items():
        cell(folder, f"sample-{rate}-0", first, ran_on=RAN_ON | {"threads": 2})
        cell(folder, f"sample-{rate}-1", second, MATRIX + 0.1, ran_on=RAN_ON | {"threads": 2})
    return folder


def test_equality_is_promised_for_the_same_conditions():
    before = {"ran_on": RAN_ON, "made_by": {"added_in_commit": "0"}}
    assert why_not_equal(before, {"ran_on": RAN_ON}) == ""
    other = RAN_ON | {"threads": 2, "versions": {"torch": "2.11.0"}}
    assert why_not_equal(before, {"ran_on": other}) == (
        "it ran on threads 1 and 2, versions {'torch': '2.15.0'} and {'torch': '2.11.0'}"
    )


def test_native_kernels_promise_it_on_the_same_processor_alone():
    native = RAN_ON | {"processor": "native"}
    for made, expected in (
        ({"hardware": hardware()}, ""),
        ({"hardware": "another"}, f"it ran on another, and this is {hardware()}"),
        ({}, f"it ran on a processor that is not recorded, and this is {hardware()}"),
    ):
        assert why_not_equal({"ran_on": native, "made_by": made}, {"ran_on": native}) == expected


def test_a_distance_is_the_root_mean_square_difference():
    assert distance(np.array(0.5), np.array(0.25)) == 0.25
    assert distance(np.array([0.0, 0.0]), np.array([3.0, 4.0])) == pytest.approx(np.sqrt(12.5))
    assert distance(None, None) == 0
    assert distance(np.array(1.0), None) == distance(np.zeros(2), np.zeros(3)) == float("inf")


def test_every_number_is_compared(tmp_path: Path):
    committed, again = cell(tmp_path, "a-0"), cell(tmp_path, "b-0")
    names = {deviation.name for deviation in deviations(committed, again, [])}
    assert names == {*committed.metrics, "softness by epoch", "soft_labels", "confusion", "training_images"} | {
        "predicted probabilities"
    }
    assert outcome(deviations(committed, again, [])) is Outcome.EQUAL


@pytest.mark.parametrize("path", ["metrics.accuracy", "soft_labels", "history.softness", "confusion", "csv"])
def test_one_changed_number_is_different(tmp_path: Path, path: str):
    committed, again = cell(tmp_path, "a-0"), cell(tmp_path, "b-0")
    results = json.loads((tmp_path / "b-0.json").read_text())
    match path.split("."):
        case ["csv"]:
            again.predictions.iloc[3, 4] += 1e-6
        case ["soft_labels" | "confusion" as name]:
            results[name][2][3] += 1e-6
        case ["metrics", name]:
            results["metrics"][name] += 1e-6
        case ["history", name]:
            results["history"][name][1] += 1e-6
    again = Cell(again.name, results, again.predictions)
    found = deviations(committed, again, [])
    assert outcome(found) is Outcome.DIFFERENT
    assert [deviation.verdict for deviation in found].count("different") == 1


def test_the_tolerance_is_what_seeds_differ_by(tmp_path: Path):
    peers = [cell(tmp_path, "a-0", 5), cell(tmp_path, "a-1", 7), cell(tmp_path, "b-0", 4), cell(tmp_path, "b-1", 4)]
    accuracies = [peer.metrics["accuracy"] for peer in peers]
    expected = FACTOR * np.sqrt(((accuracies[0] - accuracies[1]) ** 2 + 0) / 2)
    again = cell(tmp_path, "c-0", 6)
    (found,) = [each for each in deviations(peers[0], again, peers) if each.name == "accuracy"]
    assert found.tolerance == pytest.approx(expected)
    assert found.difference == pytest.approx(abs(again.metrics["accuracy"] - accuracies[0]))
    assert found.verdict == "within"
    (strict,) = [each for each in deviations(peers[0], again, peers[2:3]) if each.name == "accuracy"]
    assert (strict.tolerance, strict.verdict) == (0, "different")  # without two seeds of a group


def test_what_is_defined_under_some_seeds_only_may_become_undefined(tmp_path: Path):
    scores = {"accuracy": 0.5, "converged_epoch": 11}
    peers = [cell(tmp_path, "a-0", metrics=scores), cell(tmp_path, "a-1", metrics=scores | {"converged_epoch": None})]
    again = cell(tmp_path, "c-0", metrics=scores | {"converged_epoch": None})
    assert outcome(deviations(peers[0], again, peers)) is Outcome.WITHIN_TOLERANCE
    assert outcome(deviations(peers[0], again, [])) is Outcome.DIFFERENT


def again_with(wrong: int, **results: Any):
    """Stands for measuring: a cell of its own."""

    def measured_again(planned, source) -> Cell:
        folder = checking.ROOT / "again"
        return cell(folder, planned.name, wrong, **results)

    return measured_again


def test_a_check_prints_the_differences_and_says_which(committed: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (planned,) = only(PLANNED, {"lr_ccl": "0.0005", "seed": "0"})
    same = {"ran_on": RAN_ON | {"threads": 2}}
    monkeypatch.setattr(checking, "measured_again", again_with(5, **same))
    assert check([planned], None) is Outcome.EQUAL
    printed = capsys.readouterr().out
    assert "studies/table2/cells/sample-0.0005-0, committed with 0000000000" in printed
    assert "Equal numbers are promised" in printed
    assert "| accuracy | 0.8 | 0.8 | 0 | 0 | equal |" in printed
    monkeypatch.setattr(checking, "measured_again", again_with(6, **same))
    assert check([planned], None) is Outcome.DIFFERENT
    assert "| accuracy | 0.8 | 0.828571 | 0.029 | 0 | different |" in capsys.readouterr().out


def test_elsewhere_a_check_has_the_tolerance_of_the_study_s_seeds(committed: Path, monkeypatch, capsys):
    (planned,) = only(PLANNED, {"lr_ccl": "0.0005", "seed": "0"})
    monkeypatch.setattr(checking, "measured_again", again_with(6))
    assert check([planned], None) is Outcome.WITHIN_TOLERANCE
    printed = capsys.readouterr().out
    assert "Equal numbers are not promised: it ran on threads 2 and 1" in printed
    assert "| soft_labels | 49 numbers | 49 numbers | 0 | 0.4 | equal |" in printed
    monkeypatch.setattr(checking, "measured_again", again_with(2))
    assert check([planned], None) is Outcome.DIFFERENT


def test_one_of_the_measured_cells_is_checked(committed: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    measured = {path.stem for path in committed.glob("*.json")}
    chosen = set()

    def choose(planned, source) -> Cell:
        chosen.add(planned.name)
        return load_cell(committed / f"{planned.name}.json")

    monkeypatch.setattr(checking, "measured_again", choose)
    for _ in range(60):
        assert check(PLANNED, None) is Outcome.EQUAL
    assert chosen == measured


def test_there_must_be_a_measured_cell(committed: Path):
    with pytest.raises(CCLNetError, match=r"^none of these cells has been measured"):
        check(only(PLANNED, {"lr_ccl": "0.001"}), None)
