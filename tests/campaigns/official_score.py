"""Our figures against the challenge's own scoring program, ``isic-challenge-scoring``: ``make official-score``.

Not collected by a plain ``pytest``: the program has an environment of its own, and this fails where there is none. What
the two define differently is written down in ``docs/evidence/official-score.md``.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from cclnet.dataset.isic import CLASSES
from cclnet.metrics.score_table import read_scores
from cclnet.metrics.scores import class_table, evaluate
from cclnet.system.files import write_csv

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / ".venv-official" / "bin" / "isic-challenge-scoring"
IMAGES_OF_CLASS = [111, 670, 51, 33, 110, 11, 14]  # a tenth of ISIC 2018


def write_table(path: Path, images: list[str], values: NDArray[np.float64]) -> None:
    """A table in the challenge's format, as the evaluate stage writes its predictions."""
    table = pd.DataFrame(values, columns=list(CLASSES))
    table.insert(0, "image", images)
    write_csv(path, table)


def score_of_files(truth: Path, predictions: Path) -> dict:
    """What the program says of a submission; it has to accept it."""
    assert PROGRAM.is_file(), "make official-score installs it"
    command = [PROGRAM, "--output", "json", "classification", truth, predictions]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.fixture
def official(tmp_path: Path):
    """The program's score of labels and probabilities, of images with numbers from ``first`` on."""

    def score(labels: NDArray[np.integer], probabilities: NDArray[np.float64], first: int = 24306) -> dict:
        images = [f"ISIC_{first + i:07}" for i in range(len(labels))]
        write_table(tmp_path / "truth.csv", images, np.eye(7)[labels])
        write_table(tmp_path / "predictions.csv", images, probabilities)
        return score_of_files(tmp_path / "truth.csv", tmp_path / "predictions.csv")

    return score


def drawn_labels(seed: int) -> NDArray[np.integer]:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(7), IMAGES_OF_CLASS))


def drawn(seed: int, skill: float = 2.0) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
    """Labels as frequent as in ISIC 2018, and the softmax of logits that know something of them and of frequencies."""
    labels = drawn_labels(seed)
    logits = np.random.default_rng(seed).normal(size=(len(labels), 7)) + 0.5 * np.log(IMAGES_OF_CLASS)
    logits += skill * np.eye(7)[labels]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return labels, exponentials / exponentials.sum(axis=1, keepdims=True)


def same(values: object) -> object:
    return pytest.approx(values, abs=1e-9)


def by_class(labels: NDArray[np.integer], probabilities: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """Our table: figure → class → value, NaN for null."""
    table = class_table(labels, probabilities, CLASSES).set_index("class").astype(float)
    return {str(name): column.to_dict() for name, column in table.items()}


@pytest.mark.parametrize("seed", [0, 1])
def test_balanced_accuracy_and_auc_are_ours(official, seed: int):
    labels, probabilities = drawn(seed)
    score, ours = official(labels, probabilities), evaluate(labels, probabilities)
    assert score["overall"] == score["aggregate"]["balanced_accuracy"] == same(ours["balanced_accuracy"])
    assert score["per_category"]["auc"] == same(by_class(labels, probabilities)["auc"])
    assert score["macro_average"]["auc"] == same(ours["auc"])


def test_figures_of_a_class_are_ours_where_every_image_has_a_class_above_a_half(official):
    labels, probabilities = drawn(2)
    probabilities = probabilities**8
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    sure = probabilities.max(axis=1) > 0.5
    labels, probabilities = labels[sure], probabilities[sure]
    score, ours = official(labels, probabilities)["per_category"], by_class(labels, probabilities)
    assert set(labels) == set(probabilities.argmax(axis=1)) == set(range(7))
    for theirs, name in (
        *(("sensitivity", "sensitivity"), ("specificity", "specificity")),
        *(("ppv", "precision"), ("dice", "f1"), ("auc", "auc")),
    ):
        assert score[theirs] == same(ours[name])


def test_figures_of_a_class_need_a_probability_above_a_half(official):
    labels, probabilities = drawn(3)
    probabilities[::5] = np.where(np.eye(7)[labels[::5]], 0.5, 0.5 / 6)  # the most probable class, and yet not said
    score, ours = official(labels, probabilities), by_class(labels, probabilities)
    positive, said = np.eye(7, dtype=bool)[labels], probabilities > 0.5
    sensitivity = (positive & said).sum(axis=0) / positive.sum(axis=0)
    specificity = (~positive & ~said).sum(axis=0) / (~positive).sum(axis=0)
    assert score["per_category"]["sensitivity"] == same(dict(zip(CLASSES, sensitivity, strict=True)))
    assert score["per_category"]["specificity"] == same(dict(zip(CLASSES, specificity, strict=True)))
    assert all(ours["sensitivity"][name] > score["per_category"]["sensitivity"][name] for name in CLASSES)
    assert score["overall"] == same(evaluate(labels, probabilities)["balanced_accuracy"])


def test_an_image_with_two_most_probable_classes_is_never_right(official):
    labels, probabilities = drawn(4)
    tied = np.arange(0, len(labels), 3)
    probabilities[tied] = 0.5 * (np.eye(7)[labels[tied]] + np.eye(7)[(labels[tied] + 1) % 7])
    score, ours = official(labels, probabilities), evaluate(labels, probabilities)
    unique = (probabilities == probabilities.max(axis=1, keepdims=True)).sum(axis=1) == 1
    right = (probabilities.argmax(axis=1) == labels) & unique
    assert score["overall"] == same(np.mean([right[labels == index].mean() for index in range(7)]))
    assert ours["balanced_accuracy"] > score["overall"] + 0.1  # ours takes the first of equals
    assert score["per_category"]["auc"] == same(by_class(labels, probabilities)["auc"])


def test_probabilities_of_many_images_that_are_equal(official):
    labels, probabilities = drawn(5)
    counts = np.array([np.random.default_rng(i).multinomial(20, row) for i, row in enumerate(probabilities)])
    probabilities = (10 * counts + np.arange(7)) / 221  # of few values, and yet no row with two equal maxima
    assert all(len(np.unique(column)) <= 21 for column in probabilities.T)
    score, ours = official(labels, probabilities), evaluate(labels, probabilities)
    assert score["overall"] == same(ours["balanced_accuracy"])
    assert score["macro_average"]["auc"] == same(ours["auc"])


def test_a_class_without_images(official, tmp_path: Path):
    labels, probabilities = drawn(6)
    kept = labels != CLASSES.index("DF")
    labels, probabilities = labels[kept], probabilities[kept]
    with pytest.raises(AssertionError, match="array of sample points is empty"):
        official(labels, probabilities)
    # its balanced accuracy alone: of the classes that have images, like ours
    program = (
        "import sys\nfrom isic_challenge_scoring import load_csv, metrics\n"
        "truth, weights = load_csv.parse_truth_csv(open(sys.argv[1]))\n"
        "predictions = load_csv.parse_csv(open(sys.argv[2]), truth.columns)\n"
        "print(metrics.balanced_multiclass_accuracy(truth, predictions, weights.score_weight))"
    )
    command = [PROGRAM.with_name("python"), "-c", program, tmp_path / "truth.csv", tmp_path / "predictions.csv"]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    ours = evaluate(labels, probabilities)
    assert float(finished.stdout) == same(ours["balanced_accuracy"])
    assert ours["auc"] is None


def test_a_class_that_is_never_said_has_a_ppv_of_1(official):
    labels, probabilities = drawn(9)
    probabilities[:, CLASSES.index("DF")] /= 1000
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    score = official(labels, probabilities)["per_category"]
    assert score["ppv"]["DF"] == 1
    assert np.isnan(by_class(labels, probabilities)["precision"]["DF"])
    assert score["sensitivity"]["DF"] == by_class(labels, probabilities)["sensitivity"]["DF"] == 0


def test_probabilities_of_0_and_1_are_accepted(official):
    labels = drawn_labels(7)
    probabilities = np.eye(7)[(labels + (np.arange(len(labels)) % 4 == 0)) % 7]
    score = official(labels, probabilities)
    assert score["overall"] == same(evaluate(labels, probabilities)["balanced_accuracy"])
    smallest = probabilities.clip(np.nextafter(0, 1))
    assert official(labels, smallest)["overall"] == score["overall"]


def test_the_program_leaves_out_one_image_by_its_name(official):
    labels, probabilities = drawn(8)
    left_out = 35068 - 34500
    score = official(labels, probabilities, first=34500)
    others = np.arange(len(labels)) != left_out
    assert score["overall"] == same(evaluate(labels[others], probabilities[others])["balanced_accuracy"])


@pytest.mark.parametrize(
    "table", sorted((ROOT / "studies" / "looks" / "cells").glob("*.csv")), ids=lambda path: path.stem
)
def test_predictions_of_real_images(official, table: Path):
    predictions = pd.read_csv(table)
    labels = np.array([CLASSES.index(label) for label in predictions["label"]])
    probabilities = predictions[list(CLASSES)].to_numpy()
    score, ours = official(labels, probabilities), evaluate(labels, probabilities)
    assert score["overall"] == same(ours["balanced_accuracy"])
    assert score["macro_average"]["auc"] == same(ours["auc"])


def test_what_the_pipeline_leaves_is_a_submission(tmp_path: Path):
    chain = [sys.executable, ROOT / "tests" / "campaigns" / "golden.py", tmp_path]
    subprocess.run(chain, check=True, capture_output=True)
    predictions = tmp_path / "metrics" / "predictions.csv"
    split = pd.read_csv(tmp_path / "data" / "split.csv").set_index("image")
    labels = split.loc[pd.read_csv(predictions)["image"], "label"]
    write_table(tmp_path / "truth.csv", labels.index.tolist(), np.eye(7)[[CLASSES.index(label) for label in labels]])
    score = score_of_files(tmp_path / "truth.csv", predictions)
    scores = read_scores(tmp_path / "metrics" / "scores.csv")
    assert score["overall"] == same(scores["balanced_accuracy"].value)
    assert score["macro_average"]["auc"] == same(scores["auc"].value)
