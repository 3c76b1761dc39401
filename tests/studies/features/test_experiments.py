"""The experiments of the study of features: every one in small, and the committed cells."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from cclnet.dataset.isic import CLASSES
from cclnet.system.errors import CCLNetError
from cclnet.system.files import read_json
from studies.features import classifiers, counts, course, estimators, network, overlaps, running, sizes
from studies.features.data import FixedFeatures
from studies.features.records import rounded, soft_labels_of_distances, square
from studies.features.report import write
from studies.running.settings import ROOT

FOLDER = ROOT / "studies" / "features"


@pytest.fixture
def features(tmp_path: Path) -> FixedFeatures:
    """Features of 700 images of seven classes that lie apart, 350 lesions of two images each."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(700) % 7, 1)
    vectors = 6 * np.eye(7)[labels] + generator.normal(size=(700, 7))
    wide = np.hstack([vectors, 0.1 * generator.normal(size=(700, 293))])
    names = np.array([CLASSES[label] for label in labels])
    groups = np.array([f"lesion{row // 14 * 7 + row % 7}" for row in range(700)])
    np.savez(tmp_path / "features.npz", features=wide, labels=names, groups=groups)
    return FixedFeatures(tmp_path / "features.npz")


def test_recorded_cells_give_the_matrix_back():
    matrix = np.array([[0, 0.1, 0.2], [0.1, 0, 0.3], [0.2, 0.3, 0]])
    assert rounded(matrix) == [0.1, 0.2, 0.3]
    assert square(rounded(matrix)) == pytest.approx(matrix)
    labels = soft_labels_of_distances(rounded(matrix))
    assert labels[0] == pytest.approx(np.exp([0, -0.1, -0.2]) / np.exp([0, -0.1, -0.2]).sum())


def test_no_lesion_is_on_both_sides_and_every_image_is_validated_once(features: FixedFeatures):
    seen = []
    for fold in range(5):
        training, validation = features.fold(fold)
        lesions = features.lesions
        assert not set(lesions[training].tolist()) & set(lesions[validation].tolist())
        seen += validation.tolist()
    assert sorted(seen) == list(range(700))


def test_features_are_principal_components_of_one_scale(features: FixedFeatures):
    assert features.features.shape == (700, 256)
    assert features.features.std(dim=0).mean().item() == pytest.approx(1, abs=0.01)


def test_a_missing_file_of_features_is_named():
    with pytest.raises(CCLNetError, match=r"absent\.npz does not exist; make the features with: cclnet similar"):
        FixedFeatures(Path("absent.npz"))


def test_counts_in_small(monkeypatch: pytest.MonkeyPatch, features: FixedFeatures):
    monkeypatch.setattr(counts, "STEPS", 3)
    found = counts.run({"kind": "weights", "seed": 0}, features)
    assert len(found["distances"]) == 21
    assert sum(found["counts"]) == 8012


def test_sizes_in_small(monkeypatch: pytest.MonkeyPatch, features: FixedFeatures):
    monkeypatch.setattr(sizes, "READ_AT", (1, 2))
    found = sizes.run({"order": 3}, features)
    assert sorted(found["sizes"]) == sorted(sizes.SIZES.tolist())
    assert {key: len(value) for key, value in found["none"].items()} == {"1": 21, "2": 21}
    assert len(found["class_means"]) == len(found["predictions"]) == 21


@pytest.mark.parametrize("balance", ["none", "cross_fitted"])
def test_course_in_small(monkeypatch: pytest.MonkeyPatch, features: FixedFeatures, balance: str):
    monkeypatch.setattr(course, "EPOCHS", 2)
    found = course.run({"balance": balance, "rate": 0.005, "labels": "original", "seed": 0}, features)
    assert {len(values) for values in found.values()} == {2}
    assert all(1 / 7 < value < 1 for value in found["softness"])


def test_shuffled_labels_cannot_be_predicted(monkeypatch: pytest.MonkeyPatch, features: FixedFeatures):
    monkeypatch.setattr(course, "EPOCHS", 20)
    place = {"balance": "weights", "rate": 0.05, "seed": 0}
    own, shuffled = (
        course.run({**place, "labels": labels}, features)["validation_accuracy"][-1]
        for labels in ("original", "shuffled")
    )
    assert own > 0.9
    assert shuffled < 0.5


def test_estimators_in_small(features: FixedFeatures):
    found = estimators.run({"estimator": "class_means", "seed": 0}, features)
    assert len(found["distances"]) == len(found["similarity"]) == len(found["shuffled"]) == 21
    assert 0 <= found["explained_by_counts"] <= 1


def test_the_logistic_regression_has_not_seen_the_fold(features: FixedFeatures):
    inputs, labels = features.features.double().numpy(), features.labels.numpy()
    folds = np.arange(700) % 3
    found = overlaps.logistic(inputs, labels, folds)
    for fold in range(3):
        inside, out = folds != fold, folds == fold
        mean, deviation = inputs[inside].mean(axis=0), inputs[inside].std(axis=0)
        classifier = LogisticRegression(max_iter=1000).fit((inputs[inside] - mean) / deviation, labels[inside])
        assert found[out] == pytest.approx(classifier.predict_proba((inputs[out] - mean) / deviation), abs=1e-6)


def test_overlaps_of_every_two_classes(monkeypatch: pytest.MonkeyPatch):
    def find_overlapping_classes(labels: Any, pred_probs: Any) -> pd.DataFrame:
        columns = ["Class Index A", "Class Index B", "Joint Probability"]
        return pd.DataFrame([(2, 0, 0.3), (0, 1, 0.2), (1, 2, 0.1)], columns=columns)

    module = ModuleType("cleanlab.dataset")
    module.find_overlapping_classes = find_overlapping_classes  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "cleanlab", ModuleType("cleanlab"))
    monkeypatch.setitem(sys.modules, "cleanlab.dataset", module)
    found = overlaps.overlaps(np.arange(3), np.eye(3))
    assert found.tolist() == [[0, 0.2, 0.3], [0.2, 0, 0.1], [0.3, 0.1, 0]]


def test_cleanlab_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cleanlab", None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(CCLNetError, match="the experiment overlaps needs cleanlab: pip install cleanlab"):
        overlaps.overlaps(np.arange(3), np.eye(3))


@pytest.mark.parametrize("method", classifiers.METHODS)
def test_classifiers_in_small(monkeypatch: pytest.MonkeyPatch, features: FixedFeatures, method: str):
    monkeypatch.setattr(classifiers, "EPOCHS", 12)
    found = classifiers.run({"method": method, "fold": 0}, features)
    assert found["accuracy"] > 0.7  # by chance 1/7
    assert found["images"] == len(features.fold(0)[1])
    assert ("distances" in found) == (method in ("ccl", "ccl_balanced"))


def test_network_in_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    small = {"sample.images": 140, "short_side": 18, "crop": 16, "batch_size": 40}
    every = network.all_settings
    monkeypatch.setattr(network, "all_settings", lambda settings: every(settings) | small)
    monkeypatch.setattr(network, "ROOT", tmp_path)
    monkeypatch.setattr(network, "EPOCHS", 1)
    place = {"method": "weights", "labels": "original", "imbalance": 2, "data": 0, "seed": 0}
    found = network.run(place, FixedFeatures(None))
    assert {len(values) for values in found.values()} == {1}
    assert -1 <= found["predictions_all"][0] <= 1


def test_cells_are_written_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    runs: list[dict[str, Any]] = []

    class Experiment:
        PLAN: ClassVar = {"counts-a": {"seed": 0}, "counts-b": {"seed": 1}}

        @staticmethod
        def run(settings: dict[str, Any], data: FixedFeatures) -> dict[str, Any]:
            runs.append(settings)
            return {"value": 2 * settings["seed"]}

    monkeypatch.setattr(running, "ROOT", tmp_path)
    monkeypatch.setitem(running.EXPERIMENTS, "counts", Experiment)  # pyright: ignore[reportArgumentType]
    for _ in range(2):
        running.run_missing(["counts"], None)
    assert runs == [{"seed": 0}, {"seed": 1}]
    assert [cell["results"]["value"] for _, cell in running.finished("counts")] == [0, 2]
    assert running.path_of("counts-a").is_file()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with pytest.raises(CCLNetError, match="there is no experiment colours, only counts, sizes"):
        running.run_missing(["colours"], None)
    monkeypatch.setattr(running, "ROOT", tmp_path)
    with pytest.raises(CCLNetError, match="course, sizes: cells are missing, so name the file of features"):
        running.run_missing(["sizes", "course"], None)


def test_the_committed_cells_are_those_of_the_plans():
    plans = {cell: dict(settings) for each in running.EXPERIMENTS.values() for cell, settings in each.PLAN.items()}
    found = {path.stem: read_json(path)["settings"] for path in (FOLDER / "cells").glob("*.json")}
    assert found
    assert {cell: plans.get(cell) for cell in found} == found


def test_the_committed_report_is_that_of_the_cells(tmp_path: Path):
    write(tmp_path)
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == (FOLDER / "report.md").read_text(encoding="utf-8")
