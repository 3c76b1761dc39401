"""The results of one experiment, read from the files that its stages wrote."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cclnet.dataset.tables import header_in, number, rows_in
from cclnet.metrics.matrices import read_soft_labels
from cclnet.metrics.predictions import checked_predictions
from cclnet.metrics.score_table import Score, read_scores
from cclnet.metrics.scores import confusion_counts
from cclnet.system.errors import DataError, Problem
from cclnet.system.files import read_json
from cclnet.system.names import normalised

SPLIT = "data/split.csv"
METRICS_FOLDER = "metrics"
PREDICTIONS, SCORES, SOFT_LABELS = "predictions.csv", "scores.csv", "soft_labels.json"
NAMED_IMAGES = 3  # in an error that concerns many


@dataclass(frozen=True)
class Run:
    """The predictions of one experiment for its n validation images of K classes, and its scores.

    Attributes:
        name: the name as the user wrote it.
        classes: the names of the classes (K).
        truth: the columns label (a class's name) and lesion, one row per image; the index is the sorted images.
        probabilities: n×K, rows as in ``truth``.
        soft_labels: the K×K matrix that trained the classifier; None for a prediction file.
        scores: the scores of the evaluate stage by name; empty for a prediction file.
    """

    name: str
    classes: Sequence[str]
    truth: pd.DataFrame
    probabilities: NDArray[np.float64]
    soft_labels: NDArray[np.float64] | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The true class of each image (n), 0 … K − 1."""
        place = {name: index for index, name in enumerate(self.classes)}
        return np.array([place[label] for label in self.truth["label"]], dtype=np.int64)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class of each image (n), 0 … K − 1."""
        return self.probabilities.argmax(axis=1)

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Whether the predicted class of each image (n) is the true one."""
        return self.predicted == self.labels

    @cached_property
    def confusion(self) -> NDArray[np.integer]:
        """The number of images of each true (row) and predicted class, K×K."""
        return confusion_counts(self.labels, self.predicted, len(self.classes))

    @property
    def confusion_shares(self) -> NDArray[np.float64]:
        """The confusion matrix as shares of each true class's images, K×K; 0 for a class without images."""
        return self.confusion / np.maximum(self.confusion.sum(axis=1, keepdims=True), 1)

    @property
    def learned_soft_labels(self) -> NDArray[np.float64] | None:
        """The soft labels if a CCL head learned them, otherwise None."""
        epoch = self.scores.get("softness_epoch")
        return self.soft_labels if epoch and epoch.value is not None else None


def read_run(name: str, folder: Path) -> Run:
    """Read the results of the stages in a checkout.

    Args:
        name: its name in error messages.
        folder: the folder with ``data/split.csv`` and ``metrics/``.

    Raises:
        DataError: lists all problems of the tables.
    """
    metrics = folder / METRICS_FOLDER
    try:
        soft_labels, scores = _soft_labels_and_scores(metrics)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return read_predictions(name, metrics / PREDICTIONS, folder / SPLIT, soft_labels, scores)


def read_predictions(
    name: str,
    prediction_table: Path,
    label_table: Path,
    soft_labels: NDArray[np.float64] | None = None,
    scores: Mapping[str, Score] | None = None,
) -> Run:
    """Read predictions and their true labels.

    Args:
        name: their name in error messages.
        prediction_table: a table of image and the probability of each class.
        label_table: a table of image, label, lesion and subset.
        soft_labels, scores: those of the run, if known.

    Raises:
        DataError: lists all problems of the two tables.
    """
    classes, images, probabilities, problems = _predictions_in(prediction_table)
    truth, faults = _truth_in(label_table)
    problems += faults
    if images and truth:
        misfits = _mismatches(images, truth, classes, label_table.name)
        problems += [Problem(prediction_table.name, misfit) for misfit in misfits]
    if problems:
        raise DataError(f"{name} cannot be read: correct what follows or name another experiment", problems)
    table = pd.DataFrame.from_dict(truth, orient="index", columns=["label", "lesion"]).sort_index()
    row_of = {image: row for row, image in enumerate(images)}
    run = Run(name, classes, table, probabilities[[row_of[image] for image in table.index]], soft_labels, scores or {})
    try:
        checked_predictions(run.labels, run.probabilities, classes)
    except DataError as error:
        raise DataError(f"{name}: {prediction_table.name}: {error}") from None
    return run


def counted(images: Sequence[str]) -> str:
    """``1 image (x)``, ``1,000 images (x, y, z, …)``."""
    names = ", ".join(images[:NAMED_IMAGES]) + (", …" if len(images) > NAMED_IMAGES else "")
    return f"{len(images):,} image{'' if len(images) == 1 else 's'} ({names})"


def _soft_labels_and_scores(folder: Path) -> tuple[NDArray[np.float64] | None, Mapping[str, Score]]:
    """The soft labels and the scores of a run; for runs without ``scores.csv``, the scores from ``metrics.json``.

    Raises:
        DataError: the files were not written by the evaluate stage.
    """
    try:
        _, soft_labels = read_soft_labels(folder / SOFT_LABELS)
    except FileNotFoundError:
        return None, {}
    try:
        return soft_labels, read_scores(folder / SCORES)
    except FileNotFoundError:
        return soft_labels, _scores_of_an_older_run(folder / "metrics.json")


def _scores_of_an_older_run(path: Path) -> Mapping[str, Score]:
    try:
        values = read_json(path)
        return {"softness_epoch": Score(values.get("softness_epoch"))}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        raise DataError(
            f"{path.name} is not what the evaluate stage writes ({error!r}): make it again with dvc repro"
        ) from None


def _predictions_in(path: Path) -> tuple[Sequence[str], list[str], NDArray[np.float64], list[Problem]]:
    """The classes, the images, their probabilities (n×K), and the problems of the table."""
    nothing = np.empty((0, 0))
    if not path.is_file():
        return [], [], nothing, [Problem(path.name, "is missing")]
    if flawless := _flawless_predictions(path):
        classes, images, probabilities = flawless
        return classes, images, probabilities, []
    data = path.read_bytes()
    classes = header_in(data)[1:]
    rows, problems = rows_in(data, path.name, ["image", *classes])
    if repeated := [name for name, count in Counter(classes).items() if count > 1]:
        problems.append(Problem(path.name, f"has several columns {', '.join(map(repr, repeated))}"))
    if problems:
        return classes, [row.image for row in rows], nothing, problems
    probabilities = np.array([[number(value) for value in row.values] for row in rows])
    return classes, [row.image for row in rows], probabilities, []


def _flawless_predictions(path: Path) -> tuple[Sequence[str], list[str], NDArray[np.float64]] | None:
    """Read the table row by row, which needs a fraction of the memory; None if there is any problem."""
    images: list[str] = []
    probabilities: list[NDArray[np.float64]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            columns = next(rows, [])
            for row in filter(None, rows):
                if len(row) != len(columns):
                    return None
                images.append(normalised(row[0]))
                probabilities.append(np.fromiter(map(float, row[1:]), np.float64, len(row) - 1))
    except (ValueError, csv.Error):
        return None
    distinct = len({image.casefold() for image in images}) == len(images) and len(set(columns)) == len(columns)
    if columns[:1] != ["image"] or not images or not distinct or not all(images):
        return None
    return columns[1:], images, np.array(probabilities)


def _truth_in(path: Path) -> tuple[dict[str, tuple[str, str]], list[Problem]]:
    """The label and the lesion of each validation image, and the problems of the split."""
    if not path.is_file():
        return {}, [Problem(path.name, "is missing; --labels names another for prediction files")]
    rows, problems = rows_in(path.read_bytes(), path.name, ["image", "label", "lesion", "subset"])
    truth: dict[str, tuple[str, str]] = {}
    for row in rows:
        label, lesion, subset = row.values or ("", "", "")
        if subset == "validation":
            truth[row.image] = label, lesion
            if not lesion.strip():
                problems.append(Problem(row.where, "names no lesion"))
    if not truth and not problems:
        problems = [Problem(path.name, "has no validation image")]
    return truth, problems


def _mismatches(
    images: Sequence[str], truth: Mapping[str, tuple[str, str]], classes: Sequence[str], split: str
) -> list[str]:
    """The differences between predictions and split, as texts for a ``Problem``."""
    predicted = set(images)
    lacking, unknown = sorted(truth.keys() - predicted), sorted(predicted - truth.keys())
    labels = sorted({label for label, _ in truth.values()} - set(classes))
    found: list[str] = []
    if lacking:
        found.append(f"lacks {counted(lacking)} that {split} has for validation")
    if unknown:
        found.append(f"has {counted(unknown)} that {split} does not have for validation")
    if labels:
        found.append(f"has no class {', '.join(labels)}, which {split} labels images with")
    return found
