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
from cclnet.system.names import shown
from cclnet.system.progress import progress

if TYPE_CHECKING:
    from cclnet.dataset.checks import Findings


def check(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Where the three official files are, or images of your own.")
    ],
    json_file: JsonFile = None,
) -> None:
    """Find everything that is wrong with a dataset: zips, tables and every image. Nothing in FOLDER is changed.

    Notes are about what may be meant so, such as copies: the exit status is 1 for problems alone.
    """
    from cclnet.cli.check import show
    from cclnet.dataset.checks import check_dataset
    from cclnet.system.writing import require_writable

    require_writable([json_file])
    with redirect_stdout(sys.stderr), progress() as report:
        findings = check_dataset(folder, report)
    give(findings.as_dict(), lambda: show(findings, Screen()), json_file)
    raise typer.Exit(1 if findings.problems else 0)


def show(findings: "Findings", console: Console) -> None:
    """Print the problems, the notes and the summary: tables in a terminal, elsewhere a line for each, never cut."""
    for heading, found in (("what", findings.problems), ("note", findings.notes)):
        if found and console.is_terminal:
            table = Table("where", heading, box=box.SIMPLE)
            for lines in found:
                table.add_row(*(Text(shown(words), overflow="fold") for words in lines))
            console.print(table)
        elif found:
            for where, what in found:
                prefix = "note: " if heading == "note" else ""
                console.print(Text(f"{prefix}{shown(where)}: {shown(what)}"), soft_wrap=True)
    console.print(Text(findings.summary()), soft_wrap=True)
