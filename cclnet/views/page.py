"""One page about one experiment: what came out, how far to trust it, and what it was made of.

The page is complete in itself. Nothing in it depends on when, where or as whom it was made.
"""

import base64
import io
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
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
from cclnet.images.cache import ImageCache
from cclnet.images.decoding import central_crop, resize
from cclnet.metrics.calibration import CALIBRATION_BINS
from cclnet.metrics.likeness import (
    LARGEST_EXACT,
    SAMPLED_ORDERS,
    CountShare,
    MantelTest,
    confused_similarity,
    count_pattern,
    mantel_test,
    share_explained_by_counts,
)
from cclnet.metrics.resampling import RESAMPLES, Interval, clustered_bootstrap, weighted_scores
from cclnet.params import Peers, ReportParams
from cclnet.views import charts
from cclnet.views.figures import LOSSES, VALIDATION_METRICS, has_numbers

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
    "class_means": "Labels from class means",
}
SCORES = {
    "higher is better": {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "f1": "F1, macro",
        "jaccard": "Jaccard index, macro",
        "kappa": "Cohen's κ",
        "auc": "AUC, one against the rest",
    },
    "lower is better": {
        "nll": "negative log-likelihood",
        "brier": "Brier score",
        "ece": "calibration error",
        "classwise_ece": "classwise calibration error",
    },
}
MISTAKES = 12
THUMBNAIL = 128  # pixels


class Score(NamedTuple):
    """A figure of ``metrics/metrics.json``, None where it is undefined; the note says why, or what it leaves out."""

    name: str
    value: float | None
    interval: Interval | None
    note: str


class Likeness(NamedTuple):
    """What the soft-label matrix may follow, and whether it does; without a test, the note says why."""

    name: str
    test: MantelTest | None
    note: str


class Mistake(NamedTuple):
    """An image that was taken for another class; the thumbnail is a PNG as text in base64."""

    image: str
    true_class: str
    predicted_class: str
    probability: float
    thumbnail: str


@dataclass(frozen=True)
class Experiment:
    """What the other stages left of an experiment, as they left it.

    Attributes:
        params: what was asked for.
        metrics: every figure, and the notes on them.
        soft_labels, confusion: the K² cells of a matrix each, the true class the slower to change.
        classes, reliability, history: tables by class, bin and epoch.
        predictions: the K probabilities (columns) of each validation image.
        split: the class, lesion and subset of each image.
        cache: the images.
        provenance: of each file of the dataset.
        conditions: what the result depends on besides.
        planted: the similarity of the classes (K×K) where it is known.
    """

    params: ReportParams
    metrics: dict[str, Any]
    soft_labels: list[dict[str, Any]]
    confusion: list[dict[str, Any]]
    classes: pd.DataFrame
    reliability: pd.DataFrame
    history: pd.DataFrame
    predictions: pd.DataFrame
    split: pd.DataFrame
    cache: ImageCache
    provenance: list[dict[str, Any]]
    conditions: dict[str, Any]
    planted: ArrayLike | None

    @cached_property
    def class_names(self) -> list[str]:
        """The K classes in the order of the data."""
        return list(dict.fromkeys(cell["true_class"] for cell in self.soft_labels))

    @property
    def learns_soft_labels(self) -> bool:
        """Whether the method has the CCL head."""
        return self.params.method == "ccl"

    @cached_property
    def label_matrix(self) -> NDArray[np.float64]:
        """The labels that trained the classifier, K×K."""
        return self._matrix(self.soft_labels, "value")

    @cached_property
    def confusion_matrix(self) -> NDArray[np.float64]:
        """Images by true class (row) and predicted class, K×K."""
        return self._matrix(self.confusion, "count")

    @cached_property
    def validation(self) -> pd.DataFrame:
        """The validation images as the split has them, in the order of the predictions."""
        return self.split.set_index("image", drop=False).loc[self.predictions["image"]]

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The true class of each validation image, 0 … K − 1."""
        return np.array([self.class_names.index(name) for name in self.validation["label"]])

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """What was predicted for the validation images, n×K."""
        return self.predictions[self.class_names].to_numpy(np.float64)

    @cached_property
    def training_counts(self) -> list[int]:
        """The training images of each class."""
        counts = Counter(self.split.loc[self.split["subset"] == "train", "label"])
        return [counts[name] for name in self.class_names]

    @cached_property
    def confusion_shares(self) -> NDArray[np.float64]:
        """The same, as shares of the true class; 0 where it has no image."""
        return np.nan_to_num(self._matrix(self.confusion, "share"))

    def _matrix(self, cells: list[dict[str, Any]], key: str) -> NDArray[np.float64]:
        return np.array([cell[key] for cell in cells], dtype=np.float64).reshape(len(self.class_names), -1)


def report_page(experiment: Experiment) -> str:
    """The page as HTML, the same for the same experiment."""
    environment = Environment(
        loader=FileSystemLoader(PAGES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"decimals": decimals, "setting": setting}
    return environment.get_template("report.html").render(
        experiment=experiment,
        method=METHODS[experiment.params.method],
        scores=scores(experiment),
        resamples=RESAMPLES,
        training_charts=training_charts(experiment),
        epochs=epoch_table(experiment),
        likenesses=likenesses(experiment),
        orders=number_of_orders(len(experiment.class_names)),
        count_share=count_share(experiment),
        reliability_charts={
            "Reliability: accuracy by confidence": charts.reliability_chart(experiment.reliability),
            "Images in each bin": charts.confidence_chart(experiment.reliability, CALIBRATION_BINS),
        },
        bins=CALIBRATION_BINS,
        mistakes=confident_mistakes(experiment),
        settings=settings(experiment.params),
        conditions=flat({"cclnet": __version__} | experiment.conditions),
        libraries=drawing_libraries(),
    )


def scores(experiment: Experiment) -> dict[str, list[Score]]:
    """Every figure of merit with its interval where the bootstrap gives one, under which way is the better one."""
    intervals = clustered_bootstrap(
        weighted_scores(experiment.labels, experiment.probabilities), experiment.validation["lesion"]
    )
    notes = experiment.metrics.get("notes", {})
    return {
        better: [
            Score(title, experiment.metrics[name], intervals.get(name), notes.get(name, ""))
            for name, title in titles.items()
        ]
        for better, titles in SCORES.items()
    }


def training_charts(experiment: Experiment) -> dict[str, charts.Chart]:
    """Title → chart, of what the method has."""
    history, metrics = experiment.history, experiment.metrics
    drawn = {
        "Losses on the training images": charts.curves_chart(history, LOSSES, "Training losses by epoch"),
        "Metrics on the validation images": charts.curves_chart(
            history, VALIDATION_METRICS, "Validation metrics by epoch"
        ),
    }
    if experiment.learns_soft_labels:
        drawn["Softness p̄ of the soft labels"] = charts.softness_chart(
            history, metrics["lowest_softness_epoch"], metrics["converged_epoch"]
        )
    return drawn


def epoch_table(experiment: Experiment) -> pd.DataFrame:
    """What the training charts show, a row each epoch."""
    history = experiment.history
    titles = LOSSES | ({"softness": "p̄"} if experiment.learns_soft_labels else {}) | VALIDATION_METRICS
    shown = {column: title for column, title in titles.items() if has_numbers(history, column)}
    return pd.DataFrame(history.set_index("epoch"), columns=list(shown)).rename(columns=shown)


def likenesses(experiment: Experiment) -> list[Likeness]:
    """What the learned matrix is compared with; empty for a method that learns none."""
    if not experiment.learns_soft_labels:
        return []
    counts = experiment.training_counts
    others: list[tuple[str, ArrayLike | None, str]] = [
        (
            "class counts alone",
            count_pattern(counts) if all(counts) else None,
            "a class has no training image",
        ),
        (
            "the model's own confusions",
            confused_similarity(experiment.confusion_matrix),
            "a class has no validation image",
        ),
    ]
    if experiment.planted is not None:
        others.append(("the similarity planted in the sample", experiment.planted, ""))
    return [
        Likeness(name, None, note) if other is None else Likeness(name, mantel_test(experiment.label_matrix, other), "")
        for name, other, note in others
    ]


def count_share(experiment: Experiment) -> CountShare | None:
    """How much of the learned matrix class counts explain; None where that has no answer, or nothing was learned."""
    if not experiment.learns_soft_labels or not all(experiment.training_counts):
        return None
    return share_explained_by_counts(experiment.label_matrix, experiment.training_counts)


def number_of_orders(num_classes: int) -> int:
    """How many orders of the classes a Mantel test goes through."""
    if num_classes <= LARGEST_EXACT:
        return math.factorial(num_classes)
    return 1 + SAMPLED_ORDERS


def confident_mistakes(experiment: Experiment, most: int = MISTAKES) -> list[Mistake]:
    """The mistakes with the highest probability, the surest first and equals in the order of the predictions."""
    predicted, confidence = experiment.probabilities.argmax(axis=1), experiment.probabilities.max(axis=1)
    surest = np.argsort(-confidence, kind="stable")
    chosen = surest[(predicted != experiment.labels)[surest]][:most]
    images = [str(experiment.predictions["image"].iloc[row]) for row in chosen]
    rows = experiment.cache.rows(images)
    crops = [central_crop(experiment.cache[row], experiment.params.crop) for row in rows]
    names = experiment.class_names
    return [
        Mistake(image, names[experiment.labels[row]], names[predicted[row]], float(confidence[row]), thumbnail(crop))
        for image, row, crop in zip(images, chosen, crops, strict=True)
    ]


def thumbnail(pixels: NDArray[np.uint8]) -> str:
    """A square image (RGB) as PNG in base64, no larger than ``THUMBNAIL``."""
    picture = io.BytesIO()
    Image.fromarray(resize(Image.fromarray(pixels), min(THUMBNAIL, len(pixels)))).save(picture, format="PNG")
    return base64.b64encode(picture.getvalue()).decode("ascii")


def settings(params: ReportParams) -> dict[str, Any]:
    """The params by name; those of the drawn sample and of other works' methods only where they were used."""
    unused = set() if params.dataset == "sample" else {"sample"}
    if params.method not in Peers.model_fields:
        unused.add("peers")
    return dict(sorted(flat(params.model_dump(exclude=unused)).items()))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one: ``{"sample": {"seed": 0}}`` as ``{"sample.seed": 0}``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def setting(value: Any) -> str:
    """A param as ``params.yaml`` has it."""
    return value if isinstance(value, str) else json.dumps(value)


def decimals(value: float | None, places: int = 3) -> str:
    """A number as text, a dash for none."""
    return "–" if value is None or math.isnan(value) else f"{value:.{places}f}".replace("-", "−")


def drawing_libraries() -> str:
    """Vega, Vega-Lite and Vega-Embed as script elements, with their licences, out of the page of DVC's plots."""
    page = (PAGES / "plots.html").read_text(encoding="utf-8")
    return "\n".join(re.findall(r"<!-- Vega.*?-->|<script data-file=.*?</script>", page, re.DOTALL))
