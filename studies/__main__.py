"""Run a study: its data, the cells that are still missing, its report.

    python -m studies looks           # hours on a processor; interrupted at any time, it goes on where it was
    python -m studies looks --jobs 2  # two cells at a time, for cells of one thread each
    python -m studies looks --tiny    # every step of it in small, on a drawn sample, in a temporary folder
    python -m studies table1 --only dataset=sample seed=0,1   # a part of its grid

A cell that another study has measured already, under equal params on equal data, is taken from there.

`dvc repro studies/looks/dvc.yaml` runs data and cells under DVC, which repeats those whose code or data have changed;
the report is written here.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib import import_module
from pathlib import Path

from rich.console import Console

from cclnet.system.errors import CCLNetError, errors_in_one_line
from cclnet.system.files import write_bytes
from studies import cell
from studies.grid import Command, commands, only, study_names
from studies.projects import ROOT, params_with, parsed_settings

TINY = {
    "dataset": "sample",
    "sample.images": "100",
    "sample.imbalance": "3",
    "short_side": "18",
    "crop": "16",
    "epochs": "1",
    "milestones": "[]",
    "batch_size": "40",
    "threads": "1",
    "precision": "float32",  # bfloat16 reads memory that was never written at 16 pixels (torch 2.15 on a processor)
}

console = Console(stderr=True)


def run_study(study: str, wanted: dict[str, str], source: str | None, jobs: int) -> None:
    """Run what is missing of a study, then its report.

    Args:
        study: its folder's name.
        wanted: the part of its grid to run, see ``grid.only``.
        source: where the official files come from, None for where ``params.yaml`` says.
        jobs: cells that run at the same time.

    Raises:
        CCLNetError: there is no such study, or a command failed.
    """
    planned = only(commands(study), wanted)
    take_what_is_measured(planned)
    missing = [command for command in planned if not command.done]
    cells = [command for command in missing if command.is_cell]
    used = {command.data for command in cells}
    data = [command for command in missing if not command.is_cell and command.data in used]
    run_all(study, [from_source(command, source) for command in data], jobs=1)
    run_all(study, cells, jobs)
    report(study, ROOT / "studies" / study)


def from_source(command: Command, source: str | None) -> Command:
    """The command that prepares data, with the official files from elsewhere if there is a source."""
    if source is None or "dataset=sample" in command.arguments:
        return command
    return Command(command.module, [*command.arguments, f"source={source}"], command.outputs)


def take_what_is_measured(planned: list[Command]) -> None:
    """Copy the results of the cells that are missing here and were measured by another study."""
    measured = {}
    for command in (command for study in study_names() for command in commands(study)):
        if command.is_cell and command.done:
            measured.setdefault(experiment(command), command)
    for command in planned:
        if command.is_cell and not command.done and (other := measured.get(experiment(command))):
            for theirs, ours in zip(other.outputs, command.outputs, strict=True):
                write_bytes(ROOT / ours, (ROOT / theirs).read_bytes())
            console.print(f"{command.outputs[0].stem} is {other.outputs[0]}", highlight=False, style="dim")


def experiment(command: Command) -> tuple[Path, str]:
    """What a cell measures: its data and all params."""
    arguments = cell.parser().parse_intermixed_args(command.arguments)
    return arguments.data, json.dumps(params_with(parsed_settings(arguments.settings)), sort_keys=True)


def run_tiny(study: str, jobs: int) -> None:
    """Run a study and its report on a small drawn sample, in a temporary folder.

    Of every matrix the first seed, and of that the first cell and those that differ from it in one key: every value is
    run once.
    """
    small = [f"{key}={value}" for key, value in TINY.items()]
    first = [command for command in commands(study) if command.item.get("seed", "0") == "0"]
    cells = [command for command in first if command.is_cell and command.departures <= 1]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run_all(study, [Command("studies.data", [str(folder / "data"), *small], [])], jobs=1)
        run_all(study, [shrunk(command, folder, small) for command in cells], jobs)
        report(study, folder)


def shrunk(command: Command, folder: Path, small: list[str]) -> Command:
    """A cell's command with the data and the results in the folder and some settings changed."""
    arguments = cell.parser().parse_intermixed_args(command.arguments)
    name = str(folder / "cells" / arguments.name.name)
    return Command(command.module, [name, "--data", str(folder / "data"), *arguments.settings, *small], [])


def run_all(study: str, planned: list[Command], jobs: int) -> None:
    """Run commands, several at the same time; the first that fails ends the study once those under way are through.

    Raises:
        CCLNetError: a command failed.
    """
    started = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(run, command, quiet=jobs > 1) for command in planned]
        try:
            for done, finished in enumerate(as_completed(running), start=1):
                finished.result()
                minutes = (time.monotonic() - started) / 60 / done * (len(planned) - done)
                console.print(f"{study}: {done} of {len(planned)} done, about {minutes:.0f} minutes left")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def run(command: Command, quiet: bool) -> None:
    """Run a command in a process of its own; quiet, what it says is shown only if it fails.

    Raises:
        CCLNetError: it failed.
    """
    console.print(f"python -m {command.module} {' '.join(command.arguments)}", highlight=False, style="dim")
    captured = subprocess.PIPE if quiet else None
    line = [sys.executable, "-m", command.module, *command.arguments]
    finished = subprocess.run(line, cwd=ROOT, stdout=captured, stderr=captured, text=True, check=False)  # noqa: S603
    if finished.returncode:
        console.print(finished.stderr or "", highlight=False)
        raise CCLNetError(f"{' '.join(command.arguments[:1])} ended with exit status {finished.returncode}")


def report(study: str, folder: Path) -> None:
    """Write the study's report from the cells in ``folder/cells``."""
    import_module(f"studies.{study}.report").write(folder)
    print((folder / "report.md").read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m studies", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", help=", ".join(study_names()))
    parser.add_argument("--only", nargs="+", default=[], metavar="key=value,…", help="a part of the grid")
    parser.add_argument("--tiny", action="store_true", help="all steps in small, in a temporary folder")
    parser.add_argument("--source", help="base URL or folder of the official files, if not the one in params.yaml")
    parser.add_argument("--jobs", type=int, default=1, help="cells at the same time (1); more show less of each")
    arguments = parser.parse_args()
    if arguments.tiny:
        run_tiny(arguments.study, arguments.jobs)
    else:
        run_study(arguments.study, parsed_settings(arguments.only), arguments.source, arguments.jobs)


if __name__ == "__main__":
    with errors_in_one_line("studies"):
        sys.exit(main())
