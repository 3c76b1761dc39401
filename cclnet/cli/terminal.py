"""Printing for all commands: tables are coloured in a terminal, and never truncated elsewhere."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cclnet.cli.options import Device, Runtime
from cclnet.system.names import shown
from cclnet.system.progress import Report, progress
from cclnet.system.writing import is_standard_output

if TYPE_CHECKING:
    from rich.style import Style

    from cclnet.inference.pictures import Picture
    from cclnet.inference.prediction import Predictions
    from cclnet.networks.model import CCLNet
    from cclnet.networks.model_description import ModelDescription

UNBOUNDED = 10_000
"""A width in columns that is larger than any table."""
UNDEFINED = "–"

Cell = str | Text


class Screen(Console):
    """Standard output; if its reader has closed it, ``errors_in_one_line`` ends the program instead of rich."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def screen() -> Console:
    """The console for standard output; without a terminal, the length of lines is not limited."""
    console = Screen()
    return console if console.is_terminal else Screen(width=UNBOUNDED)


def show_table(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    justify: Literal["left", "right"] = "right",
) -> None:
    """Print a table: with a line below its headings in a terminal, otherwise as plain text.

    Args:
        console: the console to print to.
        headings: the headings of the columns.
        rows: the cells, one per heading; markup in them is not interpreted.
        justify: the alignment of all columns except the first.
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
    """Print a line without interpreting markup; a terminal wraps it between words, and it is never truncated."""
    console.print(Text(words), soft_wrap=not console.is_terminal)


def number(value: float | None) -> str:
    """Format with four decimals; a dash if undefined."""
    return UNDEFINED if value is None else f"{value:.4f}"


def signed(value: float | None) -> str:
    """Format with a sign and four decimals; a dash if undefined."""
    return UNDEFINED if value is None else f"{value:+.4f}"


def probability(p: float | None) -> str:
    """Format a p-value with four decimals, never as 0; a dash if not tested."""
    return "<0.0001" if p is not None and p < 0.0001 else number(p)


def coloured(value: float) -> "Style":
    """The style of a cell with a value in [0, 1], with the colours of the figures."""
    import matplotlib
    from rich.color import Color
    from rich.style import Style

    from cclnet.views.figures import is_dark

    red, green, blue, _ = matplotlib.colormaps["viridis"](value)
    background = Color.from_rgb(255 * red, 255 * green, 255 * blue)
    return Style(color="#ffffff" if is_dark(red, green, blue) else "#000000", bgcolor=background)


@contextmanager
def report_on_standard_error() -> Iterator[Report]:
    """Report progress there, so that standard output holds nothing but results."""
    with redirect_stdout(sys.stderr), progress() as report:
        yield report


def with_progress(
    model: "CCLNet",
    description: "ModelDescription",
    pictures: "Sequence[Picture]",
    device: Device,
    batch_size: int | None = None,
    runtime: Runtime = Runtime.TORCH,
) -> "Predictions":
    """Predict pictures; progress and notes go to standard error."""
    from cclnet.inference.prediction import predict_pictures
    from cclnet.system.machine import select_device

    on_cpu = runtime is Runtime.ONNXRUNTIME and device is Device.AUTO
    place = select_device(Device.CPU if on_cpu else device)
    with report_on_standard_error() as report:
        predictions = predict_pictures(model.to(place), description, pictures, place, report, batch_size, runtime.value)
    for note in predictions.notes:
        typer.echo(f"note: {shown(note)}", err=True)
    return predictions


def give(findings: dict[str, Any], show: Callable[[], None], json_file: Path | None) -> None:
    """Write the findings to the file, if given, and show them; with standard output as the file, print only JSON."""
    from cclnet.system.files import write_json

    if is_standard_output(json_file):
        typer.echo(json.dumps(findings, indent=2, sort_keys=True))
        return
    if json_file:
        write_json(json_file, findings)  # first, because the reader of standard output may have closed it
    show()
