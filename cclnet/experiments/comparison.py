"""Comparison of two experiments on the same validation images, with tests of the differences.

All differences are b − a, as in ``dvc metrics diff`` from old to new.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cclnet.experiments.revisions import files_of
from cclnet.experiments.run import METRICS_FOLDER, SPLIT, Run, counted, read_predictions, read_run
from cclnet.metrics.likeness import MantelTest, mantel_test
from cclnet.metrics.names import LOWER_IS_BETTER, METRICS, title
from cclnet.metrics.resampling import McNemar, holm, mcnemar, paired_bootstrap, weighted_scores
from cclnet.metrics.scores import class_table, evaluate
from cclnet.system.errors import DataError, Problem

LEVEL = 0.05


class Change(NamedTuple):
    """A metric of a and of b; if it was tested, the 95 % interval of b − a and its p, before and after Holm."""

    name: str
    a: float | None
    b: float | None
    difference: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` if b differs significantly from a, otherwise empty."""
        if self.difference is None or self.p_holm is None or self.p_holm >= LEVEL:
            return ""
        falls_when_better = METRICS[self.name].group == LOWER_IS_BETTER
        return "better" if (self.difference < 0) == falls_when_better else "worse"


class ClassChange(NamedTuple):
    """A class, its number of validation images, and its sensitivity with a and with b (None without images)."""

    name: str
    images: int
    a: float | None
    b: float | None
    difference: float | None


@dataclass(frozen=True)
class Comparison:
    """How b differs from a.

    Attributes:
        a: the name of the first experiment.
        b: the name of the second experiment.
        images: number of validation images.
        lesions: number of their lesions, which the bootstrap resamples.
        metrics: all metrics of ``metrics.evaluate``.
        mcnemar: McNemar's test of the predicted classes, which assumes independent images.
        soft_labels: agreement of the learned matrices; None if one of the experiments learned none.
        sensitivity: the sensitivity of each class.
    """

    a: str
    b: str
    images: int
    lesions: int
    metrics: Sequence[Change]
    mcnemar: McNemar
    soft_labels: MantelTest | None
    sensitivity: Sequence[ClassChange]

    def as_dict(self) -> dict[str, Any]:
        """The comparison in a form for JSON, with the ``conclusion``."""
        return {
            **vars(self),
            "metrics": [change._asdict() for change in self.metrics],
            "mcnemar": self.mcnemar._asdict(),
            "soft_labels": self.soft_labels and self.soft_labels._asdict(),
            "sensitivity": [change._asdict() for change in self.sensitivity],
            "conclusion": self.conclusion(),
        }

    def conclusion(self) -> str:
        """The result of the tests in words, and its limits."""
        tested = [change for change in self.metrics if change.p_holm is not None]
        names = {
            verdict: _listed([title(change.name) for change in tested if change.verdict == verdict])
            for verdict in ("better", "worse", "")
        }
        if names["better"] or names["worse"]:
            parts = {"better": "better in", "worse": "worse in", "": "no difference shown in"}
            shown = "; ".join(f"{words} {names[verdict]}" for verdict, words in parts.items() if names[verdict])
            found = f"the data show that {self.b} differs from {self.a}: {shown}"
        else:
            found = f"the data show no difference between {self.a} and {self.b} in {names['']}"
        return (
            f"At p < {LEVEL} after Holm's correction for {len(tested)} tests, {found}. A difference that is not shown "
            "may still be there, and one run each says nothing about other seeds."
        )


def load_experiment(name: str, label_table: Path) -> Run:
    """Read the predictions of an experiment for its validation images.

    Args:
        name: a prediction file (``….csv``: image and the probability of each class), or a revision as in ``files_of``.
        label_table: a table of image, label, lesion and subset, used to score a prediction file. A revision has its
            own.

    Raises:
        CCLNetError: there is no such revision, or DVC cannot fetch its files.
        DataError: lists all problems of the files.
    """
    if name.endswith(".csv"):
        return read_predictions(name, Path(name), label_table)
    with files_of(name, METRICS_FOLDER, SPLIT) as folder:
        return read_run(name, folder)


def compare_experiments(a: Run, b: Run) -> Comparison:
    """Compare the predictions of two experiments for the same images.

    Raises:
        DataError: their classes, images, labels or lesions differ.
    """
    _require_same_truth(a, b)
    return Comparison(
        a=a.name,
        b=b.name,
        images=len(a.truth),
        lesions=len(set(a.truth["lesion"])),
        metrics=_metric_changes(a, b),
        mcnemar=mcnemar(a.hits, b.hits),
        soft_labels=_agreement(a.learned_soft_labels, b.learned_soft_labels),
        sensitivity=_sensitivity_changes(a, b),
    )


def _require_same_truth(a: Run, b: Run) -> None:
    """Raise with everything that keeps two experiments from being compared image by image."""
    problems: list[Problem] = []
    if a.classes != b.classes:
        problems.append(Problem("classes", f"{', '.join(a.classes)} and {', '.join(b.classes)}"))
    for one, other in ((a, b), (b, a)):
        if alone := one.truth.index.difference(other.truth.index).tolist():
            problems.append(Problem(f"only {one.name}", f"has predicted {counted(alone)}"))
    common = a.truth.index.intersection(b.truth.index)
    for column in a.truth.columns:
        if differing := common[a.truth.loc[common, column] != b.truth.loc[common, column]].tolist():
            problems.append(Problem(column, f"differs for {counted(differing)}"))
    if problems:
        raise DataError(
            f"{a.name} and {b.name} did not predict the same images: compare runs of one dataset, split and split_seed",
            problems,
        )


def _metric_changes(a: Run, b: Run) -> list[Change]:
    """All metrics of both; those of ``weighted_scores`` are tested by resampling the lesions."""
    figures_a, figures_b = (evaluate(each.labels, each.probabilities) for each in (a, b))
    scores_a, scores_b = (weighted_scores(each.labels, each.probabilities) for each in (a, b))
    bootstrapped = paired_bootstrap(scores_b, scores_a, a.truth["lesion"])
    tests = {name: test for name, test in bootstrapped.items() if test}
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]).tolist(), strict=True))
    changes: list[Change] = []
    for name, figure_a in figures_a.items():
        change = Change(name, figure_a, figures_b[name], _difference(figure_a, figures_b[name]))
        if test := tests.get(name):
            change = change._replace(low=test.low, high=test.high, p=test.p, p_holm=adjusted[name])
        changes.append(change)
    return changes


def _agreement(a: NDArray[np.float64] | None, b: NDArray[np.float64] | None) -> MantelTest | None:
    """The agreement of two soft-label matrices, None if one of them was not learned."""
    return None if a is None or b is None else mantel_test(a, b)


def _sensitivity_changes(a: Run, b: Run) -> list[ClassChange]:
    """The sensitivity of each class with both."""
    table_a, table_b = (class_table(each.labels, each.probabilities, each.classes) for each in (a, b))
    changes: list[ClassChange] = []
    for name, images, *shares in zip(
        a.classes, table_a["images"], table_a["sensitivity"], table_b["sensitivity"], strict=True
    ):
        share_a, share_b = (None if pd.isna(share) else float(share) for share in shares)
        changes.append(ClassChange(name, int(images), share_a, share_b, _difference(share_a, share_b)))
    return changes


def _difference(a: float | None, b: float | None) -> float | None:
    """b − a, None if either is undefined."""
    return None if a is None or b is None else b - a


def _listed(words: Sequence[str]) -> str:
    """``x, y and z``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
