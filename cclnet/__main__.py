"""The command line: ``python -m cclnet COMMAND``.

A command imports what it needs when it is called, so that help and the light commands do without torch.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cclnet import __version__
from cclnet.errors import errors_in_one_line
from cclnet.progress import progress

app = typer.Typer(
    name="cclnet",
    help="CCL-Net: soft labels learned from interclass visual correlations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

STANDARD_OUTPUT = Path("-")


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cclnet {__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: python -m cclnet check data/raw --json problems.json")
def check(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where the three official files are.")],
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the findings to FILE as JSON; - prints nothing but them."),
    ] = None,
) -> None:
    """Find everything that is wrong with a dataset: zips, tables and every image. Nothing in FOLDER is changed."""
    from cclnet.checks import check_dataset, show
    from cclnet.files import write_json

    with redirect_stdout(sys.stderr), progress() as report:
        findings = check_dataset(folder, report)
    if json_file == STANDARD_OUTPUT:
        typer.echo(json.dumps(findings.as_dict(), indent=2, sort_keys=True))
    else:
        show(findings, Console())
        if json_file:
            write_json(json_file, findings.as_dict())
    raise typer.Exit(1 if findings.problems else 0)


@app.command(epilog="Example: python -m cclnet export models/model.safetensors --onnx model.onnx --with-preprocessing")
def export(
    model_file: Annotated[Path, typer.Argument(metavar="MODEL", help="The model, as training wrote it.")],
    onnx_file: Annotated[Path, typer.Option("--onnx", metavar="FILE", help="Where the ONNX file goes.")],
    with_preprocessing: Annotated[
        bool, typer.Option("--with-preprocessing", help="Take bytes, n × crop × crop × 3, RGB; normalise inside.")
    ] = False,
) -> None:
    """Write a model as ONNX, for any number of images, and check it against torch first.

    The input `images` is n × 3 × crop × crop float32, scaled to [0, 1] and normalised; the outputs are `logits` and
    `probabilities`, n × classes. The file's metadata say what the classes are, the crop, what normalises and the rest.

    Not in the file: each image is first resized to the metadata's `short_side` (bilinear, antialiased, aspect kept) and
    cut to its central `crop`.
    """
    from cclnet.checkpoint import load_model
    from cclnet.export import to_onnx
    from cclnet.files import write_bytes

    model, description = load_model(model_file)
    exported = to_onnx(model, description, with_preprocessing)
    write_bytes(onnx_file, exported.content)
    typer.echo(f"{onnx_file}: {description.backbone}, differs from torch by {exported.difference:.1e} at most")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name, by default those of the process, and end with its exit status."""
    with errors_in_one_line("cclnet"):
        app(arguments, prog_name="cclnet")


if __name__ == "__main__":
    main()
