"""What cells keep of their making, and that a grid must fit it."""

import os
import platform
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cclnet.system.errors import CCLNetError
from cclnet.system.files import read_json
from studies.running import record
from studies.running.grid import PlannedCell, only, planned_cells, study_names
from studies.running.record import check_measured, code, contradiction, hardware
from studies.running.settings import RENAMED, ROOT
from tests.studies.builders import make_cell, right_every

PLANNED = planned_cells("table2")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_code_is_a_commit_and_what_differs_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record, "ROOT", tmp_path)
    assert code() == {"commit": None, "changed_files": None}  # no repository
    for name in ("cclnet/ccl.py", "studies/looks/report.py", "studies/looks/cells/a-0.json", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "studies/looks/cells/b-0.json").write_text("2")
    (tmp_path / "README.md").write_text("2")
    assert code() == {"commit": commit, "changed_files": []}  # results and documentation are no code
    (tmp_path / "cclnet/ccl.py").write_text("2")
    (tmp_path / "cclnet/new.py").write_text("2")
    assert code() == {"commit": commit, "changed_files": ["cclnet/ccl.py", "cclnet/new.py"]}


def test_the_hardware_is_a_line_with_the_processor_and_its_cores():
    line = hardware()
    assert line.endswith(f", {os.cpu_count()} cores") and "\n" not in line
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        family = re.search(r"^cpu family\s*: (\d+)$", text, re.MULTILINE)
        model = re.search(r"^model\s*: (\d+)$", text, re.MULTILINE)
        assert family and model and f"(family {family[1]}, model {model[1]})" in line


@pytest.mark.parametrize("study", study_names())
def test_every_committed_cell_was_measured_under_the_params_of_its_grid(study: str):
    check_measured(planned_cells(study))


@pytest.mark.parametrize("study", study_names())
def test_every_committed_cell_says_what_made_it(study: str):
    for cell in planned_cells(study):
        if cell.done:
            made = read_json(ROOT / f"{cell.path}.json")["made_by"]
            assert re.fullmatch(r"[0-9a-f]{40}", made.get("commit") or made["added_in_commit"])
            assert "params" in made or made["recorded"].startswith("afterwards, from git log")


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Gives a planned cell that was measured with results of its own."""
    for module in ("grid", "record"):
        monkeypatch.setattr(f"studies.running.{module}.ROOT", tmp_path)
    (cell,) = only(PLANNED, {"dataset": "sample", "lr_ccl": "0.01", "seed": "2"})

    def measure(**results: Any) -> PlannedCell:
        make_cell(tmp_path / cell.path.parent, cell.name, right_every(4), np.eye(7), **results)
        return replace(cell)

    return measure


def test_recorded_settings_that_the_grid_has_too_are_no_contradiction(measured):
    assert contradiction(measured(settings={"dataset": "sample", "lr_ccl": "1e-2", "epochs": "16"})) == ""


def test_other_recorded_values_are(measured):
    cell = measured(settings={"dataset": "sample", "epochs": "30", "lr_ccl": "0.02"})
    assert contradiction(cell) == "epochs 30, not 16, lr_ccl 0.02, not 0.01"
    with pytest.raises(CCLNetError, match=r"no longer fits these cells.*\n  sample-0.01-2: epochs 30, not 16"):
        check_measured([cell])


def test_all_params_count_where_they_are_recorded(measured):
    params = measured().params
    assert contradiction(measured(made_by={"params": params})) == ""
    assert (
        contradiction(measured(made_by={"params": params | {"optimizer.momentum": 0.8}}))
        == "optimizer.momentum 0.8, not 0.9"
    )


def test_a_recorded_param_that_no_longer_exists_is_named(measured):
    assert contradiction(measured(settings={"learning_rate": "1"})).startswith("learning_rate: params.yaml has no such")


def test_a_renamed_param_keeps_its_value(measured, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(RENAMED, "rate_of_the_head", "lr_ccl")
    assert contradiction(measured(settings={"rate_of_the_head": "0.01"})) == ""
    assert contradiction(measured(settings={"rate_of_the_head": "0.1"})) == "lr_ccl 0.1, not 0.01"
