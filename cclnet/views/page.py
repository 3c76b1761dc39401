"""A report page of one experiment: its results, their uncertainty, and its settings.

The page is self-contained. It does not depend on the time, the place or the user.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from cclnet import (
    __version__,
)
from cclnet.dataset.isic import CLASS_NAMES
from cclnet.experiments.run import Run
from cclnet.images.cache import ImageCache
from cclnet.images.decoding import central_crop, resize
from cclnet.metrics.calibration import CALIBRATION_BINS
from cclnet.metrics.likeness import (
    CountShare,
    MantelTest,
    confused_similarity,
    count_pattern,
    mantel_test,
    number_of_orders,
    share_explained_by_counts,
)
from cclnet.metrics.names import (
    HIGHER_IS_BETTER,
    LOSSES,
    LOWER_IS_BETTER,
    METRICS,
    TEST_IMAGES,
    VALIDATION_METRICS,
    Metric,
)
from cclnet.metrics.resampling import RESAMPLES
from cclnet.metrics.score_table import Score
from cclnet.metrics.scores import evaluate
from cclnet.params import Peers, ReportParams
from cclnet.system.errors import DataError
from cclnet.views import charts
from cclnet.views.class_curves import SPECIFICITIES, ClassCurves, average_precisions, class_curves
from cclnet.views.figures import has_numbers
from cclnet.views.image_pairs import ImagePair, image_pair
from cclnet.views.matrix_view import MatrixView, matrix_view
from cclnet.views.rendering import decimals, drawing_libraries, flat, full_names, page_environment, png, script_sources

METHODS = {
    "ccl": "CCL-Net",
    "baseline": "Baseline",
    "lsr": "Label smoothing",
    "lsr_kl": "Added label smoothing",
    "confidence_penalty": "Confidence penalty",
    "online_smoothing": "Online label smoothing",
    "margin_smoothing": "Margin-based label smoothing",
    "virtual_teacher": "Teacher-free distillation",
    "maxsup": "Max suppression",
    "label_confusion": "Label confusion learning",
}
MISTAKES = 12
SHOWN_IMAGE_PAIRS = 3
THUMBNAIL = 128  # pixels

SECTIONS = {
    "metrics": "Validation metrics",
    "training": "Training",
    "soft-labels": "Soft labels",
    "confusion": "Confusion and calibration",
    "classes": "Each class against the rest",
    "similar": "Images of the most similar classes",
    "mistakes": "Most confident mistakes",
    "params": "Params and provenance",
}
"""Anchor of each section → title."""


class Likeness(NamedTuple):
    """The test of the soft-label matrix against another matrix; without a test, the note says why."""

    name: str
    test: MantelTest | None
    note: str


class Mistake(NamedTuple):
    """A misclassified image; the thumbnail is a PNG in base64."""

    image: str
    true_class: str
    predicted_class: str
    probability: float
    thumbnail: str


class Baseline(NamedTuple):
    """The scores of a prediction that looks at no image: the shares of the training classes as probabilities.

    ``predicts`` is its predicted class, the majority class.
    """

    predicts: str
    scores: dict[str, float | None]


@dataclass(frozen=True)
class Report:
    """A run, and the files of its stages about its data and its training.

    Attributes:
        run: the predictions and scores.
        params: the params of the experiment.
        class_table, reliability, history: tables by class, bin and epoch.
        split: the class, lesion and subset of each image.
        cache: the images.
        provenance: the provenance of each file of the dataset.
        conditions: what else the result depends on.
        planted: the similarity of the classes (K×K), if known.
        similarity: what ``metrics/similarity.json`` says of the similarity of the classes in the network's features.
    """

    run: Run
    params: ReportParams
    class_table: pd.DataFrame
    reliability: pd.DataFrame
    history: pd.DataFrame
    split: pd.DataFrame
    cache: ImageCache
    provenance: list[dict[str, Any]]
    conditions: dict[str, Any]
    planted: ArrayLike | None
    similarity: dict[str, Any]

    @property
    def learns_soft_labels(self) -> bool:
        """Whether the method has the CCL head."""
        return self.params.has_head

    @cached_property
    def training_counts(self) -> list[int]:
        """The number of training images of each class."""
        counts = Counter(self.split.loc[self.split["subset"] == "train", "label"])
        return [counts[name] for name in self.run.classes]

    @property
    def glossary(self) -> dict[str, str]:
        """The meaning of abbreviated class names."""
        return {name: CLASS_NAMES[name] for name in self.run.classes if name in CLASS_NAMES}

    @property
    def full_names(self) -> dict[str, str]:
        """The names of the classes in captions."""
        return full_names(self.run.classes)

    @cached_property
    def curves(self) -> list[ClassCurves]:
        """The ROC and precision-recall curves of the classes."""
        return class_curves(self.run.labels, self.run.probabilities, self.run.classes)

    def score(self, name: str) -> float | None:
        """The value of a metric, None if it is undefined.

        Raises:
            DataError: the table of scores lacks it.
        """
        if name not in self.run.scores:
            raise DataError(f"scores.csv has no {name}: make it again with dvc repro")
        return self.run.scores[name].value

    def epoch(self, name: str) -> int | None:
        """An epoch among the scores, None if there is none."""
        value = self.score(name)
        return None if value is None else int(value)


def report_page(report: Report) -> str:
    """The page as HTML; it is deterministic."""
    return (
        page_environment()
        .get_template("report.html")
        .render(
            report=report,
            run=report.run,
            sections=SECTIONS,
            method=METHODS[report.params.method],
            scores=_scores(report),
            baseline=_baseline(report),
            resamples=RESAMPLES,
            training_charts=_training_charts(report),
            epochs=_epoch_table(report),
            soft_labels=_soft_label_matrix(report),
            confusion=_confusion_matrix(report),
            likenesses=_likenesses(report),
            orders=number_of_orders(len(report.run.classes)),
            count_share=_count_share(report),
            reliability_charts={
                "Reliability: accuracy by confidence": charts.reliability_chart(report.reliability),
                "Images in each bin": charts.confidence_chart(report.reliability, CALIBRATION_BINS),
            },
            bins=CALIBRATION_BINS,
            average_precisions=average_precisions(report.run.labels, report.run.probabilities),
            curve_charts=_curve_charts(report),
            curves_note=_curves_note(report),
            specificities=SPECIFICITIES,
            mistakes=_confident_mistakes(report),
            image_pairs=_image_pairs(report),
            settings=_settings(report.params),
            conditions=flat({"cclnet": __version__} | report.conditions),
            libraries=drawing_libraries(),
            script_sources=script_sources(),
        )
    )


def _scores(report: Report) -> dict[str, list[tuple[str, Metric, Score]]]:
    """The scores of the predictions, grouped by higher or lower is better; then those of test images, if any."""
    scores: dict[str, list[tuple[str, Metric, Score]]] = {HIGHER_IS_BETTER: [], LOWER_IS_BETTER: [], TEST_IMAGES: []}
    for name, metric in METRICS.items():
        if metric.group in scores and name in report.run.scores:
            scores[metric.group].append((name, metric, report.run.scores[name]))
    return {group: found for group, found in scores.items() if found}


def _baseline(report: Report) -> Baseline:
    """The prediction without images, scored on the validation images."""
    shares = np.array(report.training_counts) / sum(report.training_counts)
    scores = evaluate(report.run.labels, np.tile(shares, (len(report.run.labels), 1)))
    return Baseline(report.run.classes[int(shares.argmax())], scores)


def _training_charts(report: Report) -> dict[str, charts.Chart]:
    """Title → chart, for the curves that the method has."""
    history = report.history
    drawn = {
        "Losses on the training images": charts.curves_chart(history, LOSSES, "Training losses by epoch"),
        "Metrics on the validation images": charts.curves_chart(
            history, VALIDATION_METRICS, "Validation metrics by epoch"
        ),
    }
    if report.learns_soft_labels:
        drawn["Softness p̄ of the soft labels"] = charts.softness_chart(
            history, report.epoch("lowest_softness_epoch"), report.epoch("converged_epoch")
        )
    return drawn


def _epoch_table(report: Report) -> pd.DataFrame:
    """The data of the training charts, one row per epoch."""
    titles = dict(LOSSES)
    if report.learns_soft_labels:
        titles["softness"] = "p̄"
    titles |= VALIDATION_METRICS
    shown = {column: title for column, title in titles.items() if has_numbers(report.history, column)}
    return pd.DataFrame(report.history.set_index("epoch"), columns=list(shown)).rename(columns=shown)


def _soft_label_matrix(report: Report) -> MatrixView | None:
    """The learned soft labels, None for a method that learns none."""
    soft_labels = report.run.learned_soft_labels
    return None if soft_labels is None else matrix_view(soft_labels, report.run.classes, lambda cell: decimals(cell, 2))


def _confusion_matrix(report: Report) -> MatrixView:
    """The number of images of each true and predicted class, coloured by their share of the true class."""
    return matrix_view(report.run.confusion_shares, report.run.classes, str, report.run.confusion)


def _curve_charts(report: Report) -> dict[str, charts.Chart]:
    """Title → chart; empty if no class has curves."""
    if not report.curves:
        return {}
    legend = {name: name if full == name else f"{full} ({name})" for name, full in report.full_names.items()}
    return {
        "ROC: sensitivity by false-positive rate": charts.roc_chart(report.curves, legend),
        "Precision by recall": charts.precision_recall_chart(report.curves, legend),
    }


def _curves_note(report: Report) -> str:
    """Which classes the charts omit and why; empty if they omit none."""
    drawn = {curve.name for curve in report.curves}
    images = dict(zip(report.run.classes, report.run.confusion.sum(axis=1), strict=True))
    undefined = [name for name, count in images.items() if count in (0, len(report.run.labels))]
    words: list[str] = []
    if undefined:
        reason = "a curve needs validation images of the class and of others"
        words.append(f"Without {', '.join(undefined)}: {reason}.")
    if others := len(images) - len(drawn) - len(undefined):
        words.append(f"The {len(drawn)} classes with the most validation images are drawn, {others} are not.")
    return " ".join(words)


def _likenesses(report: Report) -> list[Likeness]:
    """The tests of the learned matrix against other matrices; empty for a method that learns none."""
    soft_labels = report.run.learned_soft_labels
    if soft_labels is None:
        return []
    counts = report.training_counts
    others: list[tuple[str, ArrayLike | None, str]] = [
        ("class counts alone", count_pattern(counts) if all(counts) else None, "a class has no training image"),
        (
            "the model's own confusions",
            confused_similarity(report.run.confusion),
            "a class has no validation image",
        ),
    ]
    in_features = report.similarity.get("similarity")
    others.append(("the similarity in the network's features", in_features, report.similarity.get("note", "")))
    if report.planted is not None:
        others.append(("the similarity planted in the sample", report.planted, ""))
    found: list[Likeness] = []
    for name, other, note in others:
        if other is None:
            found.append(Likeness(name, None, note))
        else:
            found.append(Likeness(name, mantel_test(soft_labels, other), ""))
    return found


def _count_share(report: Report) -> CountShare | None:
    """The share of the learned matrix that class counts explain; None if undefined or if nothing was learned."""
    soft_labels = report.run.learned_soft_labels
    if soft_labels is None or not all(report.training_counts):
        return None
    return share_explained_by_counts(soft_labels, report.training_counts)


def _confident_mistakes(report: Report, most: int = MISTAKES) -> list[Mistake]:
    """The misclassified images with the highest probability, the most confident first, with ties in order of names."""
    run = report.run
    confidence = run.probabilities.max(axis=1)
    surest = np.argsort(-confidence, kind="stable")
    chosen = surest[~run.hits[surest]][:most]
    images = [str(run.truth.index[row]) for row in chosen]
    crops = [central_crop(report.cache[row], report.params.crop) for row in report.cache.rows(images)]
    names = [report.full_names[name] for name in run.classes]
    return [
        Mistake(
            image, names[int(run.labels[row])], names[int(run.predicted[row])], float(confidence[row]), _thumbnail(crop)
        )
        for image, row, crop in zip(images, chosen, crops, strict=True)
    ]


def _image_pairs(report: Report, most: int = SHOWN_IMAGE_PAIRS) -> list[ImagePair]:
    """The images of the classes that are most similar in the network's features."""

    def source_of(image: str) -> str:
        [row] = report.cache.rows([image])
        return f"data:image/png;base64,{_thumbnail(central_crop(report.cache[row], report.params.crop))}"

    names = report.full_names
    chosen = [pair for pair in report.similarity["pairs"][:most] if "nearest" in pair]
    full = [pair | {side: names.get(pair[side], pair[side]) for side in ("a", "b")} for pair in chosen]
    return [image_pair(pair, source_of) for pair in full]


def _thumbnail(pixels: NDArray[np.uint8]) -> str:
    """A square RGB image, at most ``THUMBNAIL`` wide, as PNG in base64."""
    return png(Image.fromarray(resize(Image.fromarray(pixels), min(THUMBNAIL, len(pixels)))))


def _settings(params: ReportParams) -> dict[str, Any]:
    """The params by name; those of the generated sample and of related methods only if they were used."""
    unused = set() if params.dataset == "sample" else {"sample"}
    if params.method not in Peers.model_fields:
        unused.add("peers")
    return dict(sorted(flat(params.model_dump(exclude=unused)).items()))
