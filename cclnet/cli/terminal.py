"""What all commands print with: tables that are coloured in a terminal, and never cut where there is none."""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cclnet.cli.options import Device
from cclnet.system.progress import progress
from cclnet.system.writing import is_standard_output

if TYPE_CHECKING:
    from rich.style import Style

    from cclnet.inference.pictures import Picture
    from cclnet.inference.prediction import Predictions
    from cclnet.networks.model import CCLNet
    from cclnet.networks.model_description import ModelDescription

UNBOUNDED = 10_000
"""Columns: more than any table needs."""
UNDEFINED = "–"

Cell = str | Text


class Screen(Console):
    """Standard output; where nobody reads it any more, ``errors_in_one_line`` ends the program and not rich."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def screen() -> Console:
    """Standard output; where it is no terminal, lines may be as long as they come."""
    console = Screen()
    return console if console.is_terminal else Screen(width=UNBOUNDED)


def show_table(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    justify: Literal["left", "right"] = "right",
) -> None:
    """Print a table: with a line below its headings in a terminal, and nothing but its words elsewhere.

    Args:
        console: where to.
        headings: of its columns.
        rows: cells, whose text is no markup; as many as there are headings.
        justify: the side to which the columns after the first are set.
    """
    if console.is_terminal:
        table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    else:
        table = Table(box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(Text(heading), overflow="fold", justify=justify if place else "left")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    console.print(table)


def say(console: Console, words: str) -> None:
    """Print a line that is no markup; a terminal wraps it between words, and nothing cuts it."""
    console.print(Text(words), soft_wrap=not console.is_terminal)


def number(value: float | None) -> str:
    """Four decimals, a dash for what is undefined."""
    return UNDEFINED if value is None else f"{value:.4f}"


def signed(value: float | None) -> str:
    """Four decimals with the sign, a dash for what is undefined."""
    return UNDEFINED if value is None else f"{value:+.4f}"


def probability(p: float | None) -> str:
    """Four decimals, never 0, a dash for what was not tested."""
    return "<0.0001" if p is not None and p < 0.0001 else number(p)


def coloured(value: float) -> "Style":
    """The colours of a cell in [0, 1], those of the figures."""
    import matplotlib
    from rich.color import Color
    from rich.style import Style

    from cclnet.views.figures import is_dark

    red, green, blue, _ = matplotlib.colormaps["viridis"](value)
    background = Color.from_rgb(255 * red, 255 * green, 255 * blue)
    return Style(color="#ffffff" if is_dark(red, green, blue) else "#000000", bgcolor=background)


def with_progress(
    model: "CCLNet", description: "ModelDescription", pictures: "Sequence[Picture]", device: Device
) -> "Predictions":
    """Predict pictures and report the progress on standard error."""
    from cclnet.inference.prediction import predict_pictures
    from cclnet.system.machine import select_device

    place = select_device(device)
    with redirect_stdout(sys.stderr), progress() as report:
        return predict_pictures(model.to(place), description, pictures, place, report)


def give(findings: dict[str, Any], show: Callable[[], None], json_file: Path | None) -> None:
    """Write the findings to the file, if there is one, and show them; as JSON alone to the standard output."""
    from cclnet.system.files import write_json

    if is_standard_output(json_file):
        typer.echo(json.dumps(findings, indent=2, sort_keys=True))
        return
    if json_file:
        write_json(json_file, findings)  # first: whoever reads the screen may have gone
    show()
