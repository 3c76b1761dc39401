"""All scores of an experiment with their intervals and notes, and the file that contains them."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cclnet.metrics import likeness, scores
from cclnet.metrics.names import HEADLINE, METRICS
from cclnet.metrics.resampling import clustered_bootstrap, weighted_scores
from cclnet.system.errors import DataError
from cclnet.system.files import write_csv

COLUMNS = ("name", "title", "group", "value", "low", "high", "note")


class Score(NamedTuple):
    """The value of a metric, None if it is undefined.

    ``low`` and ``high`` are the ends of its 95 % interval, None if there is none. ``note`` explains why the value is
    undefined, or what it does not include.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""


def score_predictions(
    labels: ArrayLike, probabilities: ArrayLike, classes: Sequence[str], clusters: ArrayLike
) -> dict[str, Score]:
    """All metrics of ``metrics.evaluate`` by name, with bootstrap intervals if available.

    Args:
        labels: the true class of each image, 0 … K − 1 (n).
        probabilities: of each image and class, n×K.
        classes: the K names.
        clusters: the lesion of each image (n); lesions are resampled as a whole.

    Raises:
        DataError: the arrays are not labels and probabilities of the same images.
    """
    values = scores.evaluate(labels, probabilities)
    intervals = clustered_bootstrap(weighted_scores(labels, probabilities), clusters)
    notes = scores.notes(labels, probabilities, classes)
    scored: dict[str, Score] = {}
    for name, value in values.items():
        interval = intervals.get(name)
        low, high = (interval.low, interval.high) if interval else (None, None)
        scored[name] = Score(value, low, high, notes.get(name, ""))
    return scored


def score_soft_labels(
    soft_labels: ArrayLike,
    classes: Sequence[str],
    counts: ArrayLike,
    confusion: ArrayLike,
    planted: ArrayLike | None = None,
    features: ArrayLike | None = None,
) -> dict[str, Score]:
    """Scores of a soft-label matrix (K×K): its agreement with other matrices, by name.

    Args:
        soft_labels: the matrix.
        classes: the K names.
        counts: number of training images of each class (K).
        confusion: number of validation images of each true (row) and predicted class, K×K.
        planted: the similarity from which the data were generated (K×K), None if unknown.
        features: the similarity of the classes in the network's features (K×K), None if it could not be measured.
    """
    similarity = likeness.confused_similarity(confusion)
    notes = likeness.notes(soft_labels, counts, similarity, classes)
    share = likeness.share_explained_by_counts(soft_labels, counts) if np.all(counts) else None
    values = {
        "not_explained_by_counts": None if share is None else share.beyond,
        "follows_confusion": None if similarity is None else likeness.rank_correlation(soft_labels, similarity),
    }
    values["follows_features"] = None if features is None else likeness.rank_correlation(soft_labels, features)
    if values["follows_features"] is None:
        notes.setdefault("follows_features", "undefined: the features do not give the similarity of every two classes")
    if planted is not None:
        values["planted_similarity"] = likeness.rank_correlation(soft_labels, planted)
        if features is not None:
            values["planted_in_features"] = likeness.rank_correlation(features, planted)
    return {name: Score(value, note=notes.get(name, "")) for name, value in values.items()}


def headline(scored: Mapping[str, Score]) -> dict[str, float | None]:
    """The values of the available metrics that ``dvc metrics`` shows."""
    return {name: scored[name].value for name in HEADLINE if name in scored}


def write_scores(path: Path, scored: Mapping[str, Score]) -> None:
    """Write the scores as a table, in the order of ``names.METRICS``; undefined values are empty."""
    rows = [(name, metric.title, metric.group, *scored[name]) for name, metric in METRICS.items() if name in scored]
    write_csv(path, pd.DataFrame(rows, columns=list(COLUMNS), dtype=object))


def read_scores(path: Path) -> dict[str, Score]:
    """Read the scores that ``write_scores`` wrote, by name.

    Raises:
        DataError: the file is not such a table.
        FileNotFoundError: there is no such file.
    """
    try:
        text = path.read_bytes().decode()
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        if not rows:
            raise ValueError("no rows")
        if not text.endswith("\n") or any(None in row.values() for row in rows):
            raise ValueError("a line is cut off")
        return {
            row["name"]: Score(_number(row["value"]), _number(row["low"]), _number(row["high"]), row["note"])
            for row in rows
        }
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"{path.name} is not what the evaluate stage writes ({error!r}): make it again with dvc repro"
        ) from None


def _number(text: str) -> float | None:
    """Parse a number; integers stay integers, so that epochs are written unchanged."""
    if not text:
        return None
    value = int(text) if text.isdecimal() else float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number")
    return value
