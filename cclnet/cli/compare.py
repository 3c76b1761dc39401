"""``cclnet compare``: compare two experiments on the same validation images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cclnet.cli.options import JsonFile
from cclnet.cli.terminal import UNDEFINED, give, number, probability, say, screen, show_table, signed

if TYPE_CHECKING:
    from cclnet.experiments.comparison import Change, ClassChange, Comparison


def compare(
    a: Annotated[
        str,
        typer.Argument(metavar="A", help="Branch, tag, commit, experiment, workspace, or a prediction file (….csv)."),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The second one, in the same form.")],
    labels: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The split that prediction files are scored with; revisions contain theirs."),
    ] = Path("data/split.csv"),
    html_file: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with tables, curves and matrices to FILE."),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Test whether two experiments differ by more than chance on the same validation images. Differences are B − A."""
    from cclnet.experiments.comparison import compare_experiments, load_experiment
    from cclnet.system.writing import is_standard_output, require_writable

    require_writable([html_file, json_file], [Path(a), Path(b), labels])
    runs = load_experiment(a, labels), load_experiment(b, labels)
    comparison = compare_experiments(*runs)
    if html_file:
        from cclnet.experiments.records import load_record
        from cclnet.system.files import write_bytes
        from cclnet.views.comparison_page import comparison_page

        write_bytes(html_file, comparison_page(comparison, runs, (load_record(a), load_record(b))).encode())

    def show() -> None:
        if not is_standard_output(html_file):
            show_comparison(screen(), comparison)

    give(comparison.as_dict(), show, json_file)


def show_comparison(console: Console, comparison: "Comparison") -> None:
    """Print a summary of the data, both tables, the overall tests and the conclusion."""
    from cclnet.metrics.names import title

    a, b = comparison.a, comparison.b
    say(console, f"A {a}, B {b}: {comparison.images:,} validation images of {comparison.lesions:,} lesions")
    metrics = [(title(change.name), *_values(change), *_test_of(change)) for change in comparison.metrics]
    show_table(console, ("metric", "A", "B", "B − A", "95 % interval", "p", "Holm p"), metrics)
    classes = [(change.name, f"{change.images:,}", *_values(change)) for change in comparison.sensitivity]
    show_table(console, ("sensitivity", "images", "A", "B", "B − A"), classes)
    only_a, only_b, p = comparison.mcnemar
    exact = f"exact McNemar p {probability(p)} (by image, not by lesion)"
    say(console, f"only one correct: {a} {only_a:,}, {b} {only_b:,}; {exact}")
    if test := comparison.soft_labels:
        mantel = f"Mantel p {probability(test.p_two_sided)}"
        say(console, f"soft labels of both: rank correlation {signed(test.correlation)}, {mantel}")
    say(console, comparison.conclusion())


def _values(change: "Change | ClassChange") -> tuple[str, str, str]:
    """The values of a and b, and their difference."""
    return number(change.a), number(change.b), signed(change.difference)


def _test_of(change: "Change") -> tuple[str, str, str]:
    """The interval, and p before and after Holm; dashes if not tested."""
    if change.low is None:
        return UNDEFINED, UNDEFINED, UNDEFINED
    return f"{signed(change.low)}, {signed(change.high)}", probability(change.p), probability(change.p_holm)
