"""Metrics of a set of predictions, computed from arrays.

Throughout, n is the number of images and K the number of classes. Labels are integers in 0 … K−1 (n), probabilities
are n×K with rows that sum to 1, and the predicted class is the most probable one (in case of ties, the lowest index).

An undefined metric is null, never NaN, and ``notes`` explains why. Macro averages are taken over the classes that have
images, as in scikit-learn's balanced accuracy, because F1 is undefined for a class without images.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    jaccard_score,
    recall_score,
    roc_auc_score,
)

from cclnet.metrics.calibration import brier_score, classwise_calibration_error, expected_calibration_error, image_nll
from cclnet.metrics.predictions import _label_problems, _refuse, checked_predictions


def evaluate(true_labels: ArrayLike, probabilities: ArrayLike) -> dict[str, float | None]:
    """Compute all metrics of the predictions (probabilities n×K) against the labels (n).

    Returns:
        ``accuracy``; ``f1``, ``jaccard`` and ``balanced_accuracy``, macro over the classes that have images;
        ``kappa`` (Cohen's, unweighted), null if all labels and predictions are the same class; ``auc``, the mean of the
        K one-vs-rest areas, null if a class has no images or all of them; ``nll`` in nats; ``brier``; ``ece``;
        ``classwise_ece``.

    Raises:
        DataError: the arrays are not labels and probabilities of the same images.
    """
    labels, scaled = checked_predictions(true_labels, probabilities)
    predicted = scaled.argmax(axis=1)
    over_present_classes = {"labels": np.unique(labels), "average": "macro", "zero_division": 0}
    areas = _class_areas(labels, probabilities)
    figures = {
        "accuracy": accuracy_score(labels, predicted),
        "f1": f1_score(labels, predicted, **over_present_classes),
        "kappa": None if _one_class_only(labels, predicted) else cohen_kappa_score(labels, predicted),
        "jaccard": jaccard_score(labels, predicted, **over_present_classes),
        "balanced_accuracy": recall_score(labels, predicted, **over_present_classes),
        "auc": None if None in areas else np.mean([area for area in areas if area is not None]),
        "nll": image_nll(labels, scaled).mean(),
        "brier": brier_score(labels, scaled),
        "ece": expected_calibration_error(labels, scaled),
        "classwise_ece": classwise_calibration_error(labels, scaled),
    }
    return {name: None if figure is None else float(figure) for name, figure in figures.items()}


def notes(true_labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str]) -> dict[str, str]:
    """Why metrics of ``evaluate`` are null or leave out classes, by metric; empty if there are none."""
    labels, probabilities = checked_predictions(true_labels, probabilities, classes)
    images = np.bincount(labels, minlength=len(classes))
    absent = ", ".join(name for name, count in zip(classes, images, strict=True) if not count)
    found: dict[str, str] = {}
    if absent:
        found |= dict.fromkeys(("f1", "jaccard", "balanced_accuracy"), f"without {absent}: no image")
        found["auc"] = f"undefined: no image of {absent}"
    if _one_class_only(labels, probabilities.argmax(axis=1)):
        found["kappa"] = f"undefined: every image is {classes[labels[0]]} and is said to be"
    return found


def class_table(true_labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str]) -> pd.DataFrame:
    """One row per class, with one-vs-rest metrics.

    Returns:
        class, images, sensitivity, specificity, precision, f1, auc. Null values: sensitivity, F1 and AUC of a class
        without images; precision of a class that is never predicted; specificity and AUC of a class that all images
        belong to.
    """
    labels, scaled = checked_predictions(true_labels, probabilities, classes)
    confusion = confusion_counts(labels, scaled.argmax(axis=1), len(classes))
    images, predicted, hits = confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal()
    others = len(labels) - images
    return pd.DataFrame(
        {
            "class": list(classes),
            "images": images,
            "sensitivity": _ratio(hits, images),
            "specificity": _ratio(others - (predicted - hits), others),
            "precision": _ratio(hits, predicted),
            "f1": _ratio(2 * hits, np.where(images, images + predicted, 0)),
            "auc": pd.array(_class_areas(labels, probabilities), dtype="Float64"),
        }
    )


def confusion_table(true_labels: ArrayLike, predicted: ArrayLike, classes: Sequence[str]) -> pd.DataFrame:
    """The K×K confusion matrix as K² rows, in row-major order.

    Returns:
        true_class, predicted_class, count, share (of the true class's images; null if it has none).
    """
    labels, predicted = np.asarray(true_labels), np.asarray(predicted)
    problems = _label_problems(labels, len(classes))
    problems += [f"predicted {problem}" for problem in _label_problems(predicted, len(classes))]
    if labels.shape != predicted.shape:
        problems.append(f"labels {labels.shape} and predicted labels {predicted.shape} differ in shape")
    _refuse(problems)
    confusion = confusion_counts(labels, predicted, len(classes))
    table = pd.DataFrame(product(classes, repeat=2), columns=["true_class", "predicted_class"])
    images = confusion.sum(axis=1).repeat(len(classes))
    return table.assign(count=confusion.ravel(), share=_ratio(confusion.ravel(), images))


def confusion_counts(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> NDArray[np.integer]:
    """The number of images of each true (row) and predicted class, K×K."""
    return confusion_matrix(labels, predicted, labels=np.arange(num_classes))


def _one_class_only(labels: np.ndarray, predicted: np.ndarray) -> bool:
    """Whether labels and predictions are all the same class, for which kappa is 0 / 0."""
    return bool((labels == labels[0]).all() and (predicted == labels[0]).all())


def _class_areas(labels: np.ndarray, probabilities: ArrayLike) -> list[float | None]:
    """The one-vs-rest area under each class's ROC curve; None for a class with no images or with all images.

    The probabilities are not rescaled, because that could break ties.
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    positives = [labels == index for index in range(rows.shape[1])]
    return [
        float(roc_auc_score(positive, column)) if 0 < positive.sum() < len(labels) else None
        for positive, column in zip(positives, rows.T, strict=True)
    ]


def _ratio(numerators: np.ndarray, denominators: np.ndarray) -> pd.arrays.FloatingArray:
    """Elementwise ratios, null if the denominator is 0."""
    return pd.arrays.FloatingArray(numerators / np.maximum(denominators, 1), denominators == 0)
