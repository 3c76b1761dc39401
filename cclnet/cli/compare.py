"""``cclnet compare``: two experiments on the same validation images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from cclnet.cli.options import JsonFile
from cclnet.cli.terminal import Screen, give, say_wrapped

if TYPE_CHECKING:
    from cclnet.experiments.comparison import Change, ClassChange, Comparison


def compare(
    a: Annotated[
        str,
        typer.Argument(metavar="A", help="Branch, tag, commit, experiment, workspace, or a prediction file (….csv)."),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare with it, likewise.")],
    labels: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The split that prediction files are scored with; a revision has its own."),
    ] = Path("data/split.csv"),
    json_file: JsonFile = None,
) -> None:
    """Say whether two experiments differ on the same validation images, or only by chance. Differences are B − A."""
    from cclnet.cli.compare import show
    from cclnet.experiments.comparison import compare_experiments, load_experiment
    from cclnet.system.writing import require_writable

    require_writable([json_file], [Path(a), Path(b), labels])
    comparison = compare_experiments(load_experiment(a, labels), load_experiment(b, labels))
    give(comparison.as_dict(), lambda: show(comparison, Screen()), json_file)


def show(comparison: "Comparison", console: Console) -> None:
    """Print what was compared, both tables, the tests of the whole and the conclusion."""
    a, b = comparison.a, comparison.b
    say_wrapped(console, f"A {a}, B {b}: {comparison.images:,} validation images of {comparison.lesions:,} lesions")
    metrics = [(change.name, *figures(change), *test_of(change)) for change in comparison.metrics]
    show_table(console, ("metric", "A", "B", "B − A", "95 % interval", "p", "Holm p"), metrics)
    classes = [(change.name, f"{change.images:,}", *figures(change)) for change in comparison.sensitivity]
    show_table(console, ("sensitivity", "images", "A", "B", "B − A"), classes)
    only_a, only_b, p = comparison.mcnemar
    exact = f"exact McNemar p {probability(p)} (by image, not by lesion)"
    say_wrapped(console, f"right alone: {a} {only_a:,}, {b} {only_b:,}; {exact}")
    if test := comparison.soft_labels:
        mantel = f"Mantel p {probability(test.p_two_sided)}"
        say_wrapped(console, f"soft labels of both: rank correlation {signed(test.correlation)}, {mantel}")
    say_wrapped(console, comparison.conclusion())


def show_table(console: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in a terminal, elsewhere a line for each row with its columns one below the other."""
    if console.is_terminal:
        table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)  # fits into 80 columns
        for position, name in enumerate(header):
            table.add_column(name, justify="right" if position else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        console.print(table, "")
    else:
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        for row in [header, *rows]:
            cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            say_wrapped(console, "  ".join([row[0].ljust(widths[0]), *cells]))


def figures(change: "Change | ClassChange") -> tuple[str, str, str]:
    """That of a, that of b and their difference."""
    return decimal(change.a), decimal(change.b), signed(change.difference)


def test_of(change: "Change") -> tuple[str, str, str]:
    """The interval, p alone and p after Holm; dashes of what was not tested."""
    interval = "–" if change.low is None else f"{signed(change.low)}, {signed(change.high)}"
    return interval, probability(change.p), probability(change.p_holm)


def decimal(value: float | None) -> str:
    """Four decimals, a dash of what is undefined."""
    return "–" if value is None else f"{value:.4f}"


def signed(value: float | None) -> str:
    """Four decimals with the sign, a dash of what is undefined."""
    return "–" if value is None else f"{value:+.4f}"


def probability(p: float | None) -> str:
    """Four decimals, never 0, a dash of what was not tested."""
    return "<0.0001" if p is not None and p < 0.0001 else decimal(p)
