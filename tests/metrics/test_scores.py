import math
import sys
from subprocess import run
from typing import cast

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as peer

from cclnet.metrics.calibration import (
    classwise_calibration_error,
    expected_calibration_error,
)
from cclnet.metrics.scores import class_table, confusion_table, evaluate, notes
from cclnet.system.errors import DataError

CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
VALIDATION_COUNTS = (223, 1341, 103, 65, 220, 23, 28)
MACRO = ("f1", "jaccard", "balanced_accuracy")


def predictions(seed: int = 0, images: int = 400, num_classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Labels of unequal frequency, and probabilities that know something of them."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(num_classes, images, p=generator.dirichlet(np.full(num_classes, 3.0)))
    probabilities = generator.dirichlet(np.full(num_classes, 0.7), images) + 0.6 * np.eye(num_classes)[labels]
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def column(table: pd.DataFrame, name: str) -> np.ndarray:
    """A column of numbers, its nulls as NaN."""
    return np.array([np.nan if value is pd.NA else value for value in table[name]], dtype=float)


def test_figures_equal_scikit_learns() -> None:
    labels, probabilities = predictions()
    predicted = probabilities.argmax(axis=1)
    assert evaluate(labels, probabilities) == pytest.approx(
        {
            "accuracy": (labels == predicted).mean(),
            "f1": peer.f1_score(labels, predicted, average="macro"),
            "kappa": peer.cohen_kappa_score(labels, predicted),
            "jaccard": peer.jaccard_score(labels, predicted, average="macro"),
            "balanced_accuracy": peer.balanced_accuracy_score(labels, predicted),
            "auc": peer.roc_auc_score(labels, probabilities, multi_class="ovr"),
            "nll": peer.log_loss(labels, probabilities),
            "brier": peer.brier_score_loss(labels, probabilities, scale_by_half=cast(str, False)),
            "ece": expected_calibration_error(labels, probabilities),
            "classwise_ece": classwise_calibration_error(labels, probabilities),
        },
        abs=1e-12,
    )
    assert notes(labels, probabilities, CLASSES) == {}


def test_figures_by_hand() -> None:
    labels = [0, 0, 0, 1, 1, 2]
    probabilities = np.array(
        [[0.8, 0.1, 0.1], [0.6, 0.2, 0.2], [0.3, 0.5, 0.2], [0.1, 0.9, 0.0], [0.5, 0.4, 0.1], [0.2, 0.2, 0.6]]
    )
    figures = evaluate(labels, probabilities)  # confusion: 2 1 0 / 1 1 0 / 0 0 1
    assert figures["accuracy"] == pytest.approx(4 / 6)
    assert figures["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert figures["f1"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert figures["jaccard"] == pytest.approx((2 / 4 + 1 / 3 + 1) / 3)
    chance = (3 * 3 + 2 * 2 + 1 * 1) / 36
    assert figures["kappa"] == pytest.approx((4 / 6 - chance) / (1 - chance))
    # pairs of an image of the class and one of another that are ranked rightly
    assert figures["auc"] == pytest.approx((8 / 9 + 7 / 8 + 5 / 5) / 3)
    assert figures["nll"] == pytest.approx(-math.log(0.8 * 0.6 * 0.3 * 0.9 * 0.4 * 0.6) / 6)
    assert figures["brier"] == pytest.approx((0.06 + 0.24 + 0.78 + 0.02 + 0.62 + 0.24) / 6)
    # bins by fifteenths: .8 and .9 and .5 + .5 and .6 + .6
    assert figures["ece"] == pytest.approx((0.2 + 0.1 + abs(-0.5 - 0.5) + abs(0.4 + 0.4)) / 6)


def test_majority_predictor() -> None:
    labels = np.repeat(np.arange(7), VALIDATION_COUNTS)
    figures = evaluate(labels, np.tile(np.eye(7)[1], (2003, 1)))
    assert figures["accuracy"] == pytest.approx(0.6695, abs=5e-5)
    assert figures["kappa"] == pytest.approx(0, abs=1e-12)
    assert figures["balanced_accuracy"] == pytest.approx(1 / 7)
    assert figures["f1"] == pytest.approx(2 * 1341 / (1341 + 2003) / 7)
    assert figures["jaccard"] == pytest.approx(1341 / 2003 / 7)
    assert figures["auc"] == pytest.approx(0.5)
    assert figures["ece"] == pytest.approx(662 / 2003)
    assert figures["brier"] == pytest.approx(2 * 662 / 2003)
    assert figures["nll"] == pytest.approx(662 / 2003 * 52 * math.log(2))


def test_perfect_and_worst_predictions() -> None:
    labels = np.arange(7)
    ones = dict.fromkeys(("accuracy", "f1", "kappa", "jaccard", "balanced_accuracy", "auc"), 1.0)
    zeros = dict.fromkeys(("nll", "brier", "ece", "classwise_ece"), 0.0)
    assert evaluate(labels, np.eye(7)) == ones | zeros
    worst = evaluate(labels, np.roll(np.eye(7), 1, axis=1))
    assert (worst["accuracy"], worst["f1"], worst["brier"], worst["ece"]) == (0, 0, 2, 1)


def test_uniform_probabilities() -> None:
    labels = np.repeat(np.arange(7), VALIDATION_COUNTS)
    figures = evaluate(labels, np.full((2003, 7), 1 / 7))
    assert figures["nll"] == pytest.approx(math.log(7))
    assert figures["brier"] == pytest.approx(6 / 7)
    assert figures["accuracy"] == pytest.approx(223 / 2003), "ties go to the lowest index"


def test_figures_ignore_the_order_of_images_and_of_classes_and_repetition() -> None:
    labels, probabilities = predictions(seed=1)
    expected = pytest.approx(evaluate(labels, probabilities), abs=1e-12)
    generator = np.random.default_rng(2)
    images, classes = generator.permutation(len(labels)), generator.permutation(7)
    assert evaluate(labels[images], probabilities[images]) == expected
    assert evaluate(np.argsort(classes)[labels], probabilities[:, classes]) == expected
    assert evaluate(np.tile(labels, 3), np.tile(probabilities, (3, 1))) == expected
    assert evaluate(labels.astype(np.uint8).tolist(), probabilities) == expected


def test_a_class_without_images_gives_null_and_a_reason() -> None:
    labels, probabilities = predictions(seed=3)
    labels[labels == 5] = 1
    predicted = probabilities.argmax(axis=1)
    assert (predicted == 5).any()
    figures = evaluate(labels, probabilities)
    assert figures["auc"] is None
    recalls = [(predicted[labels == k] == k).mean() for k in range(7) if k != 5]
    assert figures["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert all(figure is not None and math.isfinite(figure) for name, figure in figures.items() if name != "auc")
    reasons = notes(labels, probabilities, CLASSES)
    assert reasons.pop("auc") == "undefined: no image of DF"
    assert reasons == dict.fromkeys(MACRO, "without DF: no image")
    table = class_table(labels, probabilities, CLASSES)
    for name in ("sensitivity", "f1", "auc"):
        assert np.isnan(column(table, name)).tolist() == [k == 5 for k in range(7)]
    assert column(table, "images")[5] == 0
    assert column(table, "specificity")[5] == pytest.approx((predicted != 5).mean())
    assert column(table, "precision")[5] == 0
    shares = column(confusion_table(labels, predicted, CLASSES), "share")
    assert np.isnan(shares).tolist() == [cell // 7 == 5 for cell in range(49)]


def test_one_class_alone() -> None:
    labels, probabilities = np.full(5, 1), np.tile([0.2, 0.8], (5, 1))
    figures = evaluate(labels, probabilities)
    assert figures["kappa"] is None
    assert figures["auc"] is None
    assert all(figures[name] == 1 for name in ("accuracy", *MACRO))
    assert notes(labels, probabilities, ["benign", "malignant"])["kappa"].startswith("undefined: every image is malig")
    table = class_table(labels, probabilities, ["benign", "malignant"])
    assert np.isnan(column(table, "specificity")).tolist() == [False, True]
    assert np.isnan(column(table, "precision")).tolist() == [True, False]
    assert evaluate(labels, 1 - probabilities)["kappa"] == 0


def test_class_table_against_scikit_learn() -> None:
    labels, probabilities = predictions(seed=4)
    predicted = probabilities.argmax(axis=1)
    table = class_table(labels, probabilities, CLASSES)
    assert table.columns.tolist() == ["class", "images", "sensitivity", "specificity", "precision", "f1", "auc"]
    assert table["class"].tolist() == list(CLASSES)
    for name, expected in zip(
        ("precision", "sensitivity", "f1", "images"),
        peer.precision_recall_fscore_support(labels, predicted),
        strict=True,
    ):
        assert column(table, name) == pytest.approx(np.asarray(expected))
    specificity, auc = column(table, "specificity"), column(table, "auc")
    for k in range(7):
        of_class, scores = labels == k, probabilities[:, k]
        assert specificity[k] == pytest.approx(peer.recall_score(~of_class, predicted != k))
        ranked_rightly = [
            np.mean((score > scores[~of_class]) + (score == scores[~of_class]) / 2) for score in scores[of_class]
        ]
        assert auc[k] == pytest.approx(np.mean(ranked_rightly))
    figures = evaluate(labels, probabilities)
    for name, mean in (("sensitivity", "balanced_accuracy"), ("f1", "f1"), ("auc", "auc")):
        assert column(table, name).mean() == pytest.approx(figures[mean])


def test_confusion_table_against_a_count() -> None:
    labels, probabilities = predictions(seed=5)
    predicted = probabilities.argmax(axis=1)
    table = confusion_table(labels, predicted, CLASSES)
    assert table.columns.tolist() == ["true_class", "predicted_class", "count", "share"]
    cells = [(true, said) for true in range(7) for said in range(7)]
    assert list(zip(table["true_class"], table["predicted_class"], strict=True)) == [
        (CLASSES[true], CLASSES[said]) for true, said in cells
    ]
    counts = [sum(1 for pair in zip(labels, predicted, strict=True) if pair == cell) for cell in cells]
    assert table["count"].tolist() == counts
    assert sum(counts) == len(labels)
    shares = column(table, "share")
    assert shares == pytest.approx([c / (labels == t).sum() for c, (t, _) in zip(counts, cells, strict=True)])
    assert shares.reshape(7, 7).sum(axis=1) == pytest.approx(np.ones(7))


def test_auc_counts_equal_probabilities_as_equal_whatever_their_rows_sum_to() -> None:
    labels = np.array([0, 1, 0, 1])
    rows = np.array([[0.5, 0.3, 0.2], [0.5, 0.2, 0.30003], [0.7, 0.1, 0.2], [0.1, 0.6, 0.3]])
    # of 2 · 2 pairs three are ranked rightly and one is equal
    assert column(class_table(labels, rows, ["a", "b", "c"]), "auc")[0] == 3.5 / 4
    thirds = np.random.default_rng(0).integers(1, 9, (300, 3)) * 1.0
    thirds /= thirds.sum(axis=1, keepdims=True)  # to 1 but for the last bit
    many = np.random.default_rng(1).integers(3, size=300)
    assert evaluate(many, thirds)["auc"] == pytest.approx(
        np.mean([peer.roc_auc_score(many == k, thirds[:, k]) for k in range(3)]), abs=1e-12
    )


def test_rounded_single_precision_rows_are_scaled() -> None:
    labels, probabilities = predictions(seed=7)
    rounded = probabilities.round(5).astype(np.float32)
    assert evaluate(labels, rounded) == pytest.approx(evaluate(labels, probabilities), abs=2e-3)
    scaled = rounded.astype(float) / rounded.astype(float).sum(axis=1, keepdims=True)
    assert evaluate(labels, rounded) == pytest.approx(evaluate(labels, scaled), abs=1e-12)


def test_all_mistakes_are_named_together() -> None:
    with pytest.raises(DataError) as caught:
        class_table([0, 9, 0], [[0.5, 0.6], [1.5, -0.5]], CLASSES)
    for part in ("from 0 to 9", "3 labels for 2", "7 class names for 2", "sum to", "negative"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match=r"predicted labels run from 0 to 7.*differ in shape"):
        confusion_table([0, 1, 1], [0, 7], CLASSES)


def test_tables_write_nulls_and_no_nan() -> None:
    table = class_table([0, 0, 1], [[0.9, 0.1, 0], [0.8, 0.2, 0], [0.3, 0.7, 0]], "abc")
    assert "null" in str(table.to_json(orient="records"))
    assert "nan" not in str(table.to_csv()).lower()


def test_importing_stays_light() -> None:
    program = "import sys, cclnet.metrics.score_table; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", program], check=False).returncode == 0
