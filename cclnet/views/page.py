"""A report page of one experiment: its results, their uncertainty, and its settings.

The page is self-contained. It does not depend on the time, the place or the user.
"""

import base64
import hashlib
import io
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
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
from cclnet.params import Peers, ReportParams
from cclnet.system.errors import DataError
from cclnet.views import charts
from cclnet.views.figures import LEGIBLE_CLASSES, has_numbers
from cclnet.views.image_pairs import ImagePair, image_pair

PAGES = Path(__file__).parent / "pages"

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
PAIRS = 20  # of classes that are listed for a matrix that is too large to print
THUMBNAIL = 128  # pixels
CELL_COLOUR = (86, 180, 233)  # of the cells of a matrix that is too large to print, for light and dark mode


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


class Matrix(NamedTuple):
    """A K×K matrix for display on the page.

    Attributes:
        shares: the cells in [0, 1], which determine the colours.
        numbers: the printed values of the cells.
        picture: for matrices that are too large to print, the off-diagonal shares relative to the largest as a PNG in
            base64; otherwise empty.
        pairs: for such matrices, the largest off-diagonal cells: the row's class, the column's class, the number.
    """

    shares: NDArray[np.float64]
    numbers: ArrayLike
    picture: str
    pairs: list[tuple[str, str, float]]


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
            method=METHODS[report.params.method],
            scores=_scores(report),
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
            mistakes=_confident_mistakes(report),
            image_pairs=_image_pairs(report),
            settings=_settings(report.params),
            conditions=_flat({"cclnet": __version__} | report.conditions),
            libraries=_drawing_libraries(),
            script_sources=_script_sources(),
        )
    )


def page_environment() -> Environment:
    """What fills the templates of pages: everything is escaped."""
    environment = Environment(
        loader=FileSystemLoader(PAGES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"decimals": _decimals, "setting": _setting}
    return environment


def _scores(report: Report) -> dict[str, list[tuple[Metric, Score]]]:
    """The scores of the predictions, grouped by higher or lower is better; then those of test images, if any."""
    scores: dict[str, list[tuple[Metric, Score]]] = {HIGHER_IS_BETTER: [], LOWER_IS_BETTER: [], TEST_IMAGES: []}
    for name, metric in METRICS.items():
        if metric.group in scores and name in report.run.scores:
            scores[metric.group].append((metric, report.run.scores[name]))
    return {group: found for group, found in scores.items() if found}


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


def _soft_label_matrix(report: Report) -> Matrix | None:
    """The learned soft labels, None for a method that learns none."""
    soft_labels = report.run.learned_soft_labels
    return None if soft_labels is None else _matrix(soft_labels, soft_labels, report.run.classes)


def _confusion_matrix(report: Report) -> Matrix:
    """The number of images of each true and predicted class, coloured by their share of the true class."""
    counts = report.run.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return _matrix(shares, counts, report.run.classes)


def _matrix(shares: NDArray[np.float64], numbers: NDArray[Any], classes: Sequence[str]) -> Matrix:
    if len(classes) <= LEGIBLE_CLASSES:
        return Matrix(shares, numbers, "", [])
    beside = np.where(np.eye(len(classes), dtype=bool), 0, shares)
    largest = np.argsort(-beside, axis=None, kind="stable")[:PAIRS]
    places = zip(*np.unravel_index(largest, shares.shape), strict=True)
    pairs = [(classes[int(row)], classes[int(column)], float(numbers[row, column])) for row, column in places]
    return Matrix(shares, numbers, _matrix_picture(beside), pairs)


def _matrix_picture(shares: NDArray[np.float64]) -> str:
    """An image with one pixel per cell, whose opacity increases with the value."""
    opacity = np.rint(255 * shares / (shares.max() or 1)).astype(np.uint8)
    pixels = np.dstack([*(np.full_like(opacity, channel) for channel in CELL_COLOUR), opacity])
    return png(Image.fromarray(pixels))


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
    names = run.classes
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

    chosen = [pair for pair in report.similarity["pairs"][:most] if "nearest" in pair]
    return [image_pair(pair, source_of) for pair in chosen]


def _thumbnail(pixels: NDArray[np.uint8]) -> str:
    """A square RGB image, at most ``THUMBNAIL`` wide, as PNG in base64."""
    return png(Image.fromarray(resize(Image.fromarray(pixels), min(THUMBNAIL, len(pixels)))))


def png(image: Image.Image) -> str:
    """An image as PNG in base64."""
    picture = io.BytesIO()
    image.save(picture, format="PNG")
    return base64.b64encode(picture.getvalue()).decode("ascii")


def _settings(params: ReportParams) -> dict[str, Any]:
    """The params by name; those of the generated sample and of related methods only if they were used."""
    unused = set() if params.dataset == "sample" else {"sample"}
    if params.method not in Peers.model_fields:
        unused.add("peers")
    return dict(sorted(_flat(params.model_dump(exclude=unused)).items()))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings: ``{"sample": {"seed": 0}}`` becomes ``{"sample.seed": 0}``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _setting(value: Any) -> str:
    """A param in the notation of ``params.yaml``."""
    return value if isinstance(value, str) else json.dumps(value)


def _decimals(value: float | None, places: int = 3) -> str:
    """Format a number; a dash for None and NaN."""
    return "–" if value is None or math.isnan(value) else f"{value:.{places}f}".replace("-", "−")


def _drawing_libraries() -> str:
    """The script elements of Vega, Vega-Lite and Vega-Embed with their licences, from the page of DVC's plots."""
    return "\n".join(re.findall(r"<!-- Vega.*?-->|<script data-file=.*?</script>", _page("plots.html"), re.DOTALL))


def _script_sources() -> str:
    """The hashes of all allowed scripts for the Content-Security-Policy: the libraries and the page's own scripts."""
    scripts = re.findall(
        r"<script(?: data-file=[^>]*)?>(.*?)</script>", _drawing_libraries() + _page("report.html"), re.DOTALL
    )
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


def _page(name: str) -> str:
    return (PAGES / name).read_text(encoding="utf-8")
