"""The command line: ``cclnet COMMAND``, or ``python -m cclnet COMMAND``.

A command imports what it needs when it is called, so that help and the light commands do without torch.
"""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cclnet import __version__
from cclnet.errors import errors_in_one_line
from cclnet.progress import progress

if TYPE_CHECKING:
    from cclnet.checkpoint import ModelDescription
    from cclnet.model import CCLNet
    from cclnet.pictures import Picture
    from cclnet.prediction import Predictions

app = typer.Typer(
    name="cclnet",
    help="CCL-Net: soft labels learned from interclass visual correlations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

STANDARD_OUTPUT = Path("-")

JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write the findings to FILE as JSON; - prints nothing but them."),
]


class Device(StrEnum):
    """Where a network computes."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="What training wrote: models/model.safetensors.")]
DeviceOption = Annotated[Device, typer.Option(help="auto: the GPU if there is one.")]


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


@app.command(epilog="Example: cclnet check data/raw --json problems.json")
def check(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where the three official files are.")],
    json_file: JsonFile = None,
) -> None:
    """Find everything that is wrong with a dataset: zips, tables and every image. Nothing in FOLDER is changed."""
    from cclnet.checks import check_dataset, show

    with redirect_stdout(sys.stderr), progress() as report:
        findings = check_dataset(folder, report)
    give(findings.as_dict(), lambda: show(findings, Console()), json_file)
    raise typer.Exit(1 if findings.problems else 0)


@app.command(epilog="Example: cclnet predict models/model.safetensors photos/ more.zip one.png -o predictions.csv")
def predict(
    model_file: ModelFile,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES", help="Files, folders with all that is below them, zips.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            dir_okay=False,
            help="Write the probabilities of all images to FILE (CSV).",
        ),
    ] = None,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Predict the class of images. For research only: no diagnosis.

    An image that cannot be read is named, and the others are predicted; the exit status is 1 then.
    """
    from cclnet.errors import DataError
    from cclnet.processor import prepare_processor

    prepare_processor("native", None)  # before what imports NumPy and torch
    from cclnet.pictures import read_pictures

    pictures, problems = read_pictures(images)

    from cclnet.checkpoint import load_model
    from cclnet.files import write_csv
    from cclnet.screen import screen, show_predictions

    model, description = load_model(model_file)
    predictions = with_progress(model, description, pictures, device)
    if output:
        write_csv(output, predictions.table())
    show_predictions(screen(), predictions, description, output)
    if problems := [*problems, *predictions.problems]:
        raise DataError("the rest could not be predicted:", problems)


@app.command(
    epilog="Example: cclnet evaluate models/model.safetensors --images ISIC2018_Task3_Test_Input.zip "
    "--labels ISIC2018_Task3_Test_GroundTruth.zip -o metrics.json"
)
def evaluate(
    model_file: ModelFile,
    images: Annotated[Path, typer.Option(metavar="ZIP_OR_FOLDER", help="The images, and no others.")],
    labels: Annotated[Path, typer.Option(metavar="TABLE_OR_ZIP", help="Their classes: a column of 0 and 1 for each.")],
    lesions: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Their lesions: these are resampled then, else the images.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", dir_okay=False, help="Write the figures to FILE as JSON."),
    ] = None,
    predictions_file: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            metavar="FILE",
            dir_okay=False,
            help="Write the probabilities of all images to FILE (CSV).",
        ),
    ] = None,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Measure a model on a labelled set in the challenge's layout, with 95 % bootstrap intervals."""
    from cclnet.processor import prepare_processor

    prepare_processor("native", None)  # before what imports NumPy and torch
    from cclnet.checkpoint import load_model
    from cclnet.evaluation import evaluate_predictions, labelled_pictures
    from cclnet.files import write_csv, write_json
    from cclnet.screen import screen, show_evaluation
    from cclnet.tables import require_none

    model, description = load_model(model_file)
    labelled = labelled_pictures(images, labels, lesions, description.classes)
    predictions = with_progress(model, description, labelled.pictures, device)
    require_none(predictions.problems)
    evaluation = evaluate_predictions(labelled.labels, predictions.probabilities, description.classes, labelled.lesions)
    if predictions_file:
        write_csv(predictions_file, predictions.table())
    if output:
        write_json(output, evaluation.as_dict())
    show_evaluation(screen(), evaluation)


@app.command(epilog="Example: cclnet matrix models/model.safetensors --csv matrix.csv --figure matrix.png")
def matrix(
    model_file: ModelFile,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", dir_okay=False, help="Write the matrix to FILE, a row for each class."),
    ] = None,
    figure_file: Annotated[
        Path | None,
        typer.Option("--figure", metavar="FILE", dir_okay=False, help="Draw the matrix into FILE, .png or .svg."),
    ] = None,
) -> None:
    """Show the soft labels that a model has learned: which classes look alike to it."""
    from cclnet.checkpoint import load_model
    from cclnet.figures import save_figure, soft_label_figure
    from cclnet.files import write_csv
    from cclnet.screen import matrix_table, screen, show_matrix

    if figure_file and figure_file.suffix not in (".png", ".svg"):
        raise typer.BadParameter(f"{figure_file} ends neither in .png nor in .svg", param_hint="--figure")
    _, description = load_model(model_file)
    if csv_file:
        write_csv(csv_file, matrix_table(description))
    if figure_file:
        save_figure(soft_label_figure(description.label_matrix, description.classes, "Soft labels"), figure_file)
    show_matrix(screen(), description)


def with_progress(
    model: "CCLNet", description: "ModelDescription", pictures: "Sequence[Picture]", device: Device
) -> "Predictions":
    """Predict pictures, telling of it on standard error."""
    from cclnet.prediction import predict_pictures
    from cclnet.processor import select_device

    place = select_device(device)
    with redirect_stdout(sys.stderr), progress() as report:
        return predict_pictures(model.to(place), description, pictures, place, report)


@app.command(epilog="Example: cclnet compare HEAD muggy-tuna --json difference.json")
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
    from cclnet.comparison import compare_experiments, load_experiment, show

    comparison = compare_experiments(load_experiment(a, labels), load_experiment(b, labels))
    give(comparison.as_dict(), lambda: show(comparison, Console()), json_file)


def give(findings: dict[str, Any], show: Callable[[], None], json_file: Path | None) -> None:
    """Show the findings and write them to the file, if there is one; as JSON alone to the standard output."""
    from cclnet.files import write_json

    if json_file == STANDARD_OUTPUT:
        typer.echo(json.dumps(findings, indent=2, sort_keys=True))
        return
    show()
    if json_file:
        write_json(json_file, findings)


@app.command(epilog="Example: cclnet export models/model.safetensors --onnx model.onnx --with-preprocessing")
def export(
    model_file: ModelFile,
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
