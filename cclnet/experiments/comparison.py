"""Two experiments on the same validation images: how far they are apart, and what of it chance does not explain.

A difference is b − a throughout, as ``dvc metrics diff`` gives it from old to new.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cclnet.dataset.tables import header_in, number, rows_in
from cclnet.experiments.revisions import files_of
from cclnet.metrics.likeness import MantelTest, mantel_test
from cclnet.metrics.predictions import checked_predictions
from cclnet.metrics.resampling import McNemar, holm, mcnemar, paired_bootstrap, weighted_scores
from cclnet.metrics.scores import class_table, evaluate
from cclnet.system.errors import DataError, Problem

SPLIT = "data/split.csv"
METRICS = "metrics"
LOWER_IS_BETTER = ("nll", "brier", "ece", "classwise_ece")
LEVEL = 0.05
NAMED_IMAGES = 3  # of all that an error is about


@dataclass(frozen=True)
class Experiment:
    """What an experiment predicted for n validation images of K classes.

    Attributes:
        name: as the user wrote it.
        classes: their names (K).
        truth: the columns label (a class's name) and lesion, one row an image; the index is the images, sorted.
        probabilities: n×K, rows as in ``truth``.
        soft_labels: the K×K matrix that its head learned; None without a head, and of a prediction file.
    """

    name: str
    classes: Sequence[str]
    truth: pd.DataFrame
    probabilities: NDArray[np.float64]
    soft_labels: NDArray[np.float64] | None

    @property
    def labels(self) -> NDArray[np.integer]:
        """The true class of each image (n) as its place among the classes."""
        return np.array([self.classes.index(label) for label in self.truth["label"]])

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Whether the most probable class of each image (n) is the true one."""
        return self.probabilities.argmax(axis=1) == self.labels


class Change(NamedTuple):
    """A figure of a and of b; where it was tested, the 95 % interval of b − a and its p, alone and after Holm."""

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
        """Whether b is shown to be ``better`` or ``worse``; empty if no difference is."""
        if self.difference is None or self.p_holm is None or self.p_holm >= LEVEL:
            return ""
        return "better" if (self.difference < 0) == (self.name in LOWER_IS_BETTER) else "worse"


class ClassChange(NamedTuple):
    """A class, its validation images, and the share of them that a and that b recognised (None without images)."""

    name: str
    images: int
    a: float | None
    b: float | None
    difference: float | None


@dataclass(frozen=True)
class Comparison:
    """How b differs from a.

    Attributes:
        a: the name of the one experiment.
        b: the name of the other.
        images: validation images.
        lesions: their lesions, which the bootstrap draws.
        metrics: every figure of ``metrics.evaluate``.
        mcnemar: of the predicted classes; it takes every image for independent.
        soft_labels: how far both learned matrices agree; None if one of the experiments learned none.
        sensitivity: of each class.
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
        """The comparison as JSON takes it, with the ``conclusion``."""
        return {
            **vars(self),
            "metrics": [change._asdict() for change in self.metrics],
            "mcnemar": self.mcnemar._asdict(),
            "soft_labels": self.soft_labels and self.soft_labels._asdict(),
            "sensitivity": [change._asdict() for change in self.sensitivity],
            "conclusion": self.conclusion(),
        }

    def conclusion(self) -> str:
        """What the tests show, and what they cannot."""
        tested = [change for change in self.metrics if change.p_holm is not None]
        names = {
            verdict: listed([change.name for change in tested if change.verdict == verdict])
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


def load_experiment(name: str, label_table: Path) -> Experiment:
    """Read what an experiment predicted for its validation images.

    Args:
        name: a prediction file (``….csv``: image and the probability of each class), or else a revision as
            ``files_of`` takes it.
        label_table: image, label, lesion and subset, what a prediction file is scored with. A revision has its own.

    Raises:
        CCLNetError: there is no such revision, or DVC cannot fetch its files.
        DataError: with every fault of the files.
    """
    if name.endswith(".csv"):
        return read_experiment(name, Path(name), label_table, None)
    with files_of(name, METRICS, SPLIT) as folder:
        soft_labels = learned_soft_labels(name, folder / METRICS)
        return read_experiment(name, folder / METRICS / "predictions.csv", folder / SPLIT, soft_labels)


def read_experiment(
    name: str, prediction_table: Path, label_table: Path, soft_labels: NDArray[np.float64] | None
) -> Experiment:
    """Read predictions and the truth about them.

    Raises:
        DataError: with every fault of the two tables.
    """
    classes, predicted, problems = predictions_in(prediction_table)
    truth, faults = truth_in(label_table)
    problems += faults
    if predicted and truth:
        misfits = mismatches(predicted, truth, classes, label_table.name)
        problems += [Problem(prediction_table.name, misfit) for misfit in misfits]
    if problems:
        raise DataError(f"{name} cannot be compared: mend what follows or name another experiment", problems)
    table = pd.DataFrame.from_dict(truth, orient="index", columns=["label", "lesion"]).sort_index()
    probabilities = np.array([predicted[image] for image in table.index])
    experiment = Experiment(name, classes, table, probabilities, soft_labels)
    try:
        checked_predictions(experiment.labels, probabilities, classes)
    except DataError as error:
        raise DataError(f"{name}: {prediction_table.name}: {error}") from None
    return experiment


def predictions_in(path: Path) -> tuple[Sequence[str], dict[str, list[float]], list[Problem]]:
    """The classes, the probabilities of each image, and the problems of the table."""
    if not path.is_file():
        return [], {}, [Problem(path.name, "is missing")]
    data = path.read_bytes()
    classes = header_in(data)[1:]
    rows, problems = rows_in(data, path.name, ["image", *classes])
    return classes, {row.image: [number(value) for value in row.values] for row in rows}, problems


def truth_in(path: Path) -> tuple[dict[str, tuple[str, str]], list[Problem]]:
    """The label and the lesion of each validation image, and the problems of the split."""
    if not path.is_file():
        return {}, [Problem(path.name, "is missing; --labels names another for prediction files")]
    rows, problems = rows_in(path.read_bytes(), path.name, ["image", "label", "lesion", "subset"])
    truth: dict[str, tuple[str, str]] = {}
    for row in rows:
        label, lesion, subset = row.values or ("", "", "")
        if subset == "validation":
            truth[row.image] = label, lesion
            problems += [] if lesion.strip() else [Problem(row.where, "names no lesion")]
    if not truth and not problems:
        problems = [Problem(path.name, "has no validation image")]
    return truth, problems


def mismatches(
    predicted: Mapping[str, Sequence[float]], truth: Mapping[str, tuple[str, str]], classes: Sequence[str], split: str
) -> list[str]:
    """How predictions do not fit the split, in the words of a ``Problem`` of their table."""
    lacking, unknown = sorted(truth.keys() - predicted.keys()), sorted(predicted.keys() - truth.keys())
    labels = sorted({label for label, _ in truth.values()} - set(classes))
    found = [f"lacks {counted(lacking)} that {split} has for validation"] if lacking else []
    found += [f"has {counted(unknown)} that {split} does not have for validation"] if unknown else []
    return found + ([f"has no class {', '.join(labels)}, which {split} labels images with"] if labels else [])


def learned_soft_labels(name: str, folder: Path) -> NDArray[np.float64] | None:
    """The matrix (K×K, true class first) among a run's metrics; None if no head learned it.

    Raises:
        DataError: the files are not those that the evaluate stage writes.
    """
    try:
        metrics, cells = (json.loads((folder / file).read_bytes()) for file in ("metrics.json", "soft_labels.json"))
        num_classes = math.isqrt(len(cells))
        matrix = np.reshape([float(cell["value"]) for cell in cells], (num_classes, num_classes))
        return None if metrics.get("softness_epoch") is None else matrix
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{name}: metrics.json and soft_labels.json are not what the evaluate stage writes ({error!r}): "
            "make them again with dvc repro"
        ) from None


def compare_experiments(a: Experiment, b: Experiment) -> Comparison:
    """Compare what two experiments predicted for the same images.

    Raises:
        DataError: they have other classes, images, labels or lesions.
    """
    require_same_truth(a, b)
    return Comparison(
        a=a.name,
        b=b.name,
        images=len(a.truth),
        lesions=len(set(a.truth["lesion"])),
        metrics=metric_changes(a, b),
        mcnemar=mcnemar(a.hits, b.hits),
        soft_labels=agreement(a.soft_labels, b.soft_labels),
        sensitivity=sensitivity_changes(a, b),
    )


def require_same_truth(a: Experiment, b: Experiment) -> None:
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


def metric_changes(a: Experiment, b: Experiment) -> list[Change]:
    """Every figure of both; those of ``weighted_scores`` are tested, by resampling the lesions."""
    figures_a, figures_b = (evaluate(each.labels, each.probabilities) for each in (a, b))
    scores_a, scores_b = (weighted_scores(each.labels, each.probabilities) for each in (a, b))
    bootstrapped = paired_bootstrap(scores_b, scores_a, a.truth["lesion"])
    tests = {name: test for name, test in bootstrapped.items() if test}
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]).tolist(), strict=True))
    changes: list[Change] = []
    for name, figure_a in figures_a.items():
        change = Change(name, figure_a, figures_b[name], difference(figure_a, figures_b[name]))
        if test := tests.get(name):
            change = change._replace(low=test.low, high=test.high, p=test.p, p_holm=adjusted[name])
        changes.append(change)
    return changes


def agreement(a: NDArray[np.float64] | None, b: NDArray[np.float64] | None) -> MantelTest | None:
    """How far two soft-label matrices agree, None if one of them was not learned."""
    return None if a is None or b is None else mantel_test(a, b)


def sensitivity_changes(a: Experiment, b: Experiment) -> list[ClassChange]:
    """The share of each class's images that both recognise."""
    table_a, table_b = (class_table(each.labels, each.probabilities, each.classes) for each in (a, b))
    changes: list[ClassChange] = []
    for name, images, *shares in zip(
        a.classes, table_a["images"], table_a["sensitivity"], table_b["sensitivity"], strict=True
    ):
        share_a, share_b = (None if pd.isna(share) else float(share) for share in shares)
        changes.append(ClassChange(name, int(images), share_a, share_b, difference(share_a, share_b)))
    return changes


def difference(a: float | None, b: float | None) -> float | None:
    """b − a, None if either is undefined."""
    return None if a is None or b is None else b - a


def counted(images: Sequence[str]) -> str:
    """``1 image (x)``, ``1,000 images (x, y, z, …)``."""
    names = ", ".join(images[:NAMED_IMAGES]) + (", …" if len(images) > NAMED_IMAGES else "")
    return f"{len(images):,} image{'' if len(images) == 1 else 's'} ({names})"


def listed(words: Sequence[str]) -> str:
    """``x, y and z``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
