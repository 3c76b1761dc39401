"""The command line of the studies, and the layout of their folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from studies import __main__ as program
from studies.running.check import Outcome
from studies.running.grid import planned_cells, read_grid, study_names
from studies.running.settings import ROOT

BESIDE_THE_STUDIES = 7
"""Entries at most: a folder for each question, and little else. The study of features has a folder, but no grid."""


def typed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of ``python -m studies`` with the arguments."""
    monkeypatch.setattr(sys, "argv", ["studies", *arguments])
    return program.main()


def test_without_a_name_the_studies_are_listed(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("COLUMNS", "250")
    assert typed(monkeypatch) == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for study in study_names():
        grid, cells = read_grid(study), planned_cells(study)
        done = sum(cell.done for cell in cells)
        assert f"{study} " in printed and f"{done} of {len(cells)}" in printed
        assert grid.question.split()[0] in printed and grid.cost.split()[0] in printed


def test_the_report_alone_runs_nothing(monkeypatch: pytest.MonkeyPatch, capsys):
    written = []
    monkeypatch.setattr(program, "report", lambda study, folder: written.append((study, folder)))
    monkeypatch.setattr(program, "run_missing", None)
    assert typed(monkeypatch, "imbalance", "--report") == 0
    assert written == [("imbalance", ROOT / "studies" / "imbalance")]


def test_a_study_measures_what_is_wanted_and_writes_its_report(monkeypatch: pytest.MonkeyPatch):
    done = []
    monkeypatch.setattr(program, "run_missing", lambda *arguments: done.append(arguments))
    monkeypatch.setattr(program, "report", lambda study, folder: done.append(study))
    arguments = ("table2", "--only", "dataset=sample", "seed=0,1", "--source", "there", "--jobs", "2")
    assert typed(monkeypatch, *arguments) == 0
    (study, cells, source, jobs), written = done
    assert (study, source, jobs, written) == ("table2", "there", 2, "table2")
    assert {(cell.place["dataset"], cell.place["seed"]) for cell in cells} == {("sample", "0"), ("sample", "1")}
    assert len(cells) == 12


def test_the_status_of_a_check_is_its_outcome(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def check(cells, source) -> Outcome:
        asked.append([cell.name for cell in cells])
        return Outcome.WITHIN_TOLERANCE

    monkeypatch.setattr(program, "check", check)
    assert typed(monkeypatch, "table2", "--check", "--only", "dataset=sample", "lr_ccl=0.05", "seed=0") == 3
    assert asked == [["sample-0.05-0"]]


@pytest.mark.parametrize("study", study_names())
def test_a_tiny_run_has_every_value_once(study: str, monkeypatch: pytest.MonkeyPatch):
    """With other methods, other matrices: nothing is shared but the size."""
    ran = []
    monkeypatch.setattr(program, "run_all", lambda study, jobs, at_once: ran.extend(jobs))
    monkeypatch.setattr(program, "prepare", lambda *arguments: None)
    monkeypatch.setattr(program, "report", lambda study, folder: None)
    assert typed(monkeypatch, study, "--tiny") == 0
    names = {job.title for job in ran}
    values = {(key, name) for cell in planned_cells(study) for key, name in cell.place.items() if key != "seed"}
    shown = {(key, value) for cell in planned_cells(study) if cell.name in names for key, value in cell.place.items()}
    assert values <= shown
    for job in ran:
        assert {"epochs=1", "crop=16", "dataset=sample"} <= set(job.arguments)


def test_errors_are_one_line():
    for arguments, expected in (
        (["look"], "studies: there is no study 'look', only controls, "),
        (["looks", "--only", "seed"], "studies: seed: write settings as key=value"),
    ):
        command = [sys.executable, "-m", "studies", *arguments]
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert finished.returncode == 1 and finished.stderr.startswith(expected) and finished.stderr.count("\n") == 1


# the layout


def entries(folder: Path) -> list[str]:
    left_out = {"__init__.py", "__pycache__", "data"}  # data: prepared, ignored by git
    return [path.name for path in folder.iterdir() if path.name not in left_out]


def test_a_study_has_a_folder_and_little_else_is_beside_them():
    studies = ROOT / "studies"
    assert len(set(entries(studies)) - set(study_names())) <= BESIDE_THE_STUDIES
    for folder in (studies / "running", studies / "reporting", *(studies / study for study in study_names())):
        assert len(entries(folder)) <= 10


def test_dvc_has_one_file_and_knows_nothing_of_the_studies():
    """Every ``dvc.yaml`` in the repository is read by ``dvc status``, ``dvc dag`` and ``dvc repro -P``."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in listed if name.endswith(("dvc.yaml", ".dvc"))] == ["dvc.yaml"]
    assert "studies" not in (ROOT / "dvc.yaml").read_text(encoding="utf-8")
