"""What the commands show of a model: tables, with colours in a terminal, and never cut where there is none."""

from collections import Counter
from pathlib import Path
from typing import Literal

import matplotlib
import pandas as pd
from rich import box
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from cclnet.checkpoint import ModelDescription
from cclnet.evaluation import Evaluation
from cclnet.figures import is_dark
from cclnet.prediction import Predictions
from cclnet.statistics import RESAMPLES

SHOWN_IMAGES = 20
SHOWN_CLASSES = 3
UNBOUNDED = 10_000
"""Columns: so many as no table needs."""


def screen() -> Console:
    """Standard output; where it is no terminal, lines may be as long as they come."""
    console = Console()
    return console if console.is_terminal else Console(width=UNBOUNDED)


def show_predictions(
    console: Console, predictions: Predictions, description: ModelDescription, file: Path | None
) -> None:
    """Print the most probable classes of the first images, which classes look like the predicted one, and a summary.

    Args:
        console: where to.
        predictions: of one image or more.
        description: of the model.
        file: where all predictions stand, None for nowhere.
    """
    classes, similar = predictions.classes, similar_classes(description)
    shown = min(SHOWN_CLASSES, len(classes))
    table = empty_table(console, "image", "predicted", *["then"] * (shown - 1), *["looks like it"] * bool(similar))
    for image, row in zip(predictions.images[:SHOWN_IMAGES], predictions.probabilities, strict=False):
        order = (-row).argsort(kind="stable")[:shown].tolist()
        likeness = [", ".join(f"{name} {value:.2f}" for name, value in similar[order[0]][:2])] if similar else []
        add_row(table, image, *(f"{classes[label]} {row[label]:.3f}" for label in order), *likeness)
    console.print(table)
    if similar:
        say(console, "looks like it: to what the learned soft label of the predicted class gives most besides itself")
    images, predicted = len(predictions.images), predictions.probabilities.argmax(axis=1)
    if images > SHOWN_IMAGES:
        all_of_them = f"{file} has them all" if file else "-o FILE writes them all"
        say(console, f"{images - SHOWN_IMAGES:,} more are not shown; {all_of_them}")
    counts = Counter(classes[label] for label in predicted).most_common()
    say(console, f"{images:,} predicted: {', '.join(f'{name} {count:,}' for name, count in counts)}")


def show_evaluation(console: Console, evaluation: Evaluation) -> None:
    """Print the figures with their intervals, the table of the classes, and what they were got from."""
    table = empty_table(console, "figure", "value", "95 % interval", *["note"] * bool(evaluation.notes))
    for name, value in evaluation.figures.items():
        interval = evaluation.intervals.get(name)
        between = f"{interval.low:.4f} … {interval.high:.4f}" if interval else "–"
        note = [evaluation.notes.get(name, "")] if evaluation.notes else []
        add_row(table, name.replace("_", " "), number(value), between, *note)
    console.print(table)
    classes = empty_table(console, *evaluation.classes.columns, justify="right")
    for row in evaluation.class_rows():
        name, images, *figures = row.values()
        add_row(classes, name, f"{images:,}", *map(number, figures))
    console.print(classes)
    if evaluation.lesions is None:
        whole, drawn = "", "the images, too narrow if lesions have several (--lesions)"
    else:
        whole, drawn = f" of {evaluation.lesions:,} lesions", "the lesions"
    say(console, f"{evaluation.images:,} images{whole}; intervals from {RESAMPLES:,} bootstrap resamples of {drawn}")


def show_matrix(console: Console, description: ModelDescription) -> None:
    """Print the labels that trained the model, p̄ and, where they were learned, what looks most like each class."""
    similar = similar_classes(description)
    table = empty_table(console, "", *description.classes, *["looks most like"] * bool(similar))
    for place, (name, row) in enumerate(zip(description.classes, description.label_matrix, strict=True)):
        cells = [Text(f"{value:.2f}", coloured(value)) for value in row]
        add_row(table, Text(name, "bold"), *cells, *([similar[place][0][0]] if similar else []))
    console.print(table)
    say(console, f"p̄ = {description.softness:.4f}, the mean of the diagonal; of hard labels it is 1")
    if not similar:
        say(console, f"these labels were not learned: the model was trained with method: {description.method}")
    elif description.params["head_balance"] == "none":
        say(
            console, "the head was not balanced over the classes: rare ones may come out alike, whatever they look like"
        )


def matrix_table(description: ModelDescription) -> pd.DataFrame:
    """The labels that trained the model: label, the class, and what its row gives to each class."""
    table = pd.DataFrame(description.label_matrix, columns=description.classes)
    table.insert(0, "label", description.classes)
    return table


def similar_classes(description: ModelDescription) -> list[list[tuple[str, float]]]:
    """For each class the others as its learned soft label has them, the greatest first; empty if none was learned."""
    if description.method != "ccl":
        return []
    pairs = [list(zip(description.classes, row, strict=True)) for row in description.label_matrix]
    others = [[pair for pair in row if pair[0] != name] for name, row in zip(description.classes, pairs, strict=True)]
    return [sorted(row, key=lambda pair: -pair[1]) for row in others]


def coloured(value: float) -> Style:
    """The colours of a cell in [0, 1], those of the figures."""
    red, green, blue, _ = matplotlib.colormaps["viridis"](value)
    background = Color.from_rgb(255 * red, 255 * green, 255 * blue)
    return Style(color="#ffffff" if is_dark(red, green, blue) else "#000000", bgcolor=background)


def number(value: float | None) -> str:
    """Four decimals, or a dash for what is null."""
    return "–" if value is None else f"{value:.4f}"


def empty_table(console: Console, *headings: str, justify: Literal["left", "right"] = "left") -> Table:
    """A table with a line below its headings in a terminal, and nothing but words elsewhere.

    Args:
        console: where it is to be printed.
        headings: of its columns.
        justify: where the text of its columns stands, but for the first one.
    """
    table = Table(box=box.SIMPLE if console.is_terminal else None, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(Text(heading), overflow="fold", justify=justify if place else "left")
    return table


def add_row(table: Table, *cells: str | Text) -> None:
    """Add cells whose text is no markup."""
    table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))


def say(console: Console, line: str) -> None:
    """Print a line that is no markup, and is not cut."""
    console.print(Text(line), soft_wrap=True)
