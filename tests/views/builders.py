"""A report, made up, and a page read back."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from cclnet.experiments.run import Run
from cclnet.images.cache import ImageCache
from cclnet.metrics.calibration import reliability_table
from cclnet.metrics.score_table import Score, score_predictions
from cclnet.metrics.scores import class_table
from cclnet.params import Params, ReportParams
from cclnet.views.page import Report

PROJECT = Path(__file__).parents[2]
HEAD = ["ccl_loss", "class_correlation_loss"]
VALIDATION = [f"validation_{name}" for name in ("accuracy", "balanced_accuracy", "f1", "kappa", "jaccard")]
HOSTILE = ["<script>alert(1)</script>", 'A & "B"', "</table>'", "{{ 7 * 7 }}"]


VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """What is on the page: tables by caption, images, scripts, definitions, text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.comments: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self._cells: list[list[str]] = []
        self.feed(source)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        match tag:
            case "table":
                self._cells = []
            case "caption":
                self._caption = ""
            case "tr":
                self._cells.append([])
            case "td" | "th":
                self._cells[-1].append("")
            case "script":
                self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "table":
            assert self._caption not in self.tables
            self.tables[self._caption] = self._cells

    def handle_data(self, data: str) -> None:
        if "script" in self._open:
            self.scripts[-1] += data
        elif "style" not in self._open:
            self.text += data
        if "caption" in self._open:
            self._caption += data
        elif {"td", "th"} & set(self._open):
            self._cells[-1][-1] += data

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def table(self, start: str) -> list[list[str]]:
        [found] = [cells for caption, cells in self.tables.items() if caption.startswith(start)]
        return found

    def row(self, table: str, first: str) -> list[str]:
        [found] = [cells for cells in self.table(table) if cells[0].startswith(first)]
        return found[1:]

    def charts(self) -> list[dict[str, Any]]:
        pairs = zip([attrs for tag, attrs in self.elements if tag == "script"], self.scripts, strict=True)
        return [json.loads(text) for attrs, text in pairs if attrs.get("type") == "application/json"]

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.elements if tag in tags]


def made_up_report(
    classes: list[str] = HOSTILE, images: int = 100, lacking: str | None = None, **changed: Any
) -> Report:
    """An experiment with random predictions of random images, evaluated as the stage does."""
    rng = np.random.default_rng(3)
    values = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    params = Params.model_validate(values | changed).stage(ReportParams)
    num_classes, validated = len(classes), images // 2
    labels = np.minimum(rng.geometric(0.4, images), num_classes) - 1  # the first class is the largest
    labels[:num_classes] = labels[-num_classes:] = np.arange(num_classes)  # none lacks in training or validation
    if lacking is not None:  # in the validation images
        labels[:validated][labels[:validated] == classes.index(lacking)] = 0
    names = [f"ISIC_{number:07}" for number in range(images)]
    split = pd.DataFrame(
        {
            "image": names,
            "label": [classes[label] for label in labels],
            "lesion": [f"HAM_{number // 3}" for number in range(images)],
            "subset": ["validation"] * validated + ["train"] * (images - validated),
        }
    )
    truth, true = split[:validated].set_index("image")[["label", "lesion"]], labels[:validated]
    # float32 as the network's; some images are as sure as others
    logits = rng.integers(0, 3, (validated, num_classes)) + np.eye(num_classes)[true]
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    history = pd.DataFrame(rng.random((6, 9)), columns=["classification_loss", *HEAD, "softness", *VALIDATION])
    history.insert(0, "epoch", range(1, 7))
    learns = params.method == "ccl"
    if not learns:
        history[HEAD] = np.nan
    epochs = {"softness_epoch": 2, "lowest_softness_epoch": 2, "converged_epoch": 5}
    scores = score_predictions(true, probabilities, classes, truth["lesion"]) | {"leakage": Score(0.25)}
    scores |= {"softness": Score(0.4321)} | {name: Score(epoch if learns else None) for name, epoch in epochs.items()}
    size = params.short_side, params.short_side + 12
    return Report(
        run=Run(
            name="workspace",
            classes=classes,
            truth=pd.DataFrame(truth),
            probabilities=probabilities.astype(np.float64),
            soft_labels=rng.dirichlet(np.ones(num_classes), num_classes),
            scores=scores,
        ),
        params=params,
        class_table=class_table(true, probabilities, classes),
        reliability=reliability_table(true, probabilities),
        history=history,
        split=split,
        cache=ImageCache(
            rng.integers(0, 256, images * size[0] * size[1] * 3, dtype=np.uint8),
            names,
            np.full(images, size[0]),
            np.full(images, size[1]),
            np.arange(images) * size[0] * size[1] * 3,
        ),
        provenance=[{"name": "images.zip", "bytes": 1234567, "sha256": "ab" * 32, "source": "/home/somebody/data"}],
        conditions={"processor": "portable", "threads": 2, "versions": {"torch": "2.15.0"}},
        planted=rng.random((num_classes, num_classes)) if params.dataset == "sample" else None,
    )
