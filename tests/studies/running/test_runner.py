"""Which cells are run, which are copied, and what a failure does."""

from pathlib import Path

import numpy as np
import pytest

from cclnet.system.errors import CCLNetError
from studies.running.grid import only, planned_cells
from studies.running.runner import Job, cell_job, data_job, run_all, take_measured
from studies.running.settings import params_with, parsed_settings
from tests.studies.builders import make_cell, right_every

BUSY = """
from cclnet.system.errors import errors_in_one_line
from studies.running.locks import BusyError
with errors_in_one_line("busy"):
    raise BusyError("another process is at work")
"""


def test_a_cell_is_run_with_all_of_its_settings():
    (cell,) = only(planned_cells("table2"), {"dataset": "sample", "lr_ccl": "0.05", "seed": "1"})
    job = cell_job(cell.path, cell.data, cell.settings)
    path, option, data, *settings = job.arguments
    assert (job.module, path, option) == ("studies.cell", "studies/table2/cells/sample-0.05-1", "--data")
    assert data == str(cell.data)
    assert params_with(parsed_settings(settings)) == params_with(cell.settings)


def test_official_files_come_from_the_source_and_the_sample_from_itself():
    drawn, official = (only(planned_cells("table2"), {"dataset": name})[0] for name in ("sample", "isic2018_64"))
    for cell, source, expected in (
        (drawn, "/somewhere", "drawn"),
        (official, None, "official"),
        (official, "/somewhere", "/somewhere"),
    ):
        job = data_job(Path("folder"), cell, source)
        params = params_with(parsed_settings(list(job.arguments[1:])))
        assert (job.module, job.arguments[0]) == ("studies.data", "folder")
        block = params["datasets"][cell.settings["dataset"]]
        assert (block["source"], block["processor"]) == (expected, "portable")


def test_what_another_study_has_measured_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``looks`` and ``table1`` share the paper's head on the real images, and nothing else."""
    table1, looks = planned_cells("table1"), planned_cells("looks")
    ours, theirs = tmp_path / "studies/table1/cells", tmp_path / "studies/looks/cells"
    for seed in range(3):
        settings = {"dataset": "isic2018_64", "seed": str(seed), "epochs": "16" if seed < 2 else "15"}
        make_cell(theirs, f"none-original-{seed}", right_every(4), np.eye(7), settings=settings)
    ours.mkdir(parents=True)
    kept = {f"isic2018_64-image-resnet18-ccl-0.{suffix}": "measured here" for suffix in ("json", "csv")}
    for name, text in kept.items():
        (ours / name).write_text(text)
    for module in ("grid", "runner", "record"):
        monkeypatch.setattr(f"studies.running.{module}.ROOT", tmp_path)
    monkeypatch.setattr("studies.running.runner.study_names", lambda: ["looks"])
    monkeypatch.setattr("studies.running.runner.planned_cells", lambda study: looks)
    take_measured(table1)
    found = {path.name: path.read_text() for path in ours.iterdir()}
    copied = {
        f"isic2018_64-image-resnet18-ccl-1.{suffix}": (theirs / f"none-original-1.{suffix}").read_text()
        for suffix in ("json", "csv")
    }
    assert found == kept | copied  # not the third one, which was measured under other params than its grid has


def test_jobs_run_at_the_same_time_and_after_a_failure_no_other_starts(tmp_path: Path, capfd):
    settings = ["dataset=sample", "no_such_key=1"]
    failing = [Job(name, "studies.data", [str(tmp_path / name), *settings]) for name in "ab"]
    never = Job("c", "tests.studies.running.sleeper", [str(tmp_path / "c")])
    with pytest.raises(CCLNetError) as caught:
        run_all("looks", [*failing, never], 2)
    assert sorted(str(caught.value).splitlines()) == [f"{name} ended with exit status 1" for name in "ab"]
    assert not (tmp_path / "c.0").exists()
    printed = capfd.readouterr().err
    assert printed.count("no_such_key: params.yaml has no such key") == 2
    assert "looks: 2 of 3 done" in printed or "looks: 1 of 3 done" in printed


def test_a_cell_that_another_process_is_at_work_on_is_left_to_it(tmp_path: Path, monkeypatch, capfd):
    (tmp_path / "busy.py").write_text(BUSY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run_all("looks", [Job("none-original-0", "busy", []), Job("other", "this", [])], 1)
    printed = capfd.readouterr()
    assert "looks: another process is at work on none-original-0" in printed.err
    assert "Beautiful is better than ugly" in printed.out  # the next one was run
