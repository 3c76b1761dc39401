"""Which classes look alike: their similarity in features of any network, with intervals and a control.

::

    from cclnet import ClassSimilarity

    similarity = ClassSimilarity().fit(features, labels, groups)  # n×d, n, and n patients or lesions, if known
    print(similarity.pairs_)  # the most alike first, each with its interval
    labels = similarity.soft_labels(softness=0.5)  # K×K, for CCL-Net's loss (Eq. 3)
"""

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedGroupKFold

from cclnet.metrics.estimators import ESTIMATORS, Array, Estimator, Labels
from cclnet.metrics.likeness import CountShare, off_diagonal, share_explained_by_counts
from cclnet.metrics.matrices import records
from cclnet.system.errors import DataError
from cclnet.system.names import listed
from cclnet.system.progress import Report, silent

DEFAULT_ESTIMATOR = "predictions"
OUT_OF_FOLD = ("predictions", "confusions")
"""The estimators that learn from some folds and are applied to another."""
FOLDS = 5
COMPONENTS = 256
IMAGES_PER_COMPONENT = 10
RESAMPLES = 2000
FEWEST_RESAMPLES = 200
SHUFFLES = 10
MOST_KEPT = 20_000_000
"""Similarities of resampled pairs that are kept for the intervals: 160 MB."""
AT_ONCE = 20_000_000
"""Numbers in a block of resamples: 160 MB."""
MOST_CLASSES = 5_000
"""More classes are refused: their matrices would take 200 MB each."""
LARGEST_FEATURE = 1e100
"""Larger features are refused, because their squares would overflow."""
SMALLEST_RANGE = 1e-50
"""Features that differ less between images are refused: they show nothing, and their squares may underflow."""

ALIKE, DISTINCT, AVERAGE = "alike", "distinct", "about average"


class ClassSimilarity(BaseEstimator):
    """How alike K classes look to a network, from features of their images.

    Args:
        estimator: ``predictions`` (mean out-of-fold probabilities, the default), ``confusions``, ``class_means``,
            ``discriminant``, ``head`` or ``balanced_head``: see ``cclnet.metrics.estimators``.
        softness: p̄ of ``soft_labels_``, between 1/K and 1; None for that of embeddings at right angles in Eq. 2,
            e²/(e² + K − 1).
        components: features of more dimensions are reduced to so many principal components, and to fewer where there
            are not ten images for each.
        resamples: bootstrap resamples of groups for the intervals; fewer, but at least 200, where K is large.
        shuffles: trainings with shuffled labels for the control. Those of heads take one at most.
        classes: the K classes in the order of the matrices; None for sorted ones.
        seed: of folds, resamples and shuffles.

    Attributes:
        classes_: the K classes.
        class_counts_: images of each.
        similarity_: K×K, symmetric; what the values mean, ``estimator`` says.
        low_, high_: K×K, the middle 95 % of bootstrap resamples of the groups within each class; NaN for classes of
            one group, and for heads. What was fitted to the features stays as it is in the resamples.
        shuffled_: K×K, the mean similarity under shuffled labels: what class sizes alone give.
        distances_: K×K, the distances that belong to the similarities.
        soft_labels_: K×K, Eq. 2 with these distances.
        pairs_: a row for each pair of classes, the most alike first: a, b, similarity, low, high, shuffled, verdict.
            A pair is ``alike`` (``distinct``) if its interval is above (below) the mean of all pairs by more than the
            pair is under any shuffled labels; else ``about average``.
    """

    def __init__(
        self,
        estimator: str = DEFAULT_ESTIMATOR,
        *,
        softness: float | None = None,
        components: int = COMPONENTS,
        resamples: int = RESAMPLES,
        shuffles: int = SHUFFLES,
        classes: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.estimator = estimator
        self.softness = softness
        self.components = components
        self.resamples = resamples
        self.shuffles = shuffles
        self.classes = classes
        self.seed = seed

    def fit(
        self, features: ArrayLike, labels: ArrayLike, groups: ArrayLike | None = None, report: Report = silent
    ) -> Self:
        """Measure the similarity of the classes.

        Args:
            features: n×d, of any network, best of images that it was not trained on.
            labels: n classes.
            groups: n, what the images are of (patient, lesion). Images of one group are never on both sides of a fold,
                and are resampled together. None: every image for itself.
            report: told of the resamples and shuffles.

        Raises:
            DataError: features, labels or groups cannot be used; with every reason.
        """
        for name in ("count_share_", "shuffled_count_share_"):
            self.__dict__.pop(name, None)  # of an earlier fit
        inputs, names, groups_of = self._checked(features, labels, groups)
        self.classes_ = list(dict.fromkeys(self.classes)) if self.classes is not None else sorted(set(names))
        place = {name: number for number, name in enumerate(self.classes_)}
        numbers = np.array([place[name] for name in names], dtype=np.int64)
        num_classes = len(place)
        self.class_counts_ = np.bincount(numbers, minlength=num_classes)
        inputs = reduced(inputs, self.components)
        folded = self.estimator in OUT_OF_FOLD
        folds = _folds(numbers, groups_of, self.seed) if folded else np.zeros_like(numbers)
        estimator = self._estimator(inputs, numbers, folds)
        whole = np.ones((1, len(numbers)))
        self.similarity_ = _symmetric(estimator.similarities(whole)[0])
        self.distances_ = _symmetric(estimator.distances(self.similarity_))
        beside = np.triu_indices(num_classes, 1)
        excess = self._intervals(estimator, numbers, groups_of, beside, report)
        shuffled = self._shuffled(inputs, numbers, folds, beside, report)
        self.pairs_ = self._pairs(beside, excess, shuffled)
        self.soft_labels_ = self.soft_labels(self.softness)
        return self

    def soft_labels(self, softness: float | None = None) -> Array:
        """Eq. 2 with the distances found: row k is softmax(−d_k/T), K×K, T such that the mean of the diagonal is p̄.

        Args:
            softness: p̄, between 1/K and 1; None: e²/(e² + K − 1).

        Raises:
            DataError: there is no such T.
        """
        return soft_labels_of(self.distances_, softness)

    def as_dict(self) -> dict[str, Any]:
        """The findings as JSON takes them: the pairs, the most similar first, and the matrices."""
        shares = {"count_share": self.count_share_, "shuffled_count_share": self.shuffled_count_share_}
        return {
            "pairs": records(self.pairs_),
            "estimator": self.estimator,
            "classes": self.classes_,
            "class_counts": self.class_counts_.tolist(),
            "similarity": self.similarity_.tolist(),
            "soft_labels": self.soft_labels_.tolist(),
            **{name: None if share is None else share._asdict() for name, share in shares.items()},
        }

    def _checked(
        self, features: ArrayLike, labels: ArrayLike, groups: ArrayLike | None
    ) -> tuple[Array, list[str], Labels]:
        """Features, classes, and the number of each image's group."""
        if self.estimator not in ESTIMATORS:
            raise DataError(f"estimator must be one of {', '.join(ESTIMATORS)}, not {self.estimator!r}")
        if not 0 <= self.seed < 2**32:
            raise DataError(f"seed must lie between 0 and {2**32 - 1}, not be {self.seed}")
        if min(self.resamples, self.shuffles) < 0 or self.components < 1:
            raise DataError("resamples and shuffles must be 0 or more, and components 1 or more")
        inputs, names = np.asarray(features), [str(name) for name in np.asarray(labels).ravel()]
        faults = []
        if inputs.ndim != 2 or not inputs.size:
            faults.append(f"features must be images × dimensions, not of the shape {inputs.shape}")
        elif inputs.dtype.kind not in "iuf":
            faults.append(f"features must be numbers, not {inputs.dtype}")
        else:
            with np.errstate(over="ignore"):
                inputs = inputs.astype(np.float64)
            usable = (np.abs(inputs) <= LARGEST_FEATURE).all(axis=1)  # a comparison with NaN is false
            if not usable.all():
                rows = np.flatnonzero(~usable)
                faults.append(
                    f"features of {len(rows):,} images are not finite or beyond {LARGEST_FEATURE:g}, the first in row "
                    f"{rows[0]}"
                )
        if inputs.ndim == 2 and len(names) != len(inputs):
            faults.append(f"there are {len(names):,} labels for the features of {len(inputs):,} images")
        given = list(range(len(names))) if groups is None else np.asarray(groups).ravel().tolist()
        for what, values in {"labels": np.asarray(labels, dtype=object).ravel(), "groups": given}.items():
            if missing := int(pd.isna(np.asarray(values, dtype=object)).sum()):
                faults.append(f"{missing:,} {what} are missing")
        if len(given) != len(names):
            faults.append(f"there are {len(given):,} groups for {len(names):,} labels")
        if not faults:
            if np.ptp(inputs, axis=0).max() < SMALLEST_RANGE:
                faults.append("all images have the same features")
            faults += self._class_faults(names, given)
        if faults:
            raise DataError("the similarity of classes cannot be measured: " + "; ".join(faults))
        return inputs, names, np.unique([str(group) for group in given], return_inverse=True)[1]

    def _class_faults(self, names: Sequence[str], groups: Sequence[object]) -> list[str]:
        known = set(names)
        groups_of: dict[str, set[object]] = {name: set() for name in known}
        for name, group in zip(names, groups, strict=True):
            groups_of[name].add(group)
        faults = []
        if self.classes is not None:
            if absent := [name for name in self.classes if name not in known]:
                faults.append(f"no image of {listed(absent)}")
            if others := sorted(known - set(self.classes)):
                faults.append(f"labels that are no class: {listed(others)}")
        if len(known) < 2:
            faults.append("there must be two classes or more")
        elif len(known) > MOST_CLASSES:
            faults.append(f"there are {len(known):,} classes, more than {MOST_CLASSES:,}: labels must be classes")
        elif fault := softness_fault(self.softness, len(known)):
            faults.append(fault)
        single = sorted(name for name, own in groups_of.items() if len(own) < 2)
        if single and self.estimator in OUT_OF_FOLD:
            faults.append(
                f"{listed(single)}: one image or group, so none is left to learn the class from; leave the "
                "class out, or use the estimator class_means"
            )
        return faults

    def _estimator(self, features: Array, labels: Labels, folds: Labels, seed: int = 0) -> Estimator:
        return ESTIMATORS[self.estimator](features, labels, folds, len(self.classes_), self.seed + seed)

    def _intervals(
        self,
        estimator: Estimator,
        labels: Labels,
        groups: Labels,
        beside: tuple[Labels, ...],
        report: Report,
    ) -> Array:
        """Set ``low_`` and ``high_``; return the interval of each pair's similarity less the mean of all, 2×pairs."""
        num_classes, pairs = len(self.classes_), len(beside[0])
        self.low_, self.high_ = np.full((2, num_classes, num_classes), np.nan)
        if not estimator.resamples or not self.resamples:
            return np.full((2, pairs), np.nan)
        wanted = min(self.resamples, max(FEWEST_RESAMPLES, MOST_KEPT // pairs))
        strata, num_groups = _strata(labels, groups)
        generators = [np.random.default_rng([self.seed, label]) for label in range(num_classes)]
        kept = np.empty((wanted, pairs))
        at_once = max(1, AT_ONCE // (max(len(labels), num_classes * max(num_classes, self.components))))
        for first in range(0, wanted, at_once):
            count = min(at_once, wanted - first)
            weights = _resampled(strata, num_groups, count, generators)[:, groups].astype(np.float64)
            kept[first : first + count] = estimator.similarities(weights)[:, beside[0], beside[1]]
            report("resamples", first + count, wanted)
        single = np.array([len(stratum) < 2 for stratum in strata])
        undefined = single[beside[0]] | single[beside[1]]
        limits = _limits(kept)
        limits[:, undefined] = np.nan
        for target, values in zip((self.low_, self.high_), limits, strict=True):
            target[beside] = target[beside[::-1]] = values
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # about resamples in which no similarity is defined
            means = np.nanmean(kept, axis=1, keepdims=True)
        excess = _limits(kept - means)
        excess[:, undefined] = np.nan
        return excess

    def _shuffled(
        self, features: Array, labels: Labels, folds: Labels, beside: tuple[Labels, ...], report: Report
    ) -> Array:
        """Set ``shuffled_``; return each pair's similarity less the mean of all, shuffles×pairs."""
        shuffles = self.shuffles if ESTIMATORS[self.estimator].resamples else min(self.shuffles, 1)
        generator = np.random.default_rng(self.seed)
        found = np.empty((shuffles, len(self.classes_), len(self.classes_)))
        whole = np.ones((1, len(labels)))
        for number in range(shuffles):
            estimator = self._estimator(features, generator.permutation(labels), folds, number + 1)
            found[number] = _symmetric(estimator.similarities(whole)[0])
            report("shuffled labels", number + 1, shuffles)
        self.shuffled_ = found.mean(axis=0) if shuffles else np.full(found.shape[1:], np.nan)
        pairs = found[:, beside[0], beside[1]]
        return pairs - pairs.mean(axis=1, keepdims=True)

    def _pairs(self, beside: tuple[Labels, ...], excess: Array, shuffled: Array) -> pd.DataFrame:
        first, second = beside
        highest = shuffled.max(axis=0, initial=0)
        lowest = shuffled.min(axis=0, initial=0)
        verdicts = np.full(len(first), AVERAGE, dtype=object)
        verdicts[excess[0] > highest] = ALIKE  # a comparison with NaN is false
        verdicts[excess[1] < lowest] = DISTINCT
        if np.isnan(excess).all():
            verdicts[:] = ""
        table = pd.DataFrame(
            {
                "a": [self.classes_[place] for place in first],
                "b": [self.classes_[place] for place in second],
                "similarity": self.similarity_[beside],
                "low": self.low_[beside],
                "high": self.high_[beside],
                "shuffled": self.shuffled_[beside],
                "verdict": verdicts,
            }
        )
        return table.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)

    @cached_property
    def count_share_(self) -> CountShare | None:
        """How much of the similarities class counts explain; None where that is undefined."""
        return share_explained_by_counts(self.similarity_, self.class_counts_, self.seed)

    @cached_property
    def shuffled_count_share_(self) -> CountShare | None:
        """How much of the similarities under shuffled labels class counts explain; None without shuffles."""
        if np.isnan(self.shuffled_).any():
            return None
        return share_explained_by_counts(self.shuffled_, self.class_counts_, self.seed)


def right_angle_softness(num_classes: int) -> float:
    """p̄ of class embeddings at right angles to each other, e²/(e² + K − 1): .5519 for seven classes (Eq. 2)."""
    return float(np.exp(2) / (np.exp(2) + num_classes - 1))


def soft_labels_of(distances: ArrayLike, softness: float | None = None) -> Array:
    """Row k is softmax(−d_k/T): Eq. 2 with any distances, K×K, and T such that the mean of the diagonal is p̄.

    Args:
        distances: K×K, 0 on the diagonal and positive elsewhere.
        softness: p̄, between 1/K and 1; None: e²/(e² + K − 1).

    Raises:
        DataError: no T gives this softness, or the distances are not such a matrix.
    """
    scores = -np.asarray(distances, dtype=np.float64)
    num_classes = len(scores)
    beside = off_diagonal(scores)
    if np.diagonal(scores).any() or not (beside < 0).all():
        raise DataError("distances of classes must be 0 on the diagonal and positive elsewhere")
    if fault := softness_fault(softness, num_classes):
        raise DataError(fault)
    wanted = right_angle_softness(num_classes) if softness is None else softness
    low, high = -40.0, 40.0  # log T
    for _ in range(200):
        middle = (low + high) / 2
        if np.diagonal(_softmax(scores / np.exp(middle))).mean() > wanted:
            low = middle
        else:
            high = middle
    return _softmax(scores / np.exp((low + high) / 2))


def softness_fault(softness: float | None, num_classes: int) -> str:
    """Why no soft labels of K classes have this softness; empty if there are some."""
    if softness is None or 1 / num_classes < softness < 1:
        return ""
    return f"softness must lie between 1/K = {1 / num_classes:.4f} and 1, not be {softness}"


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _symmetric(matrix: Array) -> Array:
    """Products may round ij and ji differently."""
    return (matrix + matrix.T) / 2


def reduced(features: Array, components: int = COMPONENTS) -> Array:
    """The features about their mean, as principal components if there are more dimensions than that."""
    most = max(1, min(components, len(features) // IMAGES_PER_COMPONENT))
    if features.shape[1] <= most:
        return features - features.mean(axis=0)
    solver = "covariance_eigh" if features.shape[1] <= len(features) else "full"
    return PCA(most, svd_solver=solver).fit_transform(features)


def _folds(labels: Labels, groups: Labels, seed: int) -> Labels:
    """The fold of each image: groups stay together, classes are spread evenly."""
    folds = np.zeros(len(labels), dtype=np.int64)
    number = max(2, min(FOLDS, len(np.unique(groups)), int(np.bincount(labels).max())))
    splitter = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about classes of fewer images than folds
        for fold, (_, out) in enumerate(splitter.split(folds, labels, groups)):
            folds[out] = fold
    return folds


def _strata(labels: Labels, groups: Labels) -> tuple[list[Labels], int]:
    """The groups of each class, by their first image, and the number of groups."""
    first = np.unique(groups, return_index=True)[1]
    class_of = labels[first]
    return [np.flatnonzero(class_of == label) for label in range(labels.max() + 1)], len(first)


def _resampled(
    strata: Sequence[Labels], num_groups: int, count: int, generators: Sequence[np.random.Generator]
) -> NDArray[np.int64]:
    """How often each group is drawn, count×groups: within every class as often as it has groups."""
    times = np.zeros((count, num_groups), dtype=np.int64)
    for stratum, generator in zip(strata, generators, strict=True):
        if len(stratum):
            uniform = np.full(len(stratum), 1 / len(stratum))
            times[:, stratum] = generator.multinomial(len(stratum), uniform, size=count)
    return times


def _limits(values: Array) -> Array:
    """The middle 95 % of each column, 2×columns; NaN for a column without a number."""
    if not np.isnan(values).any():
        return np.quantile(values, [0.025, 0.975], axis=0)
    columns = [column[~np.isnan(column)] for column in values.T]
    return np.array([np.quantile(column, [0.025, 0.975]) if len(column) else [np.nan] * 2 for column in columns]).T
