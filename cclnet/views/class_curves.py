"""ROC and precision-recall curves of each class against the rest."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

MOST_CURVES = 10  # in one chart
MOST_POINTS = 300  # of a curve; the drawing is some hundred pixels wide
SPECIFICITIES = (0.8, 0.9, 0.95)
_ROUNDING = 1e-9


class ClassCurves(NamedTuple):
    """The curves of one class against the rest, as the threshold of its probability falls.

    Attributes:
        name: the class.
        auc: area under the ROC curve.
        average_precision: mean of the precisions, each weighted with the increase in recall.
        roc: false-positive rate and sensitivity, points × 2, from (0, 0) to (1, 1).
        precision_recall: recall and precision, points × 2, from recall 0 to 1.
        sensitivities: the highest sensitivity at each specificity of ``SPECIFICITIES`` or a higher one.
    """

    name: str
    auc: float
    average_precision: float
    roc: NDArray[np.float64]
    precision_recall: NDArray[np.float64]
    sensitivities: list[float]


def class_curves(
    labels: NDArray[np.integer], probabilities: NDArray[np.float64], classes: Sequence[str], most: int = MOST_CURVES
) -> list[ClassCurves]:
    """The curves of the classes with the most images, in the order of the data.

    Args:
        labels: n, 0 … K − 1.
        probabilities: n × K; they are not rescaled, because that could break ties.
        classes: the K names. A class that no image or every image belongs to has no curves.
        most: the largest number of classes.
    """
    images = np.bincount(labels, minlength=len(classes))
    chosen = sorted(int(place) for place in np.argsort(-images, kind="stable")[:most])
    return [
        _curves(classes[place], labels == place, probabilities[:, place])
        for place in chosen
        if 0 < images[place] < len(labels)
    ]


def average_precisions(labels: NDArray[np.integer], probabilities: NDArray[np.float64]) -> list[float | None]:
    """The average precision of each of the K classes; None for a class without images."""
    positives = [labels == place for place in range(probabilities.shape[1])]
    return [
        float(average_precision_score(positive, score)) if positive.any() else None
        for positive, score in zip(positives, probabilities.T, strict=True)
    ]


def _curves(name: str, positive: NDArray[np.bool_], score: NDArray[np.float64]) -> ClassCurves:
    false_positives, sensitivity, _ = roc_curve(positive, score, drop_intermediate=False)
    corners = np.column_stack(roc_curve(positive, score)[:2])
    precision, recall, _ = precision_recall_curve(positive, score, drop_intermediate=True)
    specific_enough = [1 - false_positives >= least - _ROUNDING for least in SPECIFICITIES]
    return ClassCurves(
        name=name,
        auc=float(roc_auc_score(positive, score)),
        average_precision=float(average_precision_score(positive, score)),
        roc=_thinned(corners),
        precision_recall=_thinned(np.column_stack([recall, precision])[::-1]),
        sensitivities=[float(sensitivity[chosen].max()) for chosen in specific_enough],
    )


def _thinned(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most ``MOST_POINTS`` of the points, with the first and the last."""
    return points[np.unique(np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int))]
