"""Cells as a study would measure them, made up."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cclnet.dataset.isic import CLASSES


def right_every(step: int) -> list[bool]:
    """Of 140 images, one in ``step`` is wrong."""
    return [row % step > 0 for row in range(140)]


def make_cell(folder: Path, name: str, right: Sequence[bool], matrix: NDArray[Any], **results: Any) -> None:
    """Write a cell whose predictions are certain, and right or not; ``results`` replace parts of its JSON."""
    truth = np.arange(len(right)) % len(CLASSES)
    chosen = np.where(right, truth, (truth + 1) % len(CLASSES))
    table = pd.DataFrame(np.eye(len(CLASSES))[chosen], columns=list(CLASSES))
    table.insert(0, "image", [f"image{row}" for row in range(len(right))])
    table.insert(1, "label", [CLASSES[label] for label in truth])
    table.insert(2, "lesion", [f"lesion{row}" for row in range(len(right))])
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv", index=False)
    confusion = np.zeros((len(CLASSES), len(CLASSES)))
    np.add.at(confusion, (truth, chosen), 1)
    scores = {"accuracy": float(np.mean(right)), "kappa": 0.5, "f1": 0.5, "jaccard": 0.5, "balanced_accuracy": 0.5}
    scores |= {"ece": 0.1, "planted_similarity": None}
    scores |= {"lowest_softness_epoch": 2, "converged_epoch": None, "softness_epoch": 2, "softness": 0.5}
    contents = {
        "settings": {},
        "made_by": {"added_in_commit": "0" * 40},
        "ran_on": {"processor": "native", "threads": 1},
        "metrics": scores,
        "training_images": [10, 70, 20, 30, 40, 50, 60],
        "soft_labels": matrix.tolist(),
        "confusion": confusion.tolist(),
        "history": {"softness": [0.6, 0.4, 0.5]},
    }
    (folder / f"{name}.json").write_text(json.dumps(contents | results), encoding="utf-8")
