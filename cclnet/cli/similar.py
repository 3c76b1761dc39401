"""``cclnet similar``: which classes look alike."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cclnet.cli.options import Device, DeviceOption, JsonFile
from cclnet.cli.terminal import UNDEFINED, give, number, report_on_standard_error, say, screen, show_table

if TYPE_CHECKING:
    from cclnet.inference.features import LabelledFeatures
    from cclnet.metrics.similarity import ClassSimilarity
    from cclnet.views.image_pairs import ImagePair

SHOWN_PAIRS = 15


class EstimatorName(StrEnum):
    """The estimators of ``cclnet.metrics.estimators``."""

    PREDICTIONS = "predictions"
    CONFUSIONS = "confusions"
    CLASS_MEANS = "class_means"
    DISCRIMINANT = "discriminant"
    HEAD = "head"
    BALANCED_HEAD = "balanced_head"


def similar(
    what: Annotated[
        Path,
        typer.Argument(
            metavar="WHAT",
            help="A model (.safetensors) with --images and --labels; features (.npz with features, labels and perhaps "
            "groups; .npy or .parquet with --labels); or a folder of images by class with --backbone.",
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(metavar="ZIP_OR_FOLDER", help="With a model: images, preferably ones that it was not trained on."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="TABLE_OR_ZIP", help="Labels of the images, or of the rows of features.")
    ] = None,
    lesions: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="With a model: lesions, whose images are kept together.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="With a folder: a model of torchvision, or timm/NAME.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="NAME_OR_FILE", help="With a folder: DEFAULT or another name (downloaded), or a file."),
    ] = None,
    size: Annotated[int, typer.Option(min=8, metavar="PIXELS", help="With a folder: side of the crops.")] = 224,
    estimator: Annotated[
        EstimatorName, typer.Option(help="How similarity is measured; docs/use/similar-classes.md explains each.")
    ] = EstimatorName.PREDICTIONS,
    softness: Annotated[
        float | None,
        typer.Option(
            metavar="P", help="Mean of the diagonal of the soft labels, between 1/K and 1; default e²/(e² + K − 1)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of folds, resamples and shuffles.")] = 0,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", dir_okay=False, help="Write the table of all pairs to FILE.")
    ] = None,
    json_file: JsonFile = None,
    soft_labels_file: Annotated[
        Path | None,
        typer.Option(
            "--soft-labels", metavar="FILE", dir_okay=False, help="Write K×K soft labels to FILE (CSV), for training."
        ),
    ] = None,
    page_file: Annotated[
        Path | None,
        typer.Option(
            "--page",
            metavar="FILE",
            dir_okay=False,
            help="Write a page with tables, figures and images to FILE (HTML).",
        ),
    ] = None,
    features_file: Annotated[
        Path | None,
        typer.Option(
            "--features",
            metavar="FILE",
            dir_okay=False,
            help="Save the features to FILE (.npz), which can be given as WHAT.",
        ),
    ] = None,
    device: DeviceOption = Device.AUTO,
) -> None:
    """Show which classes look alike, with intervals and with the labels shuffled as a control."""
    from cclnet.system.machine import prepare_processor
    from cclnet.system.writing import is_standard_output, require_writable

    outputs = [csv_file, json_file, soft_labels_file, page_file, features_file]
    require_writable(outputs, [path for path in (what, images, labels, lesions) if path])
    if features_file and features_file.suffix != ".npz" and not is_standard_output(features_file):
        raise typer.BadParameter(f"{features_file} does not end in .npz", param_hint="--features")
    prepare_processor("native", None)  # before what imports NumPy and torch
    import pandas as pd

    from cclnet.inference.features import write_features
    from cclnet.metrics.similarity import ClassSimilarity
    from cclnet.system.errors import DataError
    from cclnet.system.files import write_bytes, write_csv

    found, classes = features_of(what, images, labels, lesions, backbone, weights, size, device)
    model = ClassSimilarity(estimator.value, softness=softness, classes=classes, seed=seed)
    groups = None if found.groups is None else len(set(found.groups))
    if features_file:
        write_features(features_file, found)  # first: a refusal of what follows does not cost the features
    with report_on_standard_error() as report:
        model.fit(found.features, found.labels, found.groups, report)
    if csv_file:
        write_csv(csv_file, model.pairs_)
    if soft_labels_file:
        table = pd.DataFrame(model.soft_labels_, columns=model.classes_)
        table.insert(0, "label", model.classes_)
        write_csv(soft_labels_file, table)
    if page_file:
        from cclnet.views.similarity_page import similarity_page

        page = similarity_page(what.name, model, found.features, found.labels, groups, image_pairs(model, found))
        write_bytes(page_file, page.encode())

    def show() -> None:
        if not any(is_standard_output(path) for path in outputs):
            show_similarity(screen(), model, found)

    give(model.as_dict() | {"images": len(found.labels), "groups": groups}, show, json_file)
    if found.problems:
        raise DataError("these images could not be used:", found.problems)


def features_of(
    what: Path,
    images: Path | None,
    labels: Path | None,
    lesions: Path | None,
    backbone: str | None,
    weights: str | None,
    size: int,
    device: Device,
) -> tuple["LabelledFeatures", list[str] | None]:
    """The features of the input, and the order of its classes if it has one.

    Raises:
        CCLNetError: the input cannot be used, or an option is missing or does not belong to it.
    """
    from cclnet.inference.features import read_features
    from cclnet.system.errors import CCLNetError

    given = {"--images": images, "--labels": labels, "--lesions": lesions, "--backbone": backbone, "--weights": weights}
    if what.is_dir():
        kind, needed, allowed = "a folder of images", ["--backbone"], ["--backbone", "--weights"]
    elif what.suffix == ".safetensors":
        kind, needed, allowed = "a model", ["--images", "--labels"], ["--images", "--labels", "--lesions"]
    else:
        kind, needed, allowed = "a file of features", [], ["--labels"]
    missing = [name for name in needed if given[name] is None]
    surplus = [name for name, value in given.items() if value is not None and name not in allowed]
    faults = [f"needs {name}" for name in missing] + [f"takes no {name}" for name in surplus]
    if faults:
        raise CCLNetError(f"{what} is {kind}, which {' and '.join(faults)}")
    if what.is_dir() and backbone:
        return _of_folder(what, backbone, weights, size, device)
    if images and labels:
        return _of_model(what, images, labels, lesions, device)
    return read_features(what, labels), None


def _of_model(
    model_file: Path, images: Path, labels: Path, lesions: Path | None, device: Device
) -> tuple["LabelledFeatures", list[str] | None]:
    from cclnet.inference.features import picture_features
    from cclnet.inference.labelled import labelled_pictures
    from cclnet.networks.model import load_model
    from cclnet.system.machine import select_device

    model, description = load_model(model_file)
    labelled = labelled_pictures(images, labels, lesions, description.classes)
    with report_on_standard_error() as report:
        found = picture_features(
            model.backbone,
            labelled,
            description.classes,
            description.short_side,
            description.crop,
            select_device(device),
            description.normalization,
            description.layout,
            report,
        )
    present = set(found.labels)
    return found, [name for name in description.classes if name in present]


def _of_folder(
    folder: Path, backbone: str, weights: str | None, size: int, device: Device
) -> tuple["LabelledFeatures", list[str] | None]:
    import torch

    from cclnet.images.augmentation import IMAGENET, Normalization
    from cclnet.inference.features import picture_features
    from cclnet.inference.labelled import labelled_folder
    from cclnet.networks.backbones import build_backbone, pretrained_constants
    from cclnet.networks.catalogue import name_problems
    from cclnet.system.errors import CCLNetError
    from cclnet.system.machine import select_device

    if problems := name_problems(backbone, weights):
        raise CCLNetError("; ".join(problems))
    labelled, classes = labelled_folder(folder)
    torch.manual_seed(0)  # of a network without weights
    network, _ = build_backbone(backbone, weights, size)
    constants = pretrained_constants(backbone, weights)
    with report_on_standard_error() as report:
        found = picture_features(
            network,
            labelled,
            classes,
            round(size * 256 / 224),
            size,
            select_device(device),
            Normalization(*constants) if constants else IMAGENET,
            torch.channels_last,
            report,
        )
    return found, None


def image_pairs(model: "ClassSimilarity", found: "LabelledFeatures") -> list["ImagePair"]:
    """The images of the most similar pairs; none where the input names no image files."""
    from cclnet.images.reading import map_places
    from cclnet.inference.examples import PAIRS_WITH_EXAMPLES, with_examples
    from cclnet.system.errors import DataError
    from cclnet.views.image_pairs import image_pair, jpeg_source

    if found.pictures is None or found.images is None:
        return []
    picture_of = dict(zip(found.images, found.pictures, strict=True))

    def source_of(image: str) -> str:
        place = picture_of[image].path, picture_of[image].member
        [pixels] = map_places([place], _decoded, 1)
        if isinstance(pixels, ValueError):
            raise DataError(f"{picture_of[image].where}: {pixels}")
        return jpeg_source(pixels)

    described = with_examples(model, found.features, found.labels, found.images)["pairs"][:PAIRS_WITH_EXAMPLES]
    return [image_pair(pair, source_of) for pair in described]


def _decoded(data: bytes) -> Any:
    import numpy as np

    from cclnet.images.decoding import decode

    return np.asarray(decode(data))


def show_similarity(console: Console, model: "ClassSimilarity", found: "LabelledFeatures") -> None:
    """Print the most similar pairs, what the numbers mean, and how much of them class counts explain."""
    from cclnet.metrics.matrices import records
    from cclnet.views.similarity_page import MEANINGS, VERDICTS, control_sentence

    pairs = records(model.pairs_)
    rows = []
    for pair in pairs[:SHOWN_PAIRS]:
        interval = UNDEFINED if pair["low"] is None else f"{pair['low']:.3f} … {pair['high']:.3f}"
        rows.append(
            (pair["a"], pair["b"], f"{pair['similarity']:.3f}", interval, number(pair["shuffled"]), pair["verdict"])
        )
    show_table(console, ("class", "like", "similarity", "95 % interval", "labels shuffled", "verdict"), rows, "left")
    if len(pairs) > SHOWN_PAIRS:
        say(console, f"{len(pairs) - SHOWN_PAIRS:,} more pairs are not shown; --csv FILE writes them all")
    of_groups = "" if found.groups is None else f" of {len(set(found.groups)):,} groups"
    say(console, f"{len(found.labels):,} images{of_groups}. {MEANINGS[model.estimator]}")
    if rows and rows[0][-1]:
        say(console, VERDICTS)
    if sentence := control_sentence(model):
        say(console, sentence)
