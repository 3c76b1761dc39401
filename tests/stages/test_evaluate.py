"""What the evaluation writes, counted again from the predictions; and its parts on made-up input."""

import csv
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

from cclnet.dataset.isic import CLASSES
from cclnet.dataset.splits import read_split
from cclnet.images.cache import ImageCache
from cclnet.metrics.score_table import read_scores
from cclnet.networks.model import load_model
from cclnet.system.files import read_json, write_json
from stages import evaluate
from tests.networks.builders import description
from tests.stages.builders import Copied


class Predicted(NamedTuple):
    """A validation image: its class, the predicted one, and the probability of its class."""

    label: str
    best: str
    given: float


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def predicted(finished: Path) -> dict[str, Predicted]:
    """What is predicted of each validation image."""
    label_of = {row["image"]: row["label"] for row in rows_of(finished / "data/split.csv") if row["subset"] != "train"}
    found = {}
    for row in rows_of(finished / "metrics/predictions.csv"):
        probabilities, label = {name: float(row[name]) for name in CLASSES}, label_of[row["image"]]
        found[row["image"]] = Predicted(label, max(CLASSES, key=probabilities.__getitem__), probabilities[label])
    assert found.keys() == label_of.keys()
    return found


def accuracy(images: Iterable[Predicted]) -> float:
    return mean(image.label == image.best for image in images)


def test_metrics_are_those_of_the_predictions(finished: Path, predicted: dict[str, Predicted]):
    metrics, scores = read_json(finished / "metrics/metrics.json"), read_scores(finished / "metrics/scores.csv")
    of_class = {name: [image for image in predicted.values() if image.label == name] for name in CLASSES}
    assert metrics["accuracy"] == scores["accuracy"].value == pytest.approx(accuracy(predicted.values()))
    assert scores["balanced_accuracy"].value == pytest.approx(mean(map(accuracy, of_class.values())))
    loss = -mean(math.log(image.given) for image in predicted.values())
    assert scores["nll"].value == pytest.approx(loss, rel=1e-6)
    low, value, high = (getattr(scores["accuracy"], name) for name in ("low", "value", "high"))
    assert low <= value <= high
    for row in rows_of(finished / "metrics/classes.csv"):
        assert int(row["images"]) == len(of_class[row["class"]])
        assert float(row["sensitivity"]) == pytest.approx(accuracy(of_class[row["class"]]))


def test_the_confusions_are_counted(finished: Path, predicted: dict[str, Predicted]):
    counts = Counter((image.label, image.best) for image in predicted.values())
    cells = read_json(finished / "metrics/confusion.json")
    assert len(cells) == 49
    found = {(cell["true_class"], cell["predicted_class"]): cell["count"] for cell in cells}
    assert found == {(a, b): counts[a, b] for a in CLASSES for b in CLASSES}


def test_the_soft_labels_are_those_of_the_model(finished: Path):
    _, model = load_model(finished / "models/model.safetensors")
    cells = read_json(finished / "metrics/soft_labels.json")
    found = np.array([cell["value"] for cell in cells]).reshape(7, 7)
    np.testing.assert_allclose(found, model.label_matrix, atol=1e-6)
    scores = read_scores(finished / "metrics/scores.csv")
    assert scores["softness"].value == pytest.approx(found.diagonal().mean(), abs=1e-6)


def test_test_images_are_scored_like_any_others(finished: Path, predicted: dict[str, Predicted]):
    model, described = load_model(finished / "models/model.safetensors")
    cache = ImageCache.open(finished / "data/images.npy", finished / "data/images.csv")
    split = read_split(finished / "data/split.csv")
    cpu = torch.device("cpu")
    assert evaluate.scores_of_test_images(model, described, cache, split, cpu) == {}
    some = list(predicted)[:8]
    split.loc[split["image"].isin(some), "subset"] = "test"
    scores = evaluate.scores_of_test_images(model, described, cache, split, cpu)
    assert scores["test_accuracy"].value == pytest.approx(accuracy(predicted[image] for image in some))
    assert all(name.startswith("test_") for name in scores)


@pytest.mark.parametrize(
    ("changes", "epochs", "note"),
    [
        ({}, [3, 3, None], "the dictionary was never frozen"),
        ({"converged_epoch": 7}, [3, 3, 7], ""),
        ({"softness_epoch": None, "lowest_softness_epoch": None}, [None] * 3, "no CCL head"),
    ],
)
def test_epochs_that_never_came_have_a_reason(changes: dict[str, int | None], epochs: list[int | None], note: str):
    scores = evaluate.training_scores(replace(description(), **changes))
    names = ("softness_epoch", "lowest_softness_epoch", "converged_epoch")
    assert [scores[name].value for name in names] == epochs
    assert {scores[name].note for name in names if scores[name].value is None} == ({note} if note else set())
    assert scores["softness"].value == 1.6 / 3


def test_lesions_come_in_the_order_of_the_images():
    split = pd.DataFrame({"image": ["a", "b", "c"], "lesion": ["L1", "L2", "L1"]})
    assert evaluate.lesions_of(["c", "b", "c"], split) == ["L1", "L2", "L1"]


def test_a_similarity_that_cannot_be_measured_has_a_reason():
    features = np.random.default_rng(0).normal(size=(4, 3))
    similarity, reason = evaluate.similarity_in(features, ["a", "b", "a", "b"], ["1", "2", "3", "4"], ["a", "b", "c"])
    assert similarity is None
    assert reason.startswith("the similarity of classes cannot be measured: ")


def test_copies_across_the_subsets_are_noted(finished: Path, copied: Copied):
    folder = copied("data")
    split = read_split(folder / "data/split.csv")
    training, validation = (split.loc[split["subset"] == name, "image"].iloc[0] for name in ("train", "validation"))
    assert "copies" not in evaluate.leakage_score(split, CLASSES).note
    record = read_json(folder / "data/images.json")
    write_json(folder / "data/images.json", record | {"identical": [sorted([training, validation])]})
    score = evaluate.leakage_score(split, CLASSES)
    assert score.note.endswith("5.0% of the validation images are copies of training images, or nearly")
    assert score.value == read_scores(finished / "metrics/scores.csv")["leakage"].value
