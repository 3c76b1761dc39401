"""Run the missing cells of a study, several at the same time, each in a separate process."""

import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from cclnet.system.errors import CCLNetError
from cclnet.system.files import write_bytes
from cclnet.system.interruption import interruptible
from studies.running.grid import PlannedCell, planned_cells, study_names
from studies.running.locks import BusyError
from studies.running.processes import INTERVAL, end_all, start_module
from studies.running.record import PREPARED, contradiction
from studies.running.settings import ROOT, as_text

console = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Job:
    """A command to run: ``python -m module arguments``, and its title on the terminal."""

    title: str
    module: str
    arguments: Sequence[str]


def run_missing(study: str, cells: Sequence[PlannedCell], source: str | None, jobs: int) -> None:
    """Copy the cells that another study has run, then prepare the data of the others and run them.

    Args:
        study: the title of the progress messages.
        cells: the planned cells.
        source: the source of the official files; None for the one in ``params.yaml``.
        jobs: number of cells at the same time.

    Raises:
        CCLNetError: a command failed.
    """
    take_measured(cells)
    missing = [cell for cell in cells if not cell.done]
    prepare(study, missing, source)
    run_all(study, [cell_job(cell.path, cell.data, cell.settings) for cell in missing], jobs)


def prepare(study: str, cells: Sequence[PlannedCell], source: str | None, root: Path = ROOT) -> None:
    """Prepare the missing data of the cells; the folders are in ``root``."""
    needed = {root / cell.data: cell for cell in cells if not (root / cell.data / PREPARED).is_file()}
    run_all(study, [data_job(folder, cell, source) for folder, cell in needed.items()], 1)


def data_job(folder: Path, cell: PlannedCell, source: str | None) -> Job:
    """The job that prepares a cell's data, with the same bytes on any machine."""
    settings = cell.settings | {"processor": "portable"}
    if source is not None and cell.settings["dataset"] != "sample":
        settings["source"] = source
    return Job(folder.name, "studies.data", [str(folder), *as_text(settings)])


def cell_job(path: Path, data: Path, settings: Mapping[str, Any]) -> Job:
    """The job that runs a cell."""
    return Job(path.name, "studies.cell", [str(path), "--data", str(data), *as_text(settings)])


def run_all(study: str, jobs: Sequence[Job], at_once: int) -> None:
    """Run jobs, some at the same time. After a failure no further job is started, and running jobs are completed.

    A cell that another process is running is skipped.

    Raises:
        CCLNetError: a job failed.
        InterruptionError: SIGINT or SIGTERM was received; the running jobs have been ended and resume when run again.
    """
    run = _Run(study, list(jobs), at_once)
    with interruptible() as end_if_asked_to:
        try:
            while run.goes_on:
                run.start_next()
                end_if_asked_to()
                time.sleep(INTERVAL)
                run.collect()
        finally:
            run.end()
    run.conclude()


class _Run:
    """The waiting, running, failed and skipped jobs."""

    def __init__(self, study: str, jobs: list[Job], at_once: int) -> None:
        self.study, self.waiting, self.at_once = study, jobs, at_once
        self.running: list[_Running] = []
        self.failed: list[str] = []
        self.left: list[str] = []
        self._planned, self._started = len(jobs), time.monotonic()

    @property
    def goes_on(self) -> bool:
        return bool(self.running or (self.waiting and not self.failed))

    def start_next(self) -> None:
        while self.waiting and not self.failed and len(self.running) < self.at_once:
            self.running.append(_started(self.waiting.pop(0), quiet=self.at_once > 1))

    def collect(self) -> None:
        """Process the jobs that have ended."""
        ended = [each for each in self.running if each.process.poll() is not None]
        for each in ended:
            self.running.remove(each)
            if each.process.returncode == BusyError.exit_status:
                self.left.append(each.job.title)
            elif each.process.returncode:
                each.show_log()
                self.failed.append(f"{each.job.title} ended with exit status {each.process.returncode}")
            each.close()
        if ended:
            self._report_progress()

    def _report_progress(self) -> None:
        done = self._planned - len(self.waiting) - len(self.running)
        minutes = (time.monotonic() - self._started) / 60 / done * (self._planned - done)
        console.print(f"{self.study}: {done} of {self._planned} done, about {minutes:.0f} minutes left")

    def end(self) -> None:
        """End the jobs that are running."""
        end_all([each.process for each in self.running])
        for each in self.running:
            each.close()

    def conclude(self) -> None:
        """Report which jobs were skipped.

        Raises:
            CCLNetError: some jobs failed.
        """
        if self.left:
            console.print(f"{self.study}: another process is at work on {', '.join(self.left)}")
        if self.failed:
            raise CCLNetError("\n".join(self.failed))


@dataclass(frozen=True)
class _Running:
    """A job's process, and the file with its output if it is quiet."""

    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes] | None

    def show_log(self) -> None:
        """Print the output of a quiet job."""
        if self.log:
            self.log.seek(0)
            console.print(self.log.read().decode(errors="replace"), markup=False)

    def close(self) -> None:
        """Close the log."""
        if self.log:
            self.log.close()


def _started(job: Job, quiet: bool) -> _Running:
    console.print(job.title, style="dim")
    log = tempfile.TemporaryFile() if quiet else None  # noqa: SIM115 - open as long as the process runs
    return _Running(job, start_module(job.module, job.arguments, ROOT, log), log)


def take_measured(cells: Sequence[PlannedCell]) -> None:
    """Copy the missing cells that another study has run with equal params, and therefore on equal data."""
    missing = [cell for cell in cells if not cell.done]
    if not missing:
        return
    measured = {
        _experiment(other): other
        for study in study_names()
        for other in planned_cells(study)
        if other.done and not contradiction(other)
    }
    for cell in missing:
        if other := measured.get(_experiment(cell)):
            for suffix in ("csv", "json"):
                write_bytes(ROOT / f"{cell.path}.{suffix}", (ROOT / f"{other.path}.{suffix}").read_bytes())
            console.print(f"{cell.name} is {other.path}", style="dim")


def _experiment(cell: PlannedCell) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((name, str(value)) for name, value in cell.params.items()))
