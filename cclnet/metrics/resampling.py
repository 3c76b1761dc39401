"""Statistical inference: bootstrap intervals over lesions, paired tests, corrections for multiple tests."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.stats import binomtest

from cclnet.metrics.calibration import CALIBRATION_BINS, confidence_bins, image_brier, image_nll
from cclnet.metrics.predictions import checked_predictions
from cclnet.system.errors import DataError

RESAMPLES = 2_000
MOST_RESAMPLES_AT_ONCE = 250
MOST_WEIGHTS_AT_ONCE = 8_000_000
"""Resamples × images per block: limits each array to 64 MB, for any number of images."""

Statistic = Callable[[NDArray[np.float64]], dict[str, NDArray[np.float64]]]
"""Maps weights (resamples × n: how often each image was drawn) to metrics: name → a value per resample or NaN."""


class Interval(NamedTuple):
    """A metric of the original data and its 2.5 and 97.5 percentiles over the resamples."""

    estimate: float
    low: float
    high: float


class Difference(NamedTuple):
    """``Interval`` of a − b, and the two-sided p-value of no difference."""

    estimate: float
    low: float
    high: float
    p: float


class McNemar(NamedTuple):
    """The numbers of images that only a and only b classified correctly, and the exact two-sided p-value."""

    only_a: int
    only_b: int
    p: float


def weighted_scores(true_labels: ArrayLike, probabilities: ArrayLike) -> Statistic:
    """The metrics of ``metrics.evaluate``, except AUC and classwise ECE, for many resamples of the images at once.

    With all weights 1, they equal those of ``evaluate``; with integer weights, those of images repeated accordingly.
    Time and memory grow with the number of images and of classes, not with the pairs of classes.
    """
    labels, probabilities = checked_predictions(true_labels, probabilities)
    num_classes = probabilities.shape[1]
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    hits = predicted == labels
    of_class, of_prediction = _members(labels, num_classes), _members(predicted, num_classes)
    of_hit = _members(labels, num_classes, hits)
    losses = np.column_stack([image_nll(labels, probabilities), image_brier(labels, probabilities)])  # n × 2
    gaps = np.eye(CALIBRATION_BINS)[confidence_bins(confidence)] * (hits - confidence)[:, None]  # n × bins

    def statistic(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        if weights.shape[1] != len(labels):
            raise DataError(f"{weights.shape[1]} images are resampled, {len(labels)} were predicted")
        images = weights.sum(axis=1)
        nll, brier = (weights @ losses).T / images
        ece = np.abs(weights @ gaps).sum(axis=1) / images
        counts = (_counts(weights, members) for members in (of_hit, of_class, of_prediction))
        return _class_scores(*counts) | {"nll": nll, "brier": brier, "ece": ece}

    return statistic


def clustered_bootstrap(
    statistic: Statistic, clusters: ArrayLike, n_resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval | None]:
    """95 % percentile intervals of every metric of ``statistic`` from a cluster bootstrap.

    Images of one lesion are not independent, so whole lesions are drawn with replacement, with all of their images.

    Args:
        statistic: the metrics, for example ``weighted_scores(labels, probabilities)``.
        clusters: the lesion of each image (n), of any hashable type.
        n_resamples: number of resamples; each draws as many clusters as there are.
        seed: the same seed gives the same resamples, independent of the statistic.

    Returns:
        None for a metric that is undefined for the data; resamples for which it is undefined are ignored.
    """
    return {
        name: _interval(estimate, values) if values.size else None
        for name, (estimate, values) in _resampled(statistic, clusters, n_resamples, seed).items()
    }


def paired_bootstrap(
    statistic_a: Statistic, statistic_b: Statistic, clusters: ArrayLike, n_resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Difference | None]:
    """``clustered_bootstrap`` of the differences a − b on the same images, with the same resamples for both.

    p is twice the share of resamples on the less frequent side of 0, at most 1. Values of 0 count for both sides, and
    one is added to the counts, so that p is never 0.
    """

    def statistic(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        figures_a, figures_b = statistic_a(weights), statistic_b(weights)
        return {name: figures_a[name] - figures_b[name] for name in figures_a}

    return {
        name: _difference(estimate, values) if values.size else None
        for name, (estimate, values) in _resampled(statistic, clusters, n_resamples, seed).items()
    }


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """McNemar's exact test that two classifiers are equally accurate on the same images (booleans, n each).

    It assumes independent images; if lesions have several images, ``paired_bootstrap`` is preferable.
    """
    right_a, right_b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if right_a.shape != right_b.shape:
        raise DataError(f"{right_a.size} and {right_b.size} images cannot be paired: predict the same ones with both")
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    discordant = only_a + only_b
    return McNemar(only_a, only_b, float(binomtest(only_a, discordant).pvalue) if discordant else 1.0)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """The m p-values adjusted for multiple testing (Holm, 1979), in their order; reject those below the level."""
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise DataError("p values to adjust must be a list of numbers in [0, 1]")
    order = p.argsort(kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


def mean_and_deviation(values: ArrayLike) -> tuple[float, float | None]:
    """The mean over repetitions and the sample standard deviation (ddof 1), which is None for a single one."""
    repetitions = np.asarray(values, dtype=np.float64)
    if repetitions.ndim != 1 or not repetitions.size or not np.isfinite(repetitions).all():
        raise DataError("the values to average must be a list of at least one finite number")
    return float(repetitions.mean()), float(repetitions.std(ddof=1)) if repetitions.size > 1 else None


def _members(groups: NDArray[np.integer], num_groups: int, counted: ArrayLike = True) -> csr_array:
    """n × groups: 1 if an image is in a group and counted."""
    images = len(groups)
    ones = np.broadcast_to(np.asarray(counted, dtype=np.float64), images)
    return csr_array((ones, (np.arange(images), groups)), shape=(images, num_groups))


def _counts(weights: NDArray[np.float64], members: csr_array) -> NDArray[np.float64]:
    """The number of images of each group in every resample, resamples × groups; exact for integer weights."""
    return np.ascontiguousarray(weights @ members)  # keeps the order of summation over a row


def _class_scores(
    hits: NDArray[np.float64], images: NDArray[np.float64], predicted: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Metrics from the counts of each class (resamples × K), with macro averages over the classes with images."""
    total, present = images.sum(axis=1), (images > 0).sum(axis=1)

    def macro(numerators: NDArray[np.float64], denominators: NDArray[np.float64]) -> NDArray[np.float64]:
        # a class without images has no hits, so it adds 0 / 1
        return (numerators / np.maximum(denominators, 1)).sum(axis=1) / present

    accuracy = hits.sum(axis=1) / total
    chance = (images * predicted).sum(axis=1) / total**2
    return {
        "accuracy": accuracy,
        "f1": macro(2 * hits, images + predicted),
        "kappa": np.divide(accuracy - chance, 1 - chance, out=np.full(len(total), np.nan), where=chance < 1),
        "jaccard": macro(hits, images + predicted - hits),
        "balanced_accuracy": macro(hits, images),
    }


def _resampled(
    statistic: Statistic, clusters: ArrayLike, n_resamples: int, seed: int
) -> dict[str, tuple[float, NDArray[np.float64]]]:
    """Each metric of the original data and of the resamples for which it is defined (empty if it is undefined)."""
    cluster_of_image, generator = _clusters(clusters), np.random.default_rng(seed)
    estimates = statistic(np.ones((1, len(cluster_of_image))))
    blocks = [statistic(weights) for weights in _drawn_weights(cluster_of_image, n_resamples, generator)]
    values = {name: np.concatenate([block[name] for block in blocks]) for name in estimates}
    return {
        name: (float(estimate[0]), values[name][np.isfinite(values[name]) & np.isfinite(estimate[0])])
        for name, estimate in estimates.items()
    }


def _interval(estimate: float, values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(estimate, float(low), float(high))


REPORTED_RESAMPLES = 20_000
"""Used for published numbers: with 2,000 resamples, a p of .05 may become .03 or .08 after correction."""


class RepeatedDifference(NamedTuple):
    """A difference, averaged over repetitions (seeds), with its uncertainty.

    Attributes:
        fixed: only the images are resampled: the result applies to these runs.
        hierarchical: the repetitions are resampled too: the result applies to other runs. None for a single repetition.
        smallest_p: the smallest p-value possible with this number of resamples; such a p means "at most".
    """

    fixed: Difference
    hierarchical: Difference | None
    smallest_p: float


def resampled_figures(
    statistic: Statistic, clusters: ArrayLike, n_resamples: int = REPORTED_RESAMPLES, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Every metric of the original data, followed by that of each resample of the clusters: 1 + n_resamples values.

    The same clusters and seed give the same resamples for any statistic, so metrics of several classifiers may be
    subtracted. Undefined values are NaN. Otherwise this is like ``clustered_bootstrap``.
    """
    cluster_of_image, generator = _clusters(clusters), np.random.default_rng(seed)
    blocks = [statistic(np.ones((1, len(cluster_of_image))))]
    blocks += [statistic(weights) for weights in _drawn_weights(cluster_of_image, n_resamples, generator)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def repeated_difference(differences: ArrayLike, seed: int = 0) -> RepeatedDifference | None:
    """Intervals of a difference that was measured in several repetitions on the same images.

    For the hierarchical interval, each resample of the images is averaged over repetitions drawn with replacement. S −
    1 of the S repetitions are drawn: then the variance over the draws is that of the mean of the repetitions, s² / S,
    and not (S − 1) / S of it (McCarthy and Snowden, 1985).

    Args:
        differences: S repetitions × (1 + resamples); each row is a difference of results of ``resampled_figures``.
        seed: seed of the draws of repetitions.

    Returns:
        None if the difference is undefined for the data; resamples for which it is undefined are ignored.
    """
    table = np.asarray(differences, dtype=np.float64)
    repetitions, resamples = len(table), table.shape[1] - 1
    estimate = float(table[:, 0].mean())
    if not np.isfinite(estimate):
        return None
    fixed = _difference(estimate, table[:, 1:].mean(axis=0))
    hierarchical = None
    if repetitions > 1:
        drawn = np.random.default_rng(seed).integers(repetitions, size=(repetitions - 1, resamples))
        values = np.take_along_axis(table[:, 1:], drawn, axis=0).mean(axis=0)
        hierarchical = _difference(estimate, values)
    return RepeatedDifference(fixed, hierarchical, smallest_p=2 / (1 + resamples))


def _difference(estimate: float, values: NDArray[np.float64]) -> Difference:
    finite = values[np.isfinite(values)]
    rarer = min((finite <= 0).sum(), (finite >= 0).sum())
    return Difference(*_interval(estimate, finite), p=min(1.0, float(2 * (1 + rarer) / (1 + finite.size))))


def _clusters(clusters: ArrayLike) -> NDArray[np.intp]:
    """The cluster index of each image."""
    numbers, _ = pd.factorize(np.asarray(clusters))
    if not numbers.size or numbers.min() < 0:
        raise DataError("the bootstrap needs the cluster (lesion) of every image: some or all have none")
    return numbers


def _drawn_weights(
    cluster_of_image: NDArray[np.intp], n_resamples: int, generator: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """Yield how often each image was drawn, resamples × n, in blocks of limited size."""
    count, images = int(cluster_of_image.max()) + 1, len(cluster_of_image)
    at_once = min(MOST_RESAMPLES_AT_ONCE, max(1, MOST_WEIGHTS_AT_ONCE // images))
    for first in range(0, n_resamples, at_once):
        weights = np.empty((min(at_once, n_resamples - first), images))
        for row in weights:
            times_drawn = np.bincount(generator.integers(count, size=count), minlength=count)
            row[:] = times_drawn[cluster_of_image]
        yield weights
