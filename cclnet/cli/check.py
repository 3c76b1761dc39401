"""``cclnet check``: find all problems of a dataset."""

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cclnet.cli.options import JsonFile
from cclnet.cli.terminal import give, say, screen, show_table
from cclnet.system.names import shown
from cclnet.system.progress import progress

if TYPE_CHECKING:
    from cclnet.dataset.checks import Findings


def check(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Folder of the three official files, or of your own images.")
    ],
    json_file: JsonFile = None,
) -> None:
    """Find all problems of a dataset: of zips, tables and every image. Nothing in FOLDER is changed.

    Notes describe findings that may be intended, such as copies. The exit status is 1 if there are problems, and 2 if
    FOLDER cannot be examined.
    """
    from cclnet.dataset.checks import check_dataset
    from cclnet.system.writing import require_writable

    require_writable([json_file])
    with redirect_stdout(sys.stderr), progress() as report:
        findings = check_dataset(folder, report)
    give(findings.as_dict(), lambda: show_findings(screen(), findings), json_file)
    raise typer.Exit(1 if findings.problems else 0)


def show_findings(console: Console, findings: "Findings") -> None:
    """Print the problems, the notes and the summary: as tables in a terminal, otherwise as one line each."""
    for heading, prefix, found in (("what", "", findings.problems), ("note", "note: ", findings.notes)):
        rows = [(shown(where), shown(what)) for where, what in found]
        if rows and console.is_terminal:
            show_table(console, ("where", heading), rows, justify="left")
        else:
            for where, what in rows:
                say(console, f"{prefix}{where}: {what}")
    say(console, findings.summary())
