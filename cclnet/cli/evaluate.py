"""``cclnet evaluate``: evaluate a model on labelled images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cclnet.cli.options import Device, DeviceOption, ModelFile, Runtime, RuntimeOption
from cclnet.cli.terminal import UNDEFINED, number, say, screen, show_table, with_progress

if TYPE_CHECKING:
    from cclnet.inference.labelled import Evaluation


def evaluate(
    model_file: ModelFile,
    images: Annotated[Path, typer.Option(metavar="ZIP_OR_FOLDER", help="The labelled images.")],
    labels: Annotated[
        Path,
        typer.Option(
            metavar="TABLE_OR_ZIP",
            help="Their labels: a table with one column of 0 and 1 per class, or with the columns image and label. Or "
            "the folder of images again, in any layout of a dataset.",
        ),
    ],
    lesions: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Their lesions, which are then resampled instead of images.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            dir_okay=False,
            help="Write the metrics to FILE as JSON; - writes them to standard output.",
        ),
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
    runtime: RuntimeOption = Runtime.TORCH,
) -> None:
    """Evaluate a model on a labelled set, with 95 % bootstrap intervals."""
    from cclnet.system.machine import prepare_processor
    from cclnet.system.writing import is_standard_output, require_writable

    require_writable([output, predictions_file], [model_file, images, labels, *([lesions] if lesions else [])])
    prepare_processor("native", None)  # before NumPy and torch are imported
    from cclnet.dataset.tables import require_none
    from cclnet.inference.labelled import evaluate_predictions, labelled_pictures
    from cclnet.networks.model import load_model
    from cclnet.system.files import write_csv, write_json

    model, description = load_model(model_file)
    labelled = labelled_pictures(images, labels, lesions, description.classes)
    predictions = with_progress(model, description, labelled.pictures, device, runtime=runtime)
    require_none(predictions.problems)
    evaluation = evaluate_predictions(labelled.labels, predictions.probabilities, description.classes, labelled.lesions)
    if predictions_file:
        write_csv(predictions_file, predictions.table())
    if output:
        write_json(output, evaluation.as_dict())
    if not (is_standard_output(output) or is_standard_output(predictions_file)):
        show_evaluation(screen(), evaluation)


def show_evaluation(console: Console, evaluation: "Evaluation") -> None:
    """Print the metrics with their intervals, the table of the classes, and the data they are based on."""
    from cclnet.metrics.matrices import records
    from cclnet.metrics.names import title
    from cclnet.metrics.resampling import RESAMPLES

    rows = []
    for name, score in evaluation.scores.items():
        interval = UNDEFINED if score.low is None else f"{score.low:.4f} … {score.high:.4f}"
        rows.append((title(name), number(score.value), interval, score.note))
    headings = ("metric", "value", "95 % interval", "note")
    shown = len(headings) if any(score.note for score in evaluation.scores.values()) else len(headings) - 1
    show_table(console, headings[:shown], [row[:shown] for row in rows], justify="left")

    classes = []
    for row in records(evaluation.classes):
        name, images, *figures = row.values()
        classes.append((name, f"{images:,}", *map(number, figures)))
    show_table(console, list(evaluation.classes.columns), classes)

    if evaluation.lesions is None:
        whole, drawn = "", "the images, too narrow if lesions have several (--lesions)"
    else:
        whole, drawn = f" of {evaluation.lesions:,} lesions", "the lesions"
    say(console, f"{evaluation.images:,} images{whole}; intervals from {RESAMPLES:,} bootstrap resamples of {drawn}")
