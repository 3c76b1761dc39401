"""Labelled pictures, and the evaluation of a model's predictions for them."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cclnet.dataset.layouts import LABELS, LabelledFolder, read_layout
from cclnet.dataset.tables import absent, labels_in, lesions_in, require_none
from cclnet.inference.pictures import Picture, pictures_in, repeated_images
from cclnet.metrics.matrices import records
from cclnet.metrics.score_table import Score, score_predictions
from cclnet.metrics.scores import class_table
from cclnet.system.errors import CCLNetError, Problem


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures with known classes.

    Attributes:
        pictures: n pictures, sorted by image.
        labels: their classes, 0 … K − 1.
        lesions: the lesion of each picture, None if no table contains them.
    """

    pictures: list[Picture]
    labels: NDArray[np.int64]
    lesions: list[str] | None


def labelled_pictures(
    images: Path, ground_truth: Path, lesion_table: Path | None, classes: Sequence[str]
) -> LabelledPictures:
    """Read a labelled set in the layout of the challenge's sets, or in a layout of ``dataset.layouts``.

    Args:
        images: a folder or a zip.
        ground_truth: the table of labels, or a zip with it; its classes must be the given ones, in the same order. Or
            the folder of the images itself, or its ``labels.csv``: then images, labels and groups are read with
            ``dataset.layouts``.
        lesion_table: the table of lesions, which may name further images.
        classes: the classes of the model.

    Raises:
        DataError: lists all problems of zips and tables and all differences between them; no picture is decoded.
        CCLNetError: a table of lesions is given for a folder that names its groups itself.
    """
    if images.is_dir() and images.resolve() == _folder_of(ground_truth):
        if lesion_table:
            raise CCLNetError(
                f"{ground_truth} names the groups itself, if it has any: leave out {lesion_table}, or name a table of "
                "labels outside of the folder of images"
            )
        return _labelled_folder(images, classes)
    pictures, problems = pictures_in([images])
    _, labels, label_problems = labels_in(ground_truth, classes)
    lesions, lesion_problems = lesions_in(lesion_table) if lesion_table else ({}, [])
    pictures = _by_stem_if_labelled_so(pictures, labels)
    problems += repeated_images(pictures) + label_problems + lesion_problems
    of_image = {picture.image: picture for picture in pictures}
    if pictures and labels:
        problems += absent(labels, of_image, str(images), "image")
        problems += absent(of_image, labels, ground_truth.name, "label of image")
    if lesion_table and lesions:
        problems += absent(labels, lesions, lesion_table.name, "lesion of image")
    require_none(problems)
    names = sorted(of_image)
    return LabelledPictures(
        [of_image[name] for name in names],
        np.array([classes.index(labels[name]) for name in names], dtype=np.int64),
        [lesions[name] for name in names] if lesion_table else None,
    )


def _folder_of(ground_truth: Path) -> Path | None:
    """The folder that contains its own labels: a folder, or the one of a ``labels.csv``; None for other tables."""
    if ground_truth.is_dir():
        return ground_truth.resolve()
    return ground_truth.resolve().parent if ground_truth.name == LABELS and ground_truth.is_file() else None


def labelled_folder(folder: Path) -> tuple[LabelledPictures, list[str]]:
    """Read a folder of labelled images in one of the layouts of ``dataset.layouts``, and its classes, sorted.

    Raises:
        DataError: with everything that is wrong with it.
        CCLNetError: the folder cannot be read.
    """
    try:
        found = read_layout(folder)
    except OSError as error:
        raise CCLNetError(f"{folder} cannot be read: {error.strerror}") from None
    classes = sorted({kind.label for kind in found.kinds.values()})
    return _labelled(found, classes), classes


def _labelled_folder(folder: Path, classes: Sequence[str]) -> LabelledPictures:
    return _labelled(read_layout(folder), classes)


def _labelled(found: LabelledFolder, classes: Sequence[str]) -> LabelledPictures:
    problems = [*found.problems]
    problems += [
        Problem(image, f"has the label {kind.label!r}, which the model does not know")
        for image, kind in found.kinds.items()
        if kind.label not in classes
    ]
    require_none(problems)
    groups = {image: kind.group for image, kind in found.kinds.items() if kind.group}
    return LabelledPictures(
        [Picture(image, str(place.path), place.path, place.member) for image, place in found.places.items()],
        np.array([classes.index(kind.label) for kind in found.kinds.values()], dtype=np.int64),
        [groups.get(image, image) for image in found.kinds] if groups else None,
    )


def _by_stem_if_labelled_so(pictures: Sequence[Picture], labels: Container[str]) -> Sequence[Picture]:
    """Name the pictures by their file names if more of these are in the labels than ids that include the path."""
    named = [picture._replace(image=Path(picture.member or picture.path).stem) for picture in pictures]
    known, known_by_name = (sum(picture.image in labels for picture in found) for found in (pictures, named))
    return named if known_by_name > known else pictures


@dataclass(frozen=True)
class Evaluation:
    """The scores of predictions of labelled images.

    Attributes:
        images, lesions: number of images and of lesions; None if the lesions are unknown.
        scores: all metrics of ``metrics.evaluate`` by name, with intervals by lesion or, if lesions are unknown, by
            image.
        classes: the result of ``metrics.class_table``.
    """

    images: int
    lesions: int | None
    scores: dict[str, Score]
    classes: pd.DataFrame

    def as_dict(self) -> dict[str, Any]:
        """The evaluation in a form for JSON: the metrics by name, and further keys for the rest."""
        return {
            **{name: score.value for name, score in self.scores.items()},
            "intervals": {
                name: [score.low, score.high] for name, score in self.scores.items() if score.low is not None
            },
            "images": self.images,
            "lesions": self.lesions,
            "classes": records(self.classes),
            "notes": {name: score.note for name, score in self.scores.items() if score.note},
        }


def evaluate_predictions(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], classes: Sequence[str], lesions: list[str] | None
) -> Evaluation:
    """Score probabilities (n × K) against labels (n), with intervals by lesion (n) or, without lesions, by image."""
    clusters = np.arange(len(labels)) if lesions is None else lesions
    return Evaluation(
        images=len(labels),
        lesions=len(set(lesions)) if lesions else None,
        scores=score_predictions(labels, probabilities, classes, clusters),
        classes=class_table(labels, probabilities, classes),
    )
