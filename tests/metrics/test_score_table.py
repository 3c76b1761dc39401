import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from cclnet.metrics import evaluate
from cclnet.metrics.names import HEADLINE
from cclnet.metrics.resampling import clustered_bootstrap, weighted_scores
from cclnet.metrics.score_table import (
    Score,
    headline,
    read_scores,
    score_predictions,
    score_soft_labels,
    write_scores,
)
from cclnet.system.errors import DataError

CLASSES = ["a", "b", "c"]


def predictions(images: int = 60) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=images)
    rows = generator.dirichlet(np.ones(3), images) + 0.4 * np.eye(3)[labels]
    return labels, rows / rows.sum(axis=1, keepdims=True)


def test_scores_are_the_figures_with_the_intervals_of_resampled_lesions():
    labels, probabilities = predictions()
    lesions = np.arange(60) // 2
    scores = score_predictions(labels, probabilities, CLASSES, lesions)
    assert {name: score.value for name, score in scores.items()} == evaluate(labels, probabilities)
    intervals = clustered_bootstrap(weighted_scores(labels, probabilities), lesions)
    for name, interval in intervals.items():
        assert interval and scores[name][1:] == (interval.low, interval.high, "")
    assert scores["auc"].low is None and scores["auc"].high is None


def test_what_is_undefined_has_no_interval_and_a_note():
    scores = score_predictions([0, 0, 0], np.array([[0.8, 0.1, 0.1]] * 3), CLASSES, [1, 2, 3])
    assert scores["kappa"] == (None, None, None, "undefined: every image is a and is said to be")
    assert scores["auc"].note == "undefined: no image of b, c"
    assert scores["f1"].value == 1 and scores["f1"].note == "without b, c: no image"


def test_soft_labels_are_compared_with_confusions_counts_and_what_was_planted():
    generator = np.random.default_rng(1)
    soft_labels, planted, features = generator.dirichlet(np.ones(3), 3), *generator.random((2, 3, 3))
    confusion = np.array([[8, 2, 0], [1, 5, 4], [3, 3, 4]])
    scores = score_soft_labels(soft_labels, CLASSES, [50, 20, 10], confusion, planted, features)
    beside = ~np.eye(3, dtype=bool)
    rates = confusion / confusion.sum(axis=1, keepdims=True)
    followed = spearmanr(soft_labels[beside], (rates + rates.T)[beside])[0]  # pyright: ignore
    assert scores["follows_confusion"].value == pytest.approx(followed)
    expected = spearmanr(soft_labels[beside], planted[beside])[0]  # pyright: ignore
    assert scores["planted_similarity"].value == pytest.approx(expected)
    in_features = spearmanr(features[beside], planted[beside])[0]  # pyright: ignore
    assert scores["planted_in_features"].value == pytest.approx(in_features)
    with_features = spearmanr(soft_labels[beside], features[beside])[0]  # pyright: ignore
    assert scores["follows_features"].value == pytest.approx(with_features)
    assert scores["not_explained_by_counts"].value is not None
    assert "planted_similarity" not in score_soft_labels(soft_labels, CLASSES, [50, 20, 10], confusion)


def test_labels_without_likeness_and_classes_without_images_are_noted():
    scores = score_soft_labels(np.eye(3), CLASSES, [5, 5, 5], np.eye(3), np.arange(9.0).reshape(3, 3))
    assert {score.note for score in scores.values()} == {
        "undefined: no two classes are more alike than others in the labels"
    }
    soft_labels = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    scores = score_soft_labels(soft_labels, CLASSES, [5, 0, 5], [[1, 0, 0], [0, 0, 0], [0, 0, 1]])
    assert scores == {
        "not_explained_by_counts": Score(None, note="undefined: no training image of b"),
        "follows_confusion": Score(None, note="undefined: a class has no validation image"),
        "follows_features": Score(None, note="undefined: the features do not give the similarity of every two classes"),
    }


SCORES = {
    "converged_epoch": Score(None, note="the dictionary was never frozen"),
    "softness_epoch": Score(16),
    "accuracy": Score(1.0, 0.1 + 0.2, 1.0),
    "kappa": Score(None, note='"chance", or not'),
    "planted_similarity": Score(-0.25),
}


def test_the_file_gives_back_every_bit_and_whole_numbers_as_such(tmp_path: Path):
    write_scores(tmp_path / "scores.csv", SCORES)
    found = read_scores(tmp_path / "scores.csv")
    assert found == SCORES
    assert isinstance(found["softness_epoch"].value, int)
    assert isinstance(found["accuracy"].value, float)


def test_the_file_is_a_table_in_the_order_of_the_names_with_titles_and_groups(tmp_path: Path):
    write_scores(tmp_path / "scores.csv", SCORES)
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [
        *("accuracy", "kappa", "planted_similarity", "softness_epoch", "converged_epoch")
    ]
    assert (rows[1]["title"], rows[1]["group"], rows[1]["value"]) == ("Cohen's kappa", "higher is better", "")


def test_the_headline_has_what_there_is_of_it():
    assert headline(SCORES) == {"accuracy": 1.0, "kappa": None, "planted_similarity": -0.25}
    assert len(HEADLINE) <= 8


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        "name,value,low,high,note\n",
        "name,value,low,high,note\naccuracy,much,,,\n",
        "name,value,low,high,note\naccuracy,0.75,,\n",
        "name,value,low,high,note\naccuracy,0.75,,,\nkappa,0.5,,,cut o",
        'name\n"x',
    ],
)
def test_another_table_is_refused_in_one_line(tmp_path: Path, text: str):
    (tmp_path / "scores.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"^scores\.csv is not what the evaluate stage writes .* dvc repro$"):
        read_scores(tmp_path / "scores.csv")
