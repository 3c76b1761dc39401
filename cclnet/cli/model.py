"""``cclnet info``, ``matrix`` and ``export``: what a model file contains, its soft labels, and the model as ONNX."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from cclnet.cli.options import JsonFile, ModelFile
from cclnet.cli.terminal import UNDEFINED, Cell, coloured, give, say, screen, show_table
from cclnet.system.names import shown

if TYPE_CHECKING:
    import pandas as pd

    from cclnet.networks.model_description import ModelDescription


def info(model_file: ModelFile, json_file: JsonFile = None) -> None:
    """Show what a model file says about its model: classes, sizes, normalisation, params and origin.

    The whole file is checked. `cclnet matrix` shows the soft labels, which are also in the JSON.
    """
    from cclnet.networks.model import rebuild_model
    from cclnet.networks.model_file import model_errors, read_model_file
    from cclnet.system.writing import require_writable

    require_writable([json_file], [model_file])
    with model_errors(model_file):
        contents = read_model_file(model_file)
        model = rebuild_model(contents)
        size = model_file.stat().st_size
    findings = {
        "file": str(model_file),
        "bytes": size,
        "sha256": contents.digest,
        "parameters": sum(parameter.numel() for parameter in model.classifying_parameters()),
        "head_parameters": sum(parameter.numel() for parameter in model.head.parameters()) if model.head else 0,
        **asdict(contents.description),
    }
    give(findings, lambda: show_info(screen(), findings), json_file)


def show_info(console: Console, findings: dict[str, Any]) -> None:
    """Print a row for each value, except the matrix; groups give rows such as ``params.head.margin``."""
    counts = {name: f"{findings[name]:,}" for name in ("bytes", "parameters", "head_parameters")}
    rows = [(shown(name), _written(value)) for name, value in _rows(findings | counts) if name != "label_matrix"]
    show_table(console, ("key", "value"), rows, justify="left")


def _rows(group: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in group.items():
        if isinstance(value, dict) and value:
            yield from _rows(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _written(value: Any) -> str:
    match value:
        case None:
            return UNDEFINED
        case bool():
            return str(value).lower()
        case list():
            return ", ".join(_written(item) for item in value)
        case _:
            return shown(str(value))


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


def export(
    model_file: ModelFile,
    onnx_file: Annotated[Path, typer.Option("--onnx", metavar="FILE", help="The ONNX file to write.")],
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing", help="The model takes bytes, n × crop × crop × 3, RGB, and normalises them."
        ),
    ] = False,
) -> None:
    """Write a model as ONNX, for any number of images, after comparing its outputs with torch's.

    The input `images` is n × 3 × crop × crop float32, scaled to [0, 1] and normalised; the outputs are `logits` and
    `probabilities`, n × classes. The file's metadata contain the classes, the crop, the normalisation and all
    other attributes of the model.

    Not included: before that, each image has to be resized to the metadata's `short_side` (bilinear, antialiased,
    preserving the aspect ratio) and cropped to its central `crop`.
    """
    from cclnet.inference.onnx import to_onnx
    from cclnet.networks.model import load_model
    from cclnet.system.files import write_bytes
    from cclnet.system.writing import is_standard_output, require_writable

    require_writable([onnx_file], [model_file])
    model, description = load_model(model_file)
    exported = to_onnx(model, description, with_preprocessing)
    write_bytes(onnx_file, exported.content)
    line = f"{onnx_file}: {description.backbone}, differs from torch by {exported.difference:.1e} at most"
    typer.echo(line, err=is_standard_output(onnx_file))
