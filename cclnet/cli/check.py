"""``cclnet check``: everything that is wrong with a dataset."""

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cclnet.cli.options import JsonFile
from cclnet.cli.terminal import Screen, give
from cclnet.system.progress import progress

if TYPE_CHECKING:
    from cclnet.dataset.checks import Findings


def check(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where the three official files are.")],
    json_file: JsonFile = None,
) -> None:
    """Find everything that is wrong with a dataset: zips, tables and every image. Nothing in FOLDER is changed."""
    from cclnet.cli.check import show
    from cclnet.dataset.checks import check_dataset
    from cclnet.system.writing import require_writable

    require_writable([json_file])
    with redirect_stdout(sys.stderr), progress() as report:
        findings = check_dataset(folder, report)
    give(findings.as_dict(), lambda: show(findings, Screen()), json_file)
    raise typer.Exit(1 if findings.problems else 0)


def show(findings: "Findings", console: Console) -> None:
    """Print the problems and the summary: a table in a terminal, elsewhere a line for each problem, never cut."""
    if findings.problems and console.is_terminal:
        table = Table("where", "what", box=box.SIMPLE)
        for problem in findings.problems:
            table.add_row(*(Text(words, overflow="fold") for words in problem))
        console.print(table)
    elif findings.problems:
        for where, what in findings.problems:
            console.print(Text(f"{where}: {what}"), soft_wrap=True)
    console.print(Text(findings.summary()), soft_wrap=True)
