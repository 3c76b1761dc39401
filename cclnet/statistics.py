"""What a difference, an agreement or a matrix is worth: intervals, paired tests, and soft labels against class counts.

K is the number of classes, n of images. What is random takes a seed; everything else is exact.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from math import log, sqrt
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import orth
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax
from scipy.stats import binomtest, rankdata

from cclnet.errors import DataError
from cclnet.metrics import CALIBRATION_BINS, checked_predictions, confidence_bins, image_brier, image_nll

RESAMPLES = 2_000
BLOCK = 250  # resamples at once: their weights for every image are what memory goes to
SAMPLED_ORDERS = 9_999
LARGEST_EXACT = 8  # classes; 8! = 40,320 orders
REORDERED_CELLS = 4_000_000  # at once: 32 MB

Statistic = Callable[[NDArray[np.float64]], dict[str, NDArray[np.float64]]]
"""Figures by name, one value per resample (NaN where undefined), from resamples × n: how often each image was drawn."""


class Interval(NamedTuple):
    """A figure of the data themselves and the 2.5 and 97.5 percentiles over the resamples."""

    estimate: float
    low: float
    high: float


class Difference(NamedTuple):
    """``Interval`` of a − b, and the two-sided p of no difference."""

    estimate: float
    low: float
    high: float
    p: float


class McNemar(NamedTuple):
    """Images that a alone and that b alone got right, and the exact two-sided p."""

    only_a: int
    only_b: int
    p: float


class MantelTest(NamedTuple):
    """Spearman's correlation, and how often another order of the classes does as well.

    ``p_greater`` counts the orders whose correlation is at least the observed one, ``p_two_sided`` those that are at
    least as far from 0. The observed order is one of the orders, so neither is ever 0.
    """

    correlation: float | None
    p_greater: float
    p_two_sided: float


class CountShare(NamedTuple):
    """How much of a matrix the class counts alone explain: R² in [0, 1].

    ``beyond`` is 1 − ``explained``: how far the matrix is from what counts alone give. ``by_chance`` is the mean of
    ``explained`` over all orders of the classes, what unrelated counts would explain; ``p`` is the share of orders that
    explain at least as much as the true one.
    """

    explained: float
    beyond: float
    by_chance: float
    p: float


def off_diagonal(matrix: ArrayLike) -> NDArray[np.float64]:
    """The K(K−1) cells off the diagonal of a K×K matrix, row by row.

    Raises:
        DataError: it is not square, has fewer than two classes, or one of these cells is not finite.
    """
    cells = np.asarray(matrix, dtype=np.float64)
    if cells.ndim != 2 or cells.shape[0] != cells.shape[1] or len(cells) < 2:
        raise DataError(f"a matrix of classes has the shape {cells.shape}, not classes × classes (at least 2)")
    cells = cells[~np.eye(len(cells), dtype=bool)]
    if not np.isfinite(cells).all():
        raise DataError(f"{(~np.isfinite(cells)).sum()} off-diagonal cells of a matrix of classes are not finite")
    return cells


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float | None:
    """Spearman's correlation over the off-diagonal cells of two K×K matrices; None if either's are all equal."""
    ranks_a, ranks_b = _centred_ranks(a), _centred_ranks(b)
    if ranks_a.shape != ranks_b.shape:
        raise DataError(f"matrices of different classes cannot be compared: {ranks_a.shape} and {ranks_b.shape}")
    variation = sqrt(int((ranks_a**2).sum()) * int((ranks_b**2).sum()))
    return float((ranks_a * ranks_b).sum() / variation) if variation else None


def mantel_test(a: ArrayLike, b: ArrayLike, seed: int = 0) -> MantelTest:
    """Test ``rank_correlation`` by giving b's rows and columns every other order of the classes (Mantel, 1967).

    Cells that share a class are not independent, so the usual p of a correlation does not hold. Exact up to eight
    classes (all K! orders, 5,040 for seven); above, 9,999 seeded orders and the observed one.
    """
    correlation = rank_correlation(a, b)
    ranks_a, ranks_b = _centred_ranks(a), _centred_ranks(b)
    blocks = _reordered(ranks_b, _orders(len(ranks_b), seed))
    agreements = np.concatenate([np.einsum("ij,oij->o", ranks_a, block) for block in blocks])
    return MantelTest(
        correlation,
        p_greater=float((agreements >= agreements[0]).mean()),
        p_two_sided=float((np.abs(agreements) >= abs(agreements[0])).mean()),
    )


def count_pattern(counts: ArrayLike) -> NDArray[np.float64]:
    """The K×K matrix that follows counts alone, 1 / (n_i n_j): the rarer two classes, the more alike they seem.

    Rare classes are all pushed away from the frequent ones and so towards each other, whatever they look like
    (minority collapse; Fang et al., PNAS 2021). Only the order of its cells is meant: compare by rank.
    """
    images = _checked_counts(counts)
    return 1 / np.outer(images, images)


def share_explained_by_counts(matrix: ArrayLike, counts: ArrayLike, seed: int = 0) -> CountShare | None:
    """The share of the variance of the ranks of a matrix's off-diagonal cells that class counts (K) alone explain.

    It is R² of the least-squares regression of the ranks of the cells (i, j) on r_i, r_j and r_i r_j, r being the
    centred ranks of the counts. Why the product: if its frequency alone decides how far an embedding leans towards the
    mean feature, by s_i, and the rest of it points anywhere, then cos(c_i, c_j) is s_i s_j on average. Three regressors
    explain something of any matrix, hence ``by_chance``. Orders as in ``mantel_test``. None if all cells are equal, or
    two at all: whichever is larger, counts that differ would explain it wholly.
    """
    ranks, images = _centred_ranks(matrix), _checked_counts(counts)
    if len(images) != len(ranks):
        raise DataError(f"{len(images)} class counts for a matrix of the shape {ranks.shape}")
    if not ranks.any() or len(images) == 2:
        return None
    rank = rankdata(images) - (len(images) + 1) / 2
    row, column = np.meshgrid(rank, rank, indexing="ij")
    regressors = np.column_stack([off_diagonal(term) for term in (row, column, row * column)])
    basis = orth(regressors - regressors.mean(axis=0))
    cells = ~np.eye(len(ranks), dtype=bool)
    blocks = _reordered(ranks, _orders(len(ranks), seed))
    explained = np.concatenate([((block[:, cells] @ basis) ** 2).sum(axis=1) for block in blocks]) / (ranks**2).sum()
    rounding = 1e-9
    return CountShare(
        explained=float(explained[0]),
        beyond=float(1 - explained[0]),
        by_chance=float(explained.mean()),
        p=float((explained >= explained[0] - rounding).mean()),
    )


def confused_similarity(confusion: ArrayLike) -> NDArray[np.float64] | None:
    """How alike a classifier finds two classes: the mean of P(predicted j | i) and P(predicted i | j), K×K, symmetric.

    Args:
        confusion: images by true class (row) and predicted class.

    Returns:
        None if a class has no images.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    images = counts.sum(axis=1, keepdims=True)
    if not images.all():
        return None
    rates = counts / images
    return (rates + rates.T) / 2


def notes(matrix: ArrayLike, counts: ArrayLike, similarity: ArrayLike | None, classes: Sequence[str]) -> dict[str, str]:
    """Why ``not_explained_by_counts`` and ``follows_confusion`` of a soft-label matrix are null, as ``metrics.notes``.

    Args:
        matrix: the soft labels, K×K.
        counts: training images of each class, K.
        similarity: what ``confused_similarity`` gives for the validation images.
        classes: the K names.
    """
    if len(classes) == 2:
        return dict.fromkeys(("not_explained_by_counts", "follows_confusion"), "undefined: two classes are one pair")
    if not _centred_ranks(matrix).any():
        reason = "undefined: the labels hold no class for more alike than another"
        return dict.fromkeys(("not_explained_by_counts", "follows_confusion"), reason)
    found: dict[str, str] = {}
    if absent := ", ".join(name for name, count in zip(classes, np.asarray(counts), strict=True) if not count):
        found["not_explained_by_counts"] = f"undefined: no training image of {absent}"
    if similarity is None:
        found["follows_confusion"] = "undefined: a class has no validation image"
    elif not _centred_ranks(similarity).any():
        found["follows_confusion"] = "undefined: no two classes are confused more often than others"
    return found


def weighted_scores(true_labels: ArrayLike, probabilities: ArrayLike) -> Statistic:
    """The figures of ``metrics.evaluate`` but AUC and classwise ECE for many resamples of the images at once.

    With every weight 1 they are those of ``evaluate``; with whole weights, those of the images repeated so often.
    """
    labels, probabilities = checked_predictions(true_labels, probabilities)
    num_classes = probabilities.shape[1]
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    cells = np.eye(num_classes**2)[labels * num_classes + predicted]  # n × K²
    losses = np.column_stack([image_nll(labels, probabilities), image_brier(labels, probabilities)])  # n × 2
    hits_beyond_confidence = ((predicted == labels) - confidence)[:, None]
    gaps = np.eye(CALIBRATION_BINS)[confidence_bins(confidence)] * hits_beyond_confidence  # n × bins

    def statistic(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        if weights.shape[1] != len(labels):
            raise DataError(f"{weights.shape[1]} images are resampled, {len(labels)} were predicted")
        images = weights.sum(axis=1)
        nll, brier = (weights @ losses).T / images
        ece = np.abs(weights @ gaps).sum(axis=1) / images
        confusions = (weights @ cells).reshape(-1, num_classes, num_classes)
        return _confusion_scores(confusions) | {"nll": nll, "brier": brier, "ece": ece}

    return statistic


def clustered_bootstrap(
    statistic: Statistic, clusters: ArrayLike, n_resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval | None]:
    """95 % percentile intervals of every figure of ``statistic``, drawing whole clusters with replacement.

    Images of one lesion are no independent evidence: the lesion is what is drawn, with all of its images.

    Args:
        statistic: the figures, for example ``weighted_scores(labels, probabilities)``.
        clusters: the lesion of each image (n), of any hashable kind.
        n_resamples: how many times as many clusters as there are get drawn.
        seed: the same seed gives the same draws, whatever the statistic.

    Returns:
        None for a figure that the data leave undefined; resamples that leave it undefined do not count.
    """
    return {
        name: _interval(estimate, values) if values.size else None
        for name, (estimate, values) in _resampled(statistic, clusters, n_resamples, seed).items()
    }


def paired_bootstrap(
    statistic_a: Statistic, statistic_b: Statistic, clusters: ArrayLike, n_resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Difference | None]:
    """``clustered_bootstrap`` of the differences a − b on the same images, each resample drawn for both.

    p is twice the share of resamples on the rarer side of 0 (both sides count 0; one is added to each, so that it is
    never 0), at most 1.
    """

    def statistic(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        figures_a, figures_b = statistic_a(weights), statistic_b(weights)
        return {name: figures_a[name] - figures_b[name] for name in figures_a}

    differences: dict[str, Difference | None] = {}
    for name, (estimate, values) in _resampled(statistic, clusters, n_resamples, seed).items():
        rarer = min((values <= 0).sum(), (values >= 0).sum())
        p = min(1.0, float(2 * (1 + rarer) / (1 + values.size)))
        differences[name] = Difference(*_interval(estimate, values), p) if values.size else None
    return differences


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """McNemar's exact test that two classifiers are right equally often on the same images (booleans, n each).

    It takes the images to be independent; where lesions have several, ``paired_bootstrap`` is the safer of the two.
    """
    right_a, right_b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if right_a.shape != right_b.shape:
        raise DataError(f"{right_a.size} and {right_b.size} images cannot be paired: predict the same ones with both")
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    discordant = only_a + only_b
    return McNemar(only_a, only_b, float(binomtest(only_a, discordant).pvalue) if discordant else 1.0)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """The p values (m) adjusted for being m, in their own order (Holm, 1979): reject those below the level."""
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise DataError("p values to adjust must be a list of numbers in [0, 1]")
    order = p.argsort(kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


def mean_and_deviation(values: ArrayLike) -> tuple[float, float | None]:
    """The mean over repetitions and their sample standard deviation (ddof 1), None for a single one."""
    repetitions = np.asarray(values, dtype=np.float64)
    if repetitions.ndim != 1 or not repetitions.size or not np.isfinite(repetitions).all():
        raise DataError("the values to average must be a list of at least one finite number")
    return float(repetitions.mean()), float(repetitions.std(ddof=1)) if repetitions.size > 1 else None


def fit_temperature(logits: ArrayLike, true_labels: ArrayLike) -> float:
    """The temperature in [0.01, 100] that minimises the NLL of softmax(logits / T) (Guo et al., ICML 2017).

    Fit it on other images than those it is judged on. Log-probabilities (n×K) serve as logits. Where every image is
    right there is no minimum, and T is one so small that the NLL is 0.
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
    """The probabilities softmax(logits / temperature), n×K; the predicted classes stay what they were."""
    if not temperature > 0:
        raise DataError(f"a temperature must be above 0, not {temperature}")
    return softmax(_checked_logits(logits) / temperature, axis=1)


def _checked_logits(logits: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(logits, dtype=np.float64)
    if scores.ndim != 2 or not np.isfinite(scores).all():
        raise DataError("logits must be images × classes and finite: a probability of 0 has no logarithm")
    return scores


def _checked_counts(counts: ArrayLike) -> NDArray[np.float64]:
    images = np.asarray(counts, dtype=np.float64)
    if images.ndim != 1 or not ((images > 0) & np.isfinite(images)).all():
        raise DataError(f"class counts must be one positive number per class, not {images.tolist()}")
    return images


def _centred_ranks(matrix: ArrayLike) -> NDArray[np.int64]:
    """Twice the ranks of the off-diagonal cells less their mean: whole numbers, so that sums of products are exact."""
    cells = off_diagonal(matrix)
    ranks = np.zeros(np.shape(matrix), dtype=np.int64)
    ranks[~np.eye(len(ranks), dtype=bool)] = 2 * rankdata(cells) - (cells.size + 1)
    return ranks


def _orders(num_classes: int, seed: int) -> NDArray[np.integer]:
    """Orders × K, the identity first: all of them where they are few enough, a seeded sample where not."""
    identity = np.arange(num_classes)
    if num_classes <= LARGEST_EXACT:
        return np.array(list(permutations(range(num_classes))))
    shuffled = np.random.default_rng(seed).permuted(np.tile(identity, (SAMPLED_ORDERS, 1)), axis=1)
    return np.vstack([identity, shuffled])


def _reordered(matrix: NDArray[np.int64], orders: NDArray[np.integer]) -> Iterator[NDArray[np.int64]]:
    """Rows and columns alike in every order: orders × K × K, in blocks that the memory holds."""
    at_once = max(1, REORDERED_CELLS // matrix.size)
    for first in range(0, len(orders), at_once):
        block = orders[first : first + at_once]
        yield matrix[block[:, :, None], block[:, None, :]]


def _confusion_scores(confusions: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Figures of confusion matrices (resamples × K × K, true class first), macro over the classes with images."""
    hits = confusions.diagonal(axis1=1, axis2=2)  # resamples × K
    images, predicted = confusions.sum(axis=2), confusions.sum(axis=1)
    total, present = images.sum(axis=1), (images > 0).sum(axis=1)

    def macro(numerators: NDArray[np.float64], denominators: NDArray[np.float64]) -> NDArray[np.float64]:
        # a class without images has no hits either, so it adds 0 / 1
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
    """Each figure of the data themselves and of the resamples that define it (none if the data do not)."""
    cluster_of_image, names = pd.factorize(np.asarray(clusters))
    if not cluster_of_image.size or cluster_of_image.min() < 0:
        raise DataError("the bootstrap needs the cluster (lesion) of every image: some or all have none")
    generator = np.random.default_rng(seed)
    estimates = statistic(np.ones((1, len(cluster_of_image))))
    blocks: list[dict[str, NDArray[np.float64]]] = []
    for first in range(0, n_resamples, BLOCK):
        draws = generator.integers(len(names), size=(min(BLOCK, n_resamples - first), len(names)))
        times_drawn = np.stack([np.bincount(draw, minlength=len(names)) for draw in draws])
        blocks.append(statistic(times_drawn[:, cluster_of_image].astype(np.float64)))
    values = {name: np.concatenate([block[name] for block in blocks]) for name in estimates}
    return {
        name: (float(estimate[0]), values[name][np.isfinite(values[name]) & np.isfinite(estimate[0])])
        for name, estimate in estimates.items()
    }


def _interval(estimate: float, values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(estimate, float(low), float(high))
