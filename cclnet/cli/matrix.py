"""``cclnet matrix``: show the soft labels that a model has learned."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from cclnet.cli.options import ModelFile
from cclnet.cli.terminal import Cell, coloured, say, screen, show_table

if TYPE_CHECKING:
    import pandas as pd

    from cclnet.networks.model_description import ModelDescription


def matrix(
    model_file: ModelFile,
    csv_file: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", dir_okay=False, help="Write the matrix to FILE (CSV), one row per class."
        ),
    ] = None,
    figure_file: Annotated[
        Path | None,
        typer.Option(
            "--figure", metavar="FILE", dir_okay=False, help="Write a figure of the matrix to FILE (.png or .svg)."
        ),
    ] = None,
) -> None:
    """Show the soft labels that a model has learned, that is, which classes it finds similar."""
    from cclnet.networks.model import load_model
    from cclnet.system.files import write_csv
    from cclnet.system.writing import is_standard_output, require_writable
    from cclnet.views.figures import save_figure, soft_label_figure

    if figure_file and figure_file.suffix not in (".png", ".svg"):
        raise typer.BadParameter(f"{figure_file} ends neither in .png nor in .svg", param_hint="--figure")
    require_writable([csv_file, figure_file], [model_file])
    _, description = load_model(model_file)
    if csv_file:
        write_csv(csv_file, matrix_table(description))
    if figure_file:
        save_figure(soft_label_figure(description.label_matrix, description.classes, "Soft labels"), figure_file)
    if not (is_standard_output(csv_file) or is_standard_output(figure_file)):
        show_matrix(screen(), description)


def show_matrix(console: Console, description: "ModelDescription") -> None:
    """Print the labels that trained the model, p̄ and, if they were learned, the class most similar to each class."""
    similar = similar_classes(description)
    headings = ["", *description.classes]
    rows: list[list[Cell]] = []
    for name, row in zip(description.classes, description.label_matrix, strict=True):
        rows.append([Text(name, "bold"), *(Text(f"{value:.2f}", coloured(value)) for value in row)])
    if similar:
        headings.append("looks most like")
        for cells, others in zip(rows, similar, strict=True):
            cells.append(others[0][0])
    show_table(console, headings, rows, justify="left")
    say(console, f"p̄ = {description.softness:.4f}, the mean of the diagonal; of hard labels it is 1")
    if not similar:
        source = description.params.get("soft_label_source", "head")
        origin = f"soft_label_source: {source}" if description.method == "ccl" else f"method: {description.method}"
        say(console, f"no CCL head learned these labels: the model was trained with {origin}")
    elif description.params.get("head_balance") == "none":
        say(
            console, "the head was not balanced over the classes: rare ones may come out alike, whatever they look like"
        )


def matrix_table(description: "ModelDescription") -> "pd.DataFrame":
    """The labels that trained the model: the class in the column ``label``, and its probability of each class."""
    import pandas as pd

    table = pd.DataFrame(description.label_matrix, columns=description.classes)
    table.insert(0, "label", description.classes)
    return table


def similar_classes(description: "ModelDescription") -> list[list[tuple[str, float]]]:
    """For each class the other classes by decreasing probability in its soft label; empty if none was learned."""
    if not description.has_head:
        return []
    pairs = [list(zip(description.classes, row, strict=True)) for row in description.label_matrix]
    others = [[pair for pair in row if pair[0] != name] for name, row in zip(description.classes, pairs, strict=True)]
    return [sorted(row, key=lambda pair: -pair[1]) for row in others]
