"""Calibration of probabilities: calibration errors, reliability diagram, temperature scaling.

Throughout, n is the number of images and K the number of classes, as in ``metrics.scores``.
"""

from math import log

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from cclnet.metrics.predictions import checked_predictions
from cclnet.system.errors import DataError

CALIBRATION_BINS = 15
_MOST_CELLS_AT_ONCE = 4_000_000  # images × classes: 32 MB


def reliability_table(true_labels: ArrayLike, probabilities: ArrayLike, bins: int = CALIBRATION_BINS) -> pd.DataFrame:
    """The data of a reliability diagram: the images binned by the probability of their predicted class.

    Returns:
        bin (1 … bins; see ``confidence_bins``), confidence and accuracy (means over the bin), count. Empty bins are
        left out.
    """
    labels, probabilities = checked_predictions(true_labels, probabilities)
    confidence = probabilities.max(axis=1)
    images = pd.DataFrame(
        {
            "bin": 1 + confidence_bins(confidence, bins),
            "confidence": confidence,
            "accuracy": probabilities.argmax(axis=1) == labels,
        }
    )
    return images.groupby("bin", as_index=False).agg(
        confidence=("confidence", "mean"), accuracy=("accuracy", "mean"), count=("bin", "size")
    )


def expected_calibration_error(true_labels: ArrayLike, probabilities: ArrayLike, bins: int = CALIBRATION_BINS) -> float:
    """Mean gap between confidence and accuracy over the bins, weighted by their size (Guo et al., ICML 2017)."""
    labels, probabilities = checked_predictions(true_labels, probabilities)
    return _calibration_gap(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, bins)


def classwise_calibration_error(
    true_labels: ArrayLike, probabilities: ArrayLike, bins: int = CALIBRATION_BINS
) -> float:
    """The calibration error of each class's probability over all images, averaged over the K classes.

    See Kull et al., NeurIPS 2019. Classes without images are included: their probability should equal their frequency,
    0.
    """
    labels, probabilities = checked_predictions(true_labels, probabilities)
    gaps = [_calibration_gap(column, labels == index, bins) for index, column in enumerate(probabilities.T)]
    return float(np.mean(gaps))


def brier_score(true_labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean of ``image_brier`` over the images: 0 is perfect, 2 is always certain and wrong (Brier, 1950)."""
    return float(image_brier(*checked_predictions(true_labels, probabilities)).mean())


def image_brier(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
    """The sum over the K classes of (probability − truth)², for each image (n), in [0, 2]."""
    brier = np.empty(len(labels), dtype=probabilities.dtype)
    at_once = max(1, _MOST_CELLS_AT_ONCE // probabilities.shape[1])
    for first in range(0, len(labels), at_once):
        block = slice(first, first + at_once)
        differences = probabilities[block].copy()
        differences[np.arange(len(differences)), labels[block]] -= 1
        brier[block] = (differences**2).sum(axis=1)
    return brier


def image_nll(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
    """−log of the probability of the true class, in nats, for each image (n).

    As in scikit-learn's log_loss, a probability of 0 is replaced by float64's epsilon (36.04 nats).
    """
    return -np.log(probabilities[np.arange(len(labels)), labels].clip(np.finfo(np.float64).eps))


def confidence_bins(confidence: NDArray[np.floating], bins: int = CALIBRATION_BINS) -> NDArray[np.integer]:
    """The bin 0 … bins−1 of each probability (n): bin b is (b / bins, (b + 1) / bins]; the first one includes 0."""
    return np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)


def _calibration_gap(confidence: np.ndarray, hits: np.ndarray, bins: int) -> float:
    # count/n · |accuracy − confidence| of a bin is |sum of its differences| / n, also for empty bins
    differences = np.bincount(confidence_bins(confidence, bins), weights=hits - confidence, minlength=bins)
    return float(np.abs(differences).sum() / len(confidence))


def fit_temperature(logits: ArrayLike, true_labels: ArrayLike) -> float:
    """The temperature in [0.01, 100] that minimises the NLL of softmax(logits / T) (Guo et al., ICML 2017).

    Fit it on images other than those used for evaluation. Log-probabilities (n×K) can be used as logits. If all images
    are classified correctly, there is no minimum, and T is so small that the NLL is 0.
    """
    scores = _checked_logits(logits)
    labels, _ = checked_predictions(true_labels, softmax(scores, axis=1))
    true_scores = scores[np.arange(len(labels)), labels]

    def nll(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        return float((logsumexp(scores / temperature, axis=1) - true_scores / temperature).mean())

    fit = minimize_scalar(nll, bounds=(log(0.01), log(100)), method="bounded", options={"xatol": 1e-8})
    return float(np.exp(fit.x))


def apply_temperature(logits: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """The probabilities softmax(logits / temperature), n×K; the predicted classes do not change."""
    if not temperature > 0:
        raise DataError(f"a temperature must be above 0, not {temperature}")
    return softmax(_checked_logits(logits) / temperature, axis=1)


def _checked_logits(logits: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(logits, dtype=np.float64)
    if scores.ndim != 2 or not np.isfinite(scores).all():
        raise DataError("logits must be images × classes and finite: a probability of 0 has no logarithm")
    return scores
