"""``cclnet check``: everything that is wrong with a dataset."""

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cclnet.cli.options import JsonFile
from cclnet.cli.terminal import give, say, screen, show_table
from cclnet.system.progress import progress

if TYPE_CHECKING:
    from cclnet.dataset.checks import Findings


def check(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where the three official files are.")],
    json_file: JsonFile = None,
) -> None:
    """Find everything that is wrong with a dataset: zips, tables and every image. Nothing in FOLDER is changed."""
    from cclnet.dataset.checks import check_dataset

    with redirect_stdout(sys.stderr), progress() as report:
        findings = check_dataset(folder, report)
    give(findings.as_dict(), lambda: show_findings(screen(), findings), json_file)
    raise typer.Exit(1 if findings.problems else 0)


def show_findings(console: Console, findings: "Findings") -> None:
    """Print the problems and the summary: a table in a terminal, elsewhere a line for each problem."""
    if findings.problems and console.is_terminal:
        show_table(console, ("where", "what"), findings.problems, justify="left")
    else:
        for where, what in findings.problems:
            say(console, f"{where}: {what}")
    say(console, findings.summary())
