"""``cclnet evaluate``."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cclnet.cli.evaluate import show_evaluation
from cclnet.inference.labelled import evaluate_predictions
from tests.cli.builders import CONTENTS, LABELS, lines_of, words_of
from tests.inference.builders import predictions as scored_predictions

# the files


def test_a_labelled_set_is_evaluated_by_onnxruntime(run, model: Path, computed_by_onnxruntime: list[int]):
    figures = {}
    for runtime in ("torch", "onnxruntime"):
        command = ["evaluate", model, "--images", "in.zip", "--labels", "truth.csv", "--runtime", runtime]
        assert run(*command, "-o", "m.json").status == 0
        figures[runtime] = json.loads(Path("m.json").read_text(encoding="utf-8"))
    assert figures["onnxruntime"].keys() == figures["torch"].keys()
    assert figures["onnxruntime"]["accuracy"] == figures["torch"]["accuracy"]
    assert figures["onnxruntime"]["nll"] == pytest.approx(figures["torch"]["nll"], abs=1e-5)
    assert computed_by_onnxruntime == [4]


@pytest.mark.parametrize("lesions", [[], ["--lesions", "lesions.csv"]])
def test_a_labelled_set_is_evaluated(run, model: Path, lesions: list[str]):
    files = ["-o", "metrics.json", "--predictions", "p.csv"]
    status, out, err = run("evaluate", model, "--images", "in.zip", "--labels", "truth.csv", *lesions, *files)
    assert (status, err) == (0, "images predicted: 4 of 4 (100%)\n")
    figures = json.loads(Path("metrics.json").read_text(encoding="utf-8"))
    predicted = pd.read_csv("p.csv").set_index("image").idxmax(axis=1)
    hits = [predicted[image] == label for image, label in LABELS.items()]
    assert figures["accuracy"] == sum(hits) / 4
    assert figures["lesions"] == (2 if lesions else None)
    assert f"accuracy           {figures['accuracy']:.4f}" in out
    assert [row["images"] for row in figures["classes"]] == [1, 2, 1]


def test_a_labelled_set_with_bad_images_is_not_evaluated(run, model: Path):
    with zipfile.ZipFile("in.zip", "w") as archive:
        for image, data in CONTENTS.items():
            archive.writestr(f"{image}.jpg", data if image == "ISIC_0" else b"")
    status, out, err = run("evaluate", model, "--images", "in.zip", "--labels", "truth.csv", "-o", "metrics.json")
    assert (status, out) == (1, "")
    assert [line.split("'")[1] for line in err.splitlines()[-3:]] == ["ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg"]
    assert not Path("metrics.json").exists()


# the screen


def test_every_figure_has_its_interval_and_every_class_its_row():
    labels, probabilities = scored_predictions()
    evaluation = evaluate_predictions(labels, probabilities, "abc", None)
    lines = words_of(lines_of(show_evaluation, evaluation))
    score = evaluation.scores["balanced_accuracy"]
    assert lines[0] == ["metric", "value", "95 % interval"]
    assert ["balanced accuracy", f"{score.value:.4f}", f"{score.low:.4f} … {score.high:.4f}"] in lines
    assert ["AUC", f"{evaluation.scores['auc'].value:.4f}", "–"] in lines
    assert lines[11] == ["class", "images", "sensitivity", "specificity", "precision", "f1", "auc"]
    assert [row[0] for row in lines[12:15]] == ["a", "b", "c"]
    assert sum(int(row[1]) for row in lines[12:15]) == 90
    assert lines[15] == [
        "90 images; intervals from 2,000 bootstrap resamples of the images, too narrow if lesions have several "
        "(--lesions)"
    ]


def test_lesions_are_said_to_be_resampled():
    labels, probabilities = scored_predictions()
    lesions = [f"HAM_{number // 2}" for number in range(90)]
    lines = lines_of(show_evaluation, evaluate_predictions(labels, probabilities, "abc", lesions))
    assert lines[-1] == "90 images of 45 lesions; intervals from 2,000 bootstrap resamples of the lesions"


def test_what_is_undefined_has_a_dash_and_a_note():
    labels, probabilities = np.array([0, 0]), np.array([[0.9, 0.1, 0.0], [0.8, 0.1, 0.1]])
    lines = words_of(lines_of(show_evaluation, evaluate_predictions(labels, probabilities, "abc", None)))
    assert ["Cohen's kappa", "–", "–", "undefined: every image is a and is said to be"] in lines
    assert ["c", "0", "–", "1.0000", "–", "–", "–"] in lines
