"""What a K × K matrix of classes follows: another matrix, the class counts, or nothing.

Permutation tests go through all orders of the classes up to ``LARGEST_EXACT`` classes, and through a sample above.
"""

from collections.abc import Iterator, Sequence
from itertools import permutations
from math import factorial, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import orth
from scipy.stats import rankdata

from cclnet.system.errors import DataError

LARGEST_EXACT = 8  # classes; 8! = 40,320 orders
SAMPLED_ORDERS = 9_999
FEWEST_ORDERS = 999  # the smallest p is .001
MOST_REORDERED_CELLS = 1_000_000_000  # ten seconds: 9,999 orders of up to 316 classes, 1,000 orders of 1,000
REORDERED_CELLS = 4_000_000  # at once: 32 MB


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
    """The K(K−1) entries off the diagonal of a K×K matrix, row by row.

    Raises:
        DataError: it is not square, has fewer than two classes, or one of these entries is not finite.
    """
    entries = np.asarray(matrix, dtype=np.float64)
    if entries.ndim != 2 or entries.shape[0] != entries.shape[1] or len(entries) < 2:
        raise DataError(f"a matrix of classes has the shape {entries.shape}, not classes × classes (at least 2)")
    entries = entries[~np.eye(len(entries), dtype=bool)]
    if not np.isfinite(entries).all():
        raise DataError(f"{(~np.isfinite(entries)).sum()} off-diagonal entries of a matrix of classes are not finite")
    return entries


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float | None:
    """Spearman's correlation over the off-diagonal entries of two K×K matrices; None if either's are all equal."""
    ranks_a, ranks_b = _centred_ranks(a), _centred_ranks(b)
    if ranks_a.shape != ranks_b.shape:
        raise DataError(f"matrices of different classes cannot be compared: {ranks_a.shape} and {ranks_b.shape}")
    variation = sqrt(int((ranks_a**2).sum()) * int((ranks_b**2).sum()))
    return float((ranks_a * ranks_b).sum() / variation) if variation else None


def mantel_test(a: ArrayLike, b: ArrayLike, seed: int = 0) -> MantelTest:
    """Test ``rank_correlation`` by giving b's rows and columns every other order of the classes (Mantel, 1967).

    Entries that share a class are not independent, so the usual p of a correlation does not hold. Exact up to eight
    classes (all K! orders, 5,040 for seven); above, seeded orders and the observed one: see ``number_of_orders``.
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
    (minority collapse; Fang et al., PNAS 2021). Only the order of its entries is meant: compare by rank.
    """
    images = _checked_counts(counts)
    return 1 / np.outer(images, images)


def share_explained_by_counts(matrix: ArrayLike, counts: ArrayLike, seed: int = 0) -> CountShare | None:
    """The share of the variance of the ranks of a matrix's off-diagonal entries that class counts (K) alone explain.

    It is R² of the least-squares regression of the ranks of the entries (i, j) on r_i, r_j and r_i r_j, r being the
    centred ranks of the counts. Why the product: if its frequency alone decides how far an embedding leans towards the
    mean feature, by s_i, and the rest of it points anywhere, then cos(c_i, c_j) is s_i s_j on average. Three regressors
    explain something of any matrix, hence ``by_chance``. Orders as in ``mantel_test``. None if all entries are equal,
    or two at all: whichever is larger, counts that differ would explain it wholly.
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
    entries = ~np.eye(len(ranks), dtype=bool)
    blocks = _reordered(ranks, _orders(len(ranks), seed))
    explained = np.concatenate([((block[:, entries] @ basis) ** 2).sum(axis=1) for block in blocks]) / (ranks**2).sum()
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
    """Why scores of a soft-label matrix are undefined, by name; empty when none is.

    Args:
        matrix: the soft labels, K×K.
        counts: training images of each class, K.
        similarity: what ``confused_similarity`` gives for the validation images.
        classes: the K names.
    """
    names = ("not_explained_by_counts", "follows_confusion", "follows_features", "planted_similarity")
    if len(classes) == 2:
        return dict.fromkeys(names, "undefined: two classes are one pair")
    if not _centred_ranks(matrix).any():
        return dict.fromkeys(names, "undefined: no two classes are more alike than others in the labels")
    found: dict[str, str] = {}
    if absent := ", ".join(name for name, count in zip(classes, np.asarray(counts), strict=True) if not count):
        found["not_explained_by_counts"] = f"undefined: no training image of {absent}"
    if similarity is None:
        found["follows_confusion"] = "undefined: a class has no validation image"
    elif not _centred_ranks(similarity).any():
        found["follows_confusion"] = "undefined: no two classes are confused more often than others"
    return found


def number_of_orders(num_classes: int) -> int:
    """How many orders of the classes, the observed one among them, a permutation test goes through."""
    if num_classes <= LARGEST_EXACT:
        return factorial(num_classes)
    affordable = MOST_REORDERED_CELLS // num_classes**2
    return 1 + min(SAMPLED_ORDERS, max(FEWEST_ORDERS, affordable))


def _checked_counts(counts: ArrayLike) -> NDArray[np.float64]:
    images = np.asarray(counts, dtype=np.float64)
    if images.ndim != 1 or not ((images > 0) & np.isfinite(images)).all():
        raise DataError(f"class counts must be one positive number per class, not {images.tolist()}")
    return images


def _centred_ranks(matrix: ArrayLike) -> NDArray[np.int64]:
    """Twice the ranks of the off-diagonal entries less their mean: whole numbers, so sums of products are exact."""
    entries = off_diagonal(matrix)
    ranks = np.zeros(np.shape(matrix), dtype=np.int64)
    ranks[~np.eye(len(ranks), dtype=bool)] = 2 * rankdata(entries) - (entries.size + 1)
    return ranks


def _orders(num_classes: int, seed: int) -> NDArray[np.integer]:
    """Orders × K, the identity first: all of them where they are few enough, a seeded sample where not."""
    identity = np.arange(num_classes)
    if num_classes <= LARGEST_EXACT:
        return np.array(list(permutations(range(num_classes))))
    sampled = number_of_orders(num_classes) - 1
    shuffled = np.random.default_rng(seed).permuted(np.tile(identity, (sampled, 1)), axis=1)
    return np.vstack([identity, shuffled])


def _reordered(matrix: NDArray[np.int64], orders: NDArray[np.integer]) -> Iterator[NDArray[np.int64]]:
    """The matrix with its rows and columns in every order: orders × K × K, in blocks of ``REORDERED_CELLS``."""
    at_once = max(1, REORDERED_CELLS // matrix.size)
    for first in range(0, len(orders), at_once):
        block = orders[first : first + at_once]
        yield matrix[block[:, :, None], block[:, None, :]]


def without_class(matrix: ArrayLike, place: int) -> NDArray[np.float64]:
    """The (K−1)×(K−1) matrix of the other classes."""
    square = np.asarray(matrix, dtype=np.float64)
    return np.delete(np.delete(square, place, axis=0), place, axis=1)


def leave_one_class_out(a: ArrayLike, b: ArrayLike) -> list[float | None]:
    """``rank_correlation`` of two K×K matrices without each class in turn, K values.

    A correlation over all classes may hang on one of them: the entries of one class are 2(K−1) of K(K−1).
    """
    return [rank_correlation(without_class(a, place), without_class(b, place)) for place in range(len(np.asarray(a)))]


def mean_mantel_test(pairs: Sequence[tuple[ArrayLike, ArrayLike]], seed: int = 0) -> MantelTest:
    """Test the mean ``rank_correlation`` of several pairs of K×K matrices, for example of runs under several seeds.

    Every other order of the classes is given to the second matrix of all pairs alike; otherwise as ``mantel_test``.
    Pairs without a correlation are left out.
    """
    defined = [(a, b) for a, b in pairs if rank_correlation(a, b) is not None]
    if not defined:
        return MantelTest(None, 1.0, 1.0)
    orders = _orders(len(np.asarray(defined[0][0])), seed)
    means = np.mean([_correlations(a, b, orders) for a, b in defined], axis=0)
    rounding = 1e-9
    return MantelTest(
        float(means[0]),
        p_greater=float((means >= means[0] - rounding).mean()),
        p_two_sided=float((np.abs(means) >= abs(means[0]) - rounding).mean()),
    )


def _correlations(a: ArrayLike, b: ArrayLike, orders: NDArray[np.integer]) -> NDArray[np.float64]:
    """``rank_correlation`` of a and b in every order of b's classes."""
    ranks_a, ranks_b = _centred_ranks(a), _centred_ranks(b)
    products = np.concatenate([np.einsum("ij,oij->o", ranks_a, block) for block in _reordered(ranks_b, orders)])
    return products / sqrt(int((ranks_a**2).sum()) * int((ranks_b**2).sum()))
