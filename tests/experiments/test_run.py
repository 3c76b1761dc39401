import json
from pathlib import Path

import numpy as np
import pytest

from cclnet.experiments.run import Run, read_predictions, read_run
from cclnet.metrics.matrices import write_soft_labels
from cclnet.metrics.score_table import Score, write_scores
from cclnet.system.errors import DataError

CLASSES = ["MEL", "NV", "BCC", "AKIEC"]
IMAGES = 60


def truth() -> tuple[list[str], list[str], np.ndarray]:
    """Labels, lesions and probabilities of the images i00, i01, …"""
    generator = np.random.default_rng(0)
    labels = [CLASSES[i] for i in generator.choice(4, IMAGES, p=[0.4, 0.3, 0.2, 0.1])]
    lesions = [f"L{i}" for i in generator.integers(IMAGES // 2, size=IMAGES)]
    return labels, lesions, generator.dirichlet(np.full(4, 0.8), IMAGES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A split with an image for training, and predictions in another order of the images."""
    labels, lesions, probabilities = truth()
    split = [f"i{i:02},{label},{lesions[i]},validation" for i, label in enumerate(labels)]
    predicted = [f"i{i:02},{','.join(map(repr, row))}" for i, row in enumerate(probabilities.tolist())]
    (tmp_path / "data").mkdir()
    (tmp_path / "metrics").mkdir()
    (tmp_path / "data/split.csv").write_text("\n".join(["image,label,lesion,subset", *split, "trained,MEL,L0,train"]))
    (tmp_path / "a.csv").write_text("\n".join([f"image,{','.join(CLASSES)}", *predicted]))
    (tmp_path / "metrics/predictions.csv").write_text("\n".join([f"image,{','.join(CLASSES)}", *reversed(predicted)]))
    return tmp_path


def load(folder: Path) -> Run:
    return read_predictions("a.csv", folder / "a.csv", folder / "data/split.csv")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# what is read


def test_rows_are_the_images_in_their_order_whatever_that_of_the_file(folder: Path):
    labels, lesions, probabilities = truth()
    for run in (load(folder), read_run("HEAD", folder)):
        assert run.truth.index.tolist() == [f"i{i:02}" for i in range(IMAGES)]
        assert run.truth["label"].tolist() == labels
        assert run.truth["lesion"].tolist() == lesions
        np.testing.assert_array_equal(run.probabilities, probabilities)


def test_names_are_normalised_as_those_of_the_split(folder: Path):
    edit(folder / "a.csv", "i00,", " i00 ,")
    assert load(folder).truth.index.tolist() == [f"i{i:02}" for i in range(IMAGES)]


def test_a_class_in_two_columns_is_refused(folder: Path):
    edit(folder / "a.csv", "image,MEL,NV,BCC", "image,MEL,NV,NV")
    with pytest.raises(DataError, match=r"a\.csv cannot be read") as caught:
        load(folder)
    assert ("a.csv", "has several columns 'NV'") in caught.value.problems


def test_labels_predictions_and_confusions_are_numbers_of_classes(folder: Path):
    labels, _, probabilities = truth()
    run = load(folder)
    counts = np.zeros((4, 4), dtype=int)
    for label, row in zip(labels, probabilities, strict=True):
        counts[CLASSES.index(label), row.argmax()] += 1
    assert run.confusion.tolist() == counts.tolist()
    assert run.hits.sum() == counts.trace()
    assert [CLASSES[label] for label in run.labels] == labels


def test_a_prediction_file_has_neither_soft_labels_nor_scores(folder: Path):
    run = load(folder)
    assert run.soft_labels is run.learned_soft_labels is None
    assert run.scores == {}


@pytest.mark.parametrize("epoch", [5, None])
def test_soft_labels_were_learned_if_they_have_an_epoch(folder: Path, epoch: int | None):
    write_soft_labels(folder / "metrics/soft_labels.json", np.eye(4), CLASSES)
    write_scores(folder / "metrics/scores.csv", {"softness_epoch": Score(epoch), "ece": Score(0.1, 0.0, 0.2)})
    run = read_run("HEAD", folder)
    assert run.scores["ece"] == (0.1, 0.0, 0.2, "")
    assert run.soft_labels is not None and run.soft_labels.tolist() == np.eye(4).tolist()
    assert (run.learned_soft_labels is None) == (epoch is None)


@pytest.mark.parametrize("epoch", [5, None])
def test_runs_from_before_the_score_table_are_read_too(folder: Path, epoch: int | None):
    write_soft_labels(folder / "metrics/soft_labels.json", np.eye(4), CLASSES)
    (folder / "metrics/metrics.json").write_text(json.dumps({"accuracy": 0.5, "softness_epoch": epoch}))
    assert (read_run("HEAD", folder).learned_soft_labels is None) == (epoch is None)


def test_what_the_evaluate_stage_does_not_write_is_refused_with_the_run_s_name(folder: Path):
    (folder / "metrics/soft_labels.json").write_text('[{"value": 1}, {"value": 0}]')
    with pytest.raises(DataError, match=r"^HEAD: soft_labels\.json is not what .* dvc repro$"):
        read_run("HEAD", folder)


def test_a_byte_order_mark_line_ends_of_windows_and_empty_lines_are_taken(folder: Path):
    before = load(folder)
    lines = (folder / "a.csv").read_text().splitlines()
    (folder / "a.csv").write_bytes("\r\n".join([*lines[:5], "", *lines[5:], ""]).encode("utf-8-sig"))
    np.testing.assert_array_equal(load(folder).probabilities, before.probabilities)


# what is refused


def test_every_fault_of_the_tables_is_said_at_once(folder: Path):
    lines = (folder / "a.csv").read_text().splitlines()
    (folder / "a.csv").write_text("\n".join([*lines[:3], f"{lines[3]},1", *lines[4:8], lines[4]]))
    split = (folder / "data/split.csv").read_text().splitlines()
    split[1] = "i00,MEL,,validation"
    split[2] = "i01,ODD,L1,validation"
    (folder / "data/split.csv").write_text("\n".join(split))
    with pytest.raises(DataError) as caught:
        load(folder)
    assert str(caught.value).splitlines() == [
        "a.csv cannot be read: correct what follows or name another experiment",
        "  a.csv, line 4, 'i02': has 6 values instead of 5",
        "  a.csv, line 9, 'i03': is there a second time, after a.csv, line 5, 'i03'",
        "  split.csv, line 2, 'i00': names no lesion",
        "  a.csv: lacks 53 images (i07, i08, i09, …) that split.csv has for validation",
        "  a.csv: has no class ODD, which split.csv labels images with",
    ]


def test_images_that_were_not_for_validation(folder: Path):
    edit(folder / "a.csv", "i00", "trained")
    with pytest.raises(DataError) as caught:
        load(folder)
    assert str(caught.value).splitlines()[1:] == [
        "  a.csv: lacks 1 image (i00) that split.csv has for validation",
        "  a.csv: has 1 image (trained) that split.csv does not have for validation",
    ]


def test_files_that_are_not_there(folder: Path):
    with pytest.raises(DataError) as caught:
        read_predictions("c.csv", Path("c.csv"), Path("labels.csv"))
    assert [tuple(problem) for problem in caught.value.problems] == [
        ("c.csv", "is missing"),
        ("labels.csv", "is missing; --labels names another for prediction files"),
    ]


@pytest.mark.parametrize("value", ["", "much", "nan", "-0.5", "7"])
def test_what_is_not_a_probability(folder: Path, value: str):
    header, first, *rest = (folder / "a.csv").read_text().splitlines()
    (folder / "a.csv").write_text("\n".join([header, ",".join([*first.split(",")[:-1], value]), *rest]))
    with pytest.raises(DataError, match=r"^a\.csv: a\.csv: cannot score these predictions: ") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_split_without_validation_images(folder: Path):
    edit(folder / "data/split.csv", "validation", "train")
    with pytest.raises(DataError, match=r"split\.csv: has no validation image"):
        load(folder)
