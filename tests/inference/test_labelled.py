import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics

from cclnet.dataset.isic import CLASSES
from cclnet.inference.labelled import evaluate_predictions, labelled_pictures
from cclnet.system.errors import CCLNetError, DataError, Problem
from tests.dataset.builders import write_zip
from tests.inference.builders import predictions

LABELS = {"ISIC_3": "NV", "ISIC_1": "MEL", "ISIC_2": "VASC"}
LESIONS = {"ISIC_1": "HAM_1", "ISIC_2": "HAM_2", "ISIC_3": "HAM_1", "ISIC_9": "HAM_9"}


def table(labels: dict[str, str], classes: Sequence[str] = CLASSES) -> str:
    rows = [",".join([image, *(str(float(name == label)) for name in classes)]) for image, label in labels.items()]
    return "".join(f"{line}\n" for line in [",".join(["image", *classes]), *rows])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a labelled set in both of its forms: zips, and a folder with a plain table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for image in LABELS:
        (tmp_path / "in" / f"{image}.jpg").write_bytes(b"")
    (tmp_path / "truth.csv").write_text(table(LABELS), encoding="utf-8")
    write_zip(tmp_path / "in.zip", {"Input/LICENSE.txt": b"", **{f"Input/{image}.jpg": b"" for image in LABELS}})
    write_zip(tmp_path / "truth.zip", {"Truth/ATTRIBUTION.txt": b"", "Truth/truth.csv": table(LABELS)})
    (tmp_path / "lesions.csv").write_text(
        "".join(f"{image},{lesion}\n" for image, lesion in [("image", "lesion_id"), *LESIONS.items()]), encoding="utf-8"
    )
    return tmp_path


def problems_of(
    images: str, labels: str, lesions: str | None = None, classes: Sequence[str] = CLASSES
) -> Sequence[Problem]:
    with pytest.raises(DataError, match=r"^the dataset cannot be used") as caught:
        labelled_pictures(Path(images), Path(labels), Path(lesions) if lesions else None, classes)
    return caught.value.problems


@pytest.mark.parametrize("images", ["in", "in.zip"])
@pytest.mark.parametrize("labels", ["truth.csv", "truth.zip"])
def test_a_labelled_set_is_read_in_the_order_of_its_images(folder: Path, images: str, labels: str):
    found = labelled_pictures(Path(images), Path(labels), Path("lesions.csv"), CLASSES)
    assert [picture.image for picture in found.pictures] == sorted(LABELS)
    assert [CLASSES[label] for label in found.labels] == ["MEL", "VASC", "NV"]
    assert found.lesions == ["HAM_1", "HAM_2", "HAM_1"]
    assert labelled_pictures(Path(images), Path(labels), None, CLASSES).lesions is None


@pytest.mark.parametrize("labels", ["own", "own/labels.csv"])
def test_a_folder_of_one_s_own_is_read_as_for_training(folder: Path, labels: str):
    for path in ("own/cat/1.png", "own/cat/2.png", "own/dog/1.png"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(b"")
    if labels != "own":
        Path(labels).write_text(
            "image,label,group\ncat/1.png,dog,p\ncat/2.png,cat,p\ndog/1.png,dog,q\n", encoding="utf-8"
        )
    found = labelled_pictures(Path("own"), Path(labels), None, ["cat", "dog"])
    assert [picture.image for picture in found.pictures] == ["cat_1", "cat_2", "dog_1"]
    assert [str(picture.path) for picture in found.pictures] == ["own/cat/1.png", "own/cat/2.png", "own/dog/1.png"]
    assert found.labels.tolist() == ([0, 0, 1] if labels == "own" else [1, 0, 1])
    assert found.lesions == (None if labels == "own" else ["p", "p", "q"])
    problems = problems_of("own", labels, classes=["cat", "fox"])
    assert {problem.what for problem in problems} == {"has the label 'dog', which the model does not know"}


@pytest.mark.parametrize("labels", ["own", "own/labels.csv"])
def test_lesions_beside_a_folder_with_groups_of_its_own_are_refused(folder: Path, labels: str):
    Path("own").mkdir()
    Path("own/labels.csv").write_text("image,label\n", encoding="utf-8")
    with pytest.raises(CCLNetError, match=rf"^{labels} names the groups itself, if it has any: leave out lesions.csv"):
        labelled_pictures(Path("own"), Path(labels), Path("lesions.csv"), ["cat", "dog"])


def test_classes_are_those_of_the_model(folder: Path):
    own = ["cat", "dog"]
    Path("own.csv").write_text(table(dict.fromkeys(LABELS, "dog"), own), encoding="utf-8")
    assert labelled_pictures(Path("in"), Path("own.csv"), None, own).labels.tolist() == [1, 1, 1]
    assert problems_of("in", "own.csv") == (
        ("own.csv", "has the columns 'image,cat,dog' instead of 'image,MEL,NV,BCC,AKIEC,BKL,DF,VASC'"),
    )
    (what,) = [problem.what for problem in problems_of("in", "truth.zip", classes=CLASSES[::-1])]
    assert what.endswith("instead of 'image,VASC,DF,BKL,AKIEC,BCC,NV,MEL'")


def test_everything_that_is_wrong_is_said_at_once(folder: Path):
    Path("in/more").mkdir()
    for name in ("ISIC_1.png", "ISIC_4.jpg", "isic_5.jpg"):
        Path("in/more", name).write_bytes(b"")
    labels = LABELS | {"ISIC_5": "NV", "ISIC_6": "BCC"}
    Path("truth.csv").write_text(table(labels) + "ISIC_7,1,1,0,0,0,0,0\n", encoding="utf-8")
    Path("lesions.csv").write_text("image,lesion_id\nISIC_1,HAM_1\nISIC_2,\nISIC_3,HAM_1\n", encoding="utf-8")
    assert problems_of("in", "truth.csv", "lesions.csv") == (
        ("in/more/ISIC_1.png", "is called 'ISIC_1' like in/ISIC_1.jpg"),
        ("truth.csv, line 7, 'ISIC_7'", "is labelled MEL and NV instead of with one class"),
        ("lesions.csv, line 3, 'ISIC_2'", "names no lesion"),
        ("in", "has no image 'ISIC_5', but one of 'isic_5': mind the letter case"),
        ("in", "has no image 'ISIC_6'"),
        ("in", "has no image 'ISIC_7'"),
        ("truth.csv", "has no label of image 'ISIC_4'"),
        ("truth.csv", "has no label of image 'isic_5', but one of 'ISIC_5': mind the letter case"),
        ("lesions.csv", "has no lesion of image 'ISIC_5'"),
        ("lesions.csv", "has no lesion of image 'ISIC_6'"),
        ("lesions.csv", "has no lesion of image 'ISIC_7'"),
    )


def test_files_that_are_missing_are_not_missed_row_by_row(folder: Path):
    assert problems_of("out.zip", "out.csv", "no.csv") == (
        ("out.zip", "cannot be read: No such file or directory"),
        ("out.csv", "is missing"),
        ("no.csv", "is missing"),
    )


# figures


def test_figures_and_their_intervals():
    labels, probabilities = predictions()
    by_image = evaluate_predictions(labels, probabilities, "abc", None)
    predicted = probabilities.argmax(axis=1)
    assert by_image.scores["accuracy"].value == sklearn.metrics.accuracy_score(labels, predicted)
    assert by_image.scores["kappa"].value == pytest.approx(sklearn.metrics.cohen_kappa_score(labels, predicted))
    hits = [sklearn.metrics.recall_score(labels == label, predicted == label) for label in range(3)]
    assert by_image.classes["sensitivity"].tolist() == hits
    assert by_image.images == len(labels)
    assert by_image.lesions is None

    # a binomial's interval, and no narrower one where every image is there twice, as two of one lesion
    share, low, high, _ = by_image.scores["accuracy"]
    assert share and low and high
    width = 2 * 1.96 * np.sqrt(share * (1 - share) / len(labels))
    assert high - low == pytest.approx(width, rel=0.1)
    twice = evaluate_predictions(
        np.tile(labels, 2), np.tile(probabilities, (2, 1)), "abc", [f"HAM_{n}" for n in range(90)] * 2
    )
    assert twice.lesions == 90
    for name, score in by_image.scores.items():
        assert twice.scores[name].value == pytest.approx(score.value)
    assert twice.scores["accuracy"][1:3] == pytest.approx((low, high))


def test_json_has_null_for_what_is_undefined_and_says_why():
    labels, probabilities = np.array([0, 0]), np.array([[0.9, 0.1, 0.0], [0.8, 0.1, 0.1]])
    written = json.loads(
        json.dumps(evaluate_predictions(labels, probabilities, "abc", None).as_dict(), allow_nan=False)
    )
    assert written["accuracy"] == 1
    assert written["intervals"]["accuracy"] == [1, 1]
    assert written["kappa"] is written["auc"] is None
    assert "kappa" not in written["intervals"]
    assert written["notes"]["kappa"] == "undefined: every image is a and is said to be"
    assert written["notes"]["f1"] == "without b, c: no image"
    assert (written["images"], written["lesions"]) == (2, None)
    assert written["classes"][0]["images"] == 2
    assert written["classes"][2] == {
        "class": "c",
        "images": 0,
        "sensitivity": None,
        "specificity": 1,
        "precision": None,
        "f1": None,
        "auc": None,
    }
