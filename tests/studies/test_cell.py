"""A cell, from its prepared data to its two files."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cclnet.dataset.download import digest_of
from cclnet.dataset.isic import CLASSES
from cclnet.metrics.scores import evaluate
from cclnet.system.errors import CCLNetError
from cclnet.system.files import read_json
from studies import cell, data
from studies.looks import report as looks
from studies.reporting.cells import load_cells
from studies.running.check import Outcome, deviations, outcome, why_not_equal
from studies.running.locks import BusyError, locked
from studies.running.record import PREPARED, hardware
from studies.running.settings import ROOT, as_text, experiment_params
from tests.campaigns.bench import environment
from tests.campaigns.forked import Forks
from tests.studies.running.waiting import is_running, wait_until

SETTINGS = {
    "dataset": "sample",
    "sample.images": 100,
    "sample.imbalance": 3,
    "short_side": 18,
    "crop": 16,
    "epochs": 1,
    "milestones": [],
    "batch_size": 80,
    "backbone": "shufflenet_v2_x0_5",
    "threads": 1,
}


RunStage = Callable[[str, Path], None]


@pytest.fixture(scope="module")
def run_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunStage]:
    """Runs a stage in a process forked off one that has loaded its libraries."""
    with Forks(tmp_path_factory.mktemp("forks")) as forks:

        def run(stage: str, folder: Path) -> None:
            process = forks.start(folder.absolute(), environment(ROOT), stage)
            _, stderr = process.communicate()
            assert process.wait() == 0, stderr

        yield run


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, run_stage: RunStage) -> Path:
    """A drawn sample and two cells of it, as small as they can be."""
    folder = tmp_path_factory.mktemp("study")
    data.prepare_data(folder / "data", SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(cell, "run_stage", run_stage)
        for head, labels in (("none", "original"), ("weights", "shuffled")):
            changes = {"head_balance": head, "training_labels": labels, "seed": "0"}
            cell.run_cell(folder / f"cells/{head}-{labels}-0", folder / "data", SETTINGS | changes)
    return folder


def test_a_cell_leaves_two_files_and_nothing_else(study: Path):
    names = [f"{group}-0.{suffix}" for group in ("none-original", "weights-shuffled") for suffix in ("csv", "json")]
    assert sorted(path.name for path in (study / "cells").iterdir()) == names
    assert not [path for path in (study / ".cclnet").rglob("*") if path.is_file()]
    assert sorted(path.name for path in study.iterdir()) == [".cclnet", "cells", "data"]


def test_a_cell_s_predictions_give_its_metrics(study: Path):
    (one,) = load_cells(study / "cells")["none-original"]
    truth = one.predictions["label"].map(CLASSES.index).to_numpy()
    probabilities = one.predictions[list(CLASSES)].to_numpy()
    assert len(truth) == 20
    again = evaluate(truth, probabilities / probabilities.sum(axis=1, keepdims=True))
    for name in ("accuracy", "kappa", "f1", "nll", "ece"):
        assert again[name] == pytest.approx(one.metrics[name], abs=1e-4)
    assert one.confusion.sum() == 20
    assert one.class_counts.sum() == 80
    assert one.soft_labels.sum(axis=1) == pytest.approx(np.ones(len(CLASSES)))


def test_a_cell_says_what_made_it(study: Path):
    results = read_json(study / "cells" / "weights-shuffled-0.json")
    made = results["made_by"]
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert made["commit"] == (commit.stdout.strip() or None)
    expected = experiment_params(SETTINGS | {"head_balance": "weights", "training_labels": "shuffled", "seed": 0})
    assert made["params"] == expected
    assert made["data"]["files"]["images.npy"] == digest_of(study / "data" / "data" / "images.npy", "sha256")
    assert len(made["data"]["official_files"]) == 3
    assert (made["hardware"], made["python"]) == (hardware(), platform.python_version())
    assert made["wall_seconds"] > 0 and made["resumed"] is False
    assert results["ran_on"]["threads"] == 1
    assert str(study) not in json.dumps(results)  # no path of this machine


def test_a_measured_cell_is_not_measured_again(study: Path, capsys):
    before = (study / "cells" / "none-original-0.json").stat().st_mtime_ns
    cell.run_cell(study / "cells" / "none-original-0", study / "data", SETTINGS | {"seed": "0"})
    assert (study / "cells" / "none-original-0.json").stat().st_mtime_ns == before
    assert "is measured already; delete its two files to measure it again" in capsys.readouterr().out


def test_two_processes_do_not_measure_the_same_cell(study: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(study)
    with locked(Path(".cclnet/studies/cells/new-0.lock")):
        command = [sys.executable, "-m", "studies.cell", "cells/new-0", "--data", "data", *as_text(SETTINGS)]
        inherited = os.environ | {"PYTHONPATH": str(ROOT)}
        finished = subprocess.run(command, env=inherited, capture_output=True, text=True, check=False)
    assert finished.returncode == BusyError.exit_status
    assert finished.stderr == f"cell: process {os.getpid()} is at work on new-0; wait for it\n"
    assert not (study / "cells" / "new-0.json").exists()


def test_a_cell_without_data_says_how_to_prepare_them(tmp_path: Path):
    with pytest.raises(CCLNetError, match=r"prepare them with: python -m studies.data"):
        cell.run_cell(tmp_path / "cell", tmp_path / "nowhere", {})


def test_data_that_were_not_finished_are_no_data(study: Path, tmp_path: Path):
    shutil.copytree(study / "data", tmp_path / "data")
    (tmp_path / "data" / PREPARED).unlink()
    with pytest.raises(CCLNetError, match=r"holds no data"):
        cell.run_cell(tmp_path / "cell", tmp_path / "data", SETTINGS)


def test_data_of_other_params_are_refused(study: Path, tmp_path: Path):
    with pytest.raises(CCLNetError, match=r"was prepared with short_side 18, not 20, split_seed 0, not 1: name other"):
        cell.run_cell(tmp_path / "cell", study / "data", SETTINGS | {"short_side": 20, "split_seed": 1})


def test_the_report_has_a_row_for_every_group(study: Path):
    looks.write(study)
    report = (study / "report.md").read_text(encoding="utf-8")
    for row in ("the paper's | original", "weights | shuffled"):
        assert f"\n| ResNet-18 | {row} | 1 |" in report
    assert "There are no two cells to compare yet." in report
    assert (study / "matrices.png").stat().st_size > 10_000
    for name in ("report.md", "matrices.png"):
        (study / name).unlink()


def children(process: int) -> list[int]:
    """The ids of a process's children."""
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def test_a_killed_cell_leaves_no_trainer_and_is_continued_with_the_same_numbers(
    study: Path, tmp_path: Path, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
):
    settings = SETTINGS | {"epochs": 8, "seed": 1}
    command = [sys.executable, "-m", "studies.cell", "cells/a-1", "--data", str(study / "data"), *as_text(settings)]
    inherited = os.environ | {"PYTHONPATH": str(ROOT)}
    runner = subprocess.Popen(command, cwd=tmp_path, env=inherited, stderr=subprocess.DEVNULL)
    states = tmp_path / ".cclnet" / "studies" / "cells" / "a-1" / ".cclnet"
    wait_until(lambda: any(states.rglob("images-*")), "no state was written")
    trainers = children(runner.pid)
    assert len(trainers) == 1
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    wait_until(lambda: not any(map(is_running, trainers)), "the trainer is still running")
    assert not (tmp_path / "cells").exists()
    subprocess.run(command, cwd=tmp_path, env=inherited, stderr=subprocess.DEVNULL, check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cell, "run_stage", run_stage)
    cell.run_cell(Path("cells/b-1"), study / "data", settings)
    cells = load_cells(tmp_path / "cells")
    (continued,), (again,) = cells["a"], cells["b"]
    assert continued.results["made_by"]["resumed"] is True and again.results["made_by"]["resumed"] is False
    assert why_not_equal(continued.results, again.results) == ""
    assert outcome(deviations(continued, again, [])) is Outcome.EQUAL
