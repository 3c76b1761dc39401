"""Studies: grids of experiments with a report.

    python -m studies                 # list the studies, their questions and the number of finished cells
    python -m studies looks           # run the missing cells and write the report; resumes if interrupted
    python -m studies looks --report  # write only the report, from the existing cells
    python -m studies looks --check   # run a random cell again and compare all numbers with the committed ones
    python -m studies looks --jobs 2  # run two cells at a time
    python -m studies looks --tiny    # run every step on a small generated sample, in a temporary folder
    python -m studies table1 --only dataset=sample seed=0,1   # run a part of its grid
    python -m studies features --help # experiments without a training of the pipeline

A cell that another study has run with equal params on equal data is copied. The exit status of --check: 0, all numbers
are equal; 3, equality is not guaranteed here, and all numbers are within the tolerance; 4, some are not.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cclnet.system.errors import errors_in_one_line
from studies.features.command import QUESTION as FEATURES_QUESTION
from studies.features.command import main as run_features
from studies.features.running import progress as features_progress
from studies.running.check import check
from studies.running.grid import only, planned_cells, read_grid, study_names
from studies.running.record import check_measured
from studies.running.runner import cell_job, prepare, run_all, run_missing
from studies.running.settings import ROOT, parsed_settings

TINY = {
    "dataset": "sample",
    "sample.images": 100,
    "sample.imbalance": 3,
    "short_side": 18,
    "crop": 16,
    "epochs": 1,
    "batch_size": 40,
    "threads": 1,
    "weights": None,  # a file of weights may be missing
    # at 16 pixels, bfloat16 reads uninitialised memory (torch 2.15 on a CPU)
    "computation.precision": "float32",
}


def list_studies() -> None:
    """Print every study with its question, the number of finished cells and the cost."""
    table = Table("study", "question", "cells", "cost", show_lines=True)
    for study in study_names():
        grid, cells = read_grid(study), planned_cells(study)
        table.add_row(study, grid.question, f"{sum(cell.done for cell in cells)} of {len(cells)}", grid.cost)
    done, planned = features_progress()
    table.add_row("features", FEATURES_QUESTION, f"{done} of {planned}", "2 hours on one thread")
    Console().print(table)


def run_tiny(study: str, jobs: int) -> None:
    """Run a study and its report on a small generated sample, in a temporary folder.

    For the first seed of every matrix, it runs the first cell and those that differ from it in one key, so every value
    is covered.
    """
    planned = [cell for cell in planned_cells(study) if cell.place["seed"] == "0" and cell.departures <= 1]
    cells = [replace(cell, settings=cell.settings | TINY) for cell in planned]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(study, cells, None, folder)
        run_all(
            study, [cell_job(folder / "cells" / cell.name, folder / cell.data, cell.settings) for cell in cells], jobs
        )
        report(study, folder)


def report(study: str, folder: Path) -> None:
    """Write the study's report from the cells in ``folder/cells`` and print it."""
    import_module(f"studies.{study}.report").write(folder)
    print((folder / "report.md").read_text(encoding="utf-8"))


def main() -> int:
    if sys.argv[1:2] == ["features"]:
        return run_features(sys.argv[2:])
    parser = argparse.ArgumentParser(
        prog="python -m studies", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", nargs="?", help=f"{', '.join(study_names())}; none: list them")
    parser.add_argument("--only", nargs="+", default=[], metavar="key=value,…", help="a part of the grid")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--report", action="store_true", help="write the report from the cells that are there")
    what.add_argument("--check", action="store_true", help="measure a random cell again and compare")
    what.add_argument("--tiny", action="store_true", help="all steps on a small sample, in a temporary folder")
    parser.add_argument("--source", help="base URL or folder of the official files, if not the one in params.yaml")
    parser.add_argument("--jobs", type=int, default=1, help="cells at the same time (1); of more, only failures print")
    arguments = parser.parse_args()
    if arguments.study is None:
        list_studies()
        return 0
    if arguments.tiny:
        run_tiny(arguments.study, arguments.jobs)
        return 0
    cells = planned_cells(arguments.study)
    check_measured(cells)
    wanted = only(cells, parsed_settings(arguments.only))
    if arguments.check:
        return check(wanted, arguments.source)
    if not arguments.report:
        run_missing(arguments.study, wanted, arguments.source, arguments.jobs)
    report(arguments.study, ROOT / "studies" / arguments.study)
    return 0


if __name__ == "__main__":
    with errors_in_one_line("studies"):
        sys.exit(main())
