"""``cclnet predict``: predict the classes of images."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cclnet.cli.model import similar_classes
from cclnet.cli.options import BatchSize, Device, DeviceOption, JsonFile, ModelFile, Runtime, RuntimeOption
from cclnet.cli.terminal import say, screen, show_table, with_progress

if TYPE_CHECKING:
    from cclnet.inference.prediction import Predictions
    from cclnet.networks.model_description import ModelDescription


def predict(
    model_file: ModelFile,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES", help="Image files, folders (including sub-folders) and zips.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            dir_okay=False,
            help="Write the probabilities of all images to FILE, as JSON if it ends in .json, otherwise as CSV; "
            "- prints nothing but them.",
        ),
    ] = None,
    json_file: JsonFile = None,
    batch_size: BatchSize = None,
    device: DeviceOption = Device.AUTO,
    runtime: RuntimeOption = Runtime.TORCH,
) -> None:
    """Predict the class of images. For research only, not for diagnosis.

    Images that cannot be read are reported, and the others are predicted; the exit status is then 1.
    """
    from cclnet.system.errors import DataError
    from cclnet.system.machine import prepare_processor
    from cclnet.system.writing import is_standard_output, require_writable

    require_writable([output, json_file], [model_file, *images])
    prepare_processor("native", None)  # before NumPy and torch are imported
    from cclnet.inference.pictures import passed_over, read_pictures

    pictures, problems = read_pictures(images)
    if others := passed_over(images, pictures):
        typer.echo(f"passed over, because their suffix is no image's: {others}", err=True)

    from cclnet.networks.model import load_model
    from cclnet.system.files import write_csv, write_json

    model, description = load_model(model_file)
    predictions = with_progress(model, description, pictures, device, batch_size, runtime)
    predictions = replace(predictions, problems=[*problems, *predictions.problems])
    if output and output.suffix == ".json":
        write_json(output, predictions.as_dict())
    elif output:
        write_csv(output, predictions.table())
    if json_file:
        write_json(json_file, predictions.as_dict())
    if not (is_standard_output(output) or is_standard_output(json_file)):
        show_predictions(screen(), predictions, description, output or json_file)
    if predictions.problems:
        raise DataError("the rest could not be predicted:", predictions.problems)


SHOWN_IMAGES = 20
SHOWN_CLASSES = 3


def show_predictions(
    console: Console, predictions: "Predictions", description: "ModelDescription", file: Path | None
) -> None:
    """Print the most probable classes of the first images, the classes similar to the predicted one, and a summary.

    Args:
        console: the console to print to.
        predictions: predictions of at least one image.
        description: the description of the model.
        file: the file with all predictions, None if there is none.
    """
    classes, similar = predictions.classes, similar_classes(description)
    shown = min(SHOWN_CLASSES, len(classes))
    headings = ["image", "predicted", *["then"] * (shown - 1)]
    if similar:
        headings.append("looks like it")
    rows = []
    for image, row in zip(predictions.images[:SHOWN_IMAGES], predictions.probabilities, strict=False):
        order = (-row).argsort(kind="stable")[:shown].tolist()
        cells = [image, *(f"{classes[label]} {row[label]:.3f}" for label in order)]
        if similar:
            cells.append(", ".join(f"{name} {value:.2f}" for name, value in similar[order[0]][:2]))
        rows.append(cells)
    show_table(console, headings, rows, justify="left")
    if similar:
        say(console, "looks like it: to what the learned soft label of the predicted class gives most besides itself")
    images, predicted = len(predictions.images), predictions.probabilities.argmax(axis=1)
    if images > SHOWN_IMAGES:
        all_of_them = f"{file} has them all" if file else "-o FILE writes them all"
        say(console, f"{images - SHOWN_IMAGES:,} more are not shown; {all_of_them}")
    counts = Counter(classes[label] for label in predicted).most_common()
    say(console, f"{images:,} predicted: {', '.join(f'{name} {count:,}' for name, count in counts)}")
