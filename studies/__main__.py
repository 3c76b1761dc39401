"""Run a study: its data, the cells that are still missing, its report.

    python -m studies looks           # hours on a processor; interrupted at any time, it goes on where it was
    python -m studies looks --tiny    # every step of it in small, on a drawn sample, in a temporary folder

`dvc repro studies/looks/dvc.yaml` runs data and cells under DVC, which repeats those whose code or data have changed;
the report is written here.
"""

import argparse
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from rich.console import Console

from cclnet.errors import errors_in_one_line
from studies import cell, data
from studies.grid import Command, commands, study_names
from studies.projects import ROOT, parsed_settings

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
}


def run_study(study: str, source: str | None) -> None:
    """Run what is missing of a study, then its report.

    Args:
        study: its folder's name.
        source: where the official files come from, None for where ``params.yaml`` says.

    Raises:
        CCLNetError: there is no such study, or a command failed.
    """
    console = Console(stderr=True)
    missing = [command for command in commands(study) if not command.done]
    started = time.monotonic()
    for done, command in enumerate(missing):
        minutes = (time.monotonic() - started) / 60
        left = f", about {minutes / done * (len(missing) - done):.0f} minutes left" if done else ""
        console.print(f"{study}: {done + 1} of {len(missing)}{left}: {' '.join(command.arguments)}", highlight=False)
        run(command, source)
    report(study, ROOT / "studies" / study)


def run_tiny(study: str) -> None:
    """Run the first seed of every cell and the report on a small drawn sample, in a temporary folder."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data.prepare_data(folder / "data", TINY)
        cells = [command for command in commands(study) if command.module == "studies.cell"]
        first = [command for command in cells if "seed=0" in command.arguments]
        for command in first:
            arguments = cell.parser().parse_intermixed_args(command.arguments)
            settings = parsed_settings(arguments.settings) | TINY
            cell.run_cell(folder / "cells" / arguments.name.name, folder / "data", settings)
        report(study, folder)


def run(command: Command, source: str | None) -> None:
    """Prepare data or run a cell."""
    if command.module == "studies.data":
        arguments = data.parser().parse_args(command.arguments)
        settings = parsed_settings(arguments.settings)
        data.prepare_data(arguments.folder, settings | {"source": source} if source else settings)
    else:
        arguments = cell.parser().parse_intermixed_args(command.arguments)
        cell.run_cell(arguments.name, arguments.data, parsed_settings(arguments.settings))


def report(study: str, folder: Path) -> None:
    """Write the study's report from the cells in ``folder/cells``."""
    import_module(f"studies.{study}.report").write(folder)
    print((folder / "report.md").read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m studies", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", help=", ".join(study_names()))
    parser.add_argument("--tiny", action="store_true", help="all steps in small, in a temporary folder")
    parser.add_argument("--source", help="base URL or folder of the official files, if not the one in params.yaml")
    arguments = parser.parse_args()
    if arguments.tiny:
        run_tiny(arguments.study)
    else:
        run_study(arguments.study, arguments.source)


if __name__ == "__main__":
    with errors_in_one_line("studies"):
        sys.exit(main())
