"""Data as people have them, with images that can be read: each layout through the check, the chain and a prediction."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cclnet.dataset.checks import check_dataset
from cclnet.dataset.isic import CHALLENGE_ORDER, CLASSES
from cclnet.dataset.splits import read_split
from cclnet.inference.labelled import labelled_pictures
from cclnet.inference.pictures import passed_over, pictures_in
from cclnet.metrics.score_table import read_scores
from cclnet.system.files import read_json
from studies.running.projects import start_project
from studies.running.settings import ROOT
from tests.images.builders import encoded

CHAIN = """
import os, sys
from importlib import import_module
import stages
for folder in sys.argv[1:]:
    os.chdir(folder)
    stages.prepare()
    for stage in ("params", "download", "split", "resize", "train", "evaluate", "plot", "report"):
        import_module(f"stages.{stage}").main()
"""
SETTINGS = {
    "dataset": "folder", "source": "mine", "backbone": "shufflenet_v2_x0_5", "head_balance": "none",
    "short_side": "12", "crop": "10", "epochs": "1", "milestones": "[]", "batch_size": "16", "threads": "1",
    "processor": "portable",
}  # fmt: skip


def picture(number: int, format: str = "JPEG") -> bytes:
    return encoded(Image.fromarray(np.random.default_rng(number).integers(0, 256, (12, 15, 3), dtype=np.uint8)), format)


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def put_zip(path: Path, members: dict[str, bytes | str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def table(header: str, rows: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in [header, *rows])


def ids(count: int, first: int = 0) -> list[str]:
    return [f"ISIC_{number:07d}" for number in range(first, first + count)]


def one_hot(labels: dict[str, str], classes: Iterable[str]) -> str:
    classes = list(classes)
    rows = (
        ",".join([image, *("1.0" if name == label else "0.0" for name in classes)]) for image, label in labels.items()
    )
    return table(",".join(["image", *classes]), rows)


def kaggle(folder: Path) -> None:
    for number, image in enumerate(ids(42)):
        put(folder / f"HAM10000_images_part_{1 + number // 21}" / f"{image}.jpg", picture(number))
    rows = [
        f"HAM_{number // 14}_{number % 7},{image},{CLASSES[number % 7].lower()}" for number, image in enumerate(ids(42))
    ]
    put(folder / "HAM10000_metadata.csv", table("lesion_id,image_id,dx", rows))
    put(folder / "hmnist_8_8_L.csv", "pixel0000,label\n1,2\n")


def dataverse(folder: Path) -> None:
    for part in (1, 2):
        images = ids(21, 21 * (part - 1))
        put_zip(
            folder / f"HAM10000_images_part_{part}.zip", {f"{image}.jpg": picture(int(image[5:])) for image in images}
        )
    rows = [
        f'"HAM_{number // 14}_{number % 7}"\t"{image}"\t"{CLASSES[number % 7].lower()}"'
        for number, image in enumerate(ids(42))
    ]
    put(folder / "HAM10000_metadata.tab", table('"lesion_id"\t"image_id"\t"dx"', rows))


def archive_tool(folder: Path) -> None:
    rows = []
    for number, image in enumerate(ids(30)):
        put(folder / f"{image}.jpg", picture(number))
        label = ("Nevus", '"Melanoma, NOS"', "")[number % 3]
        rows.append(f"{image},CC-0,Benign,,{label},IL_{number // 6}_{number % 3}")
    put(folder / "metadata.csv", table("isic_id,copyright_license,diagnosis_1,diagnosis_2,diagnosis_3,lesion_id", rows))
    put(folder / "attribution.txt", "")


def isic_2019(folder: Path) -> None:
    classes = [name for name in CHALLENGE_ORDER if name != "AKIEC"]
    names = {image: f"{image}_downsampled" if number % 2 else image for number, image in enumerate(ids(48))}
    labels = {names[image]: classes[number // 2 % 8] for number, image in enumerate(ids(48))}
    for number, name in enumerate(names.values()):
        put(folder / "ISIC_2019_Training_Input" / f"{name}.jpg", picture(number))
    put(folder / "ISIC_2019_Training_GroundTruth.csv", one_hot(labels, classes))
    rows = [f"{image},50,torso,BCN_{number // 2},male" for number, image in enumerate(ids(48))]
    put(folder / "ISIC_2019_Training_Metadata.csv", table("image,age_approx,anatom_site_general,lesion_id,sex", rows))


def given_split(folder: Path) -> None:
    for place, subset in enumerate(("train", "val", "test")):
        for number in range(16):  # the same names in every folder; most test images are of one class
            label = ("cat", "dog")[number % (4 if subset == "test" else 2) > 0]
            put(folder / subset / label / f"{number}.png", picture(100 * place + number, "PNG"))
    put(folder / "train" / "cat" / "notes.xyz", "")


def official_with_test_set(folder: Path) -> None:
    labels = {image: CLASSES[number % 7] for number, image in enumerate(ids(63))}
    sets = {"Training": ids(42), "Test": ids(21, 42)}
    for name, images in sets.items():
        pictures = {f"{stem(name, 'Input')}/{image}.jpg": picture(int(image[5:])) for image in images}
        put_zip(folder / f"{stem(name, 'Input')}.zip", {f"{stem(name, 'Input')}/LICENSE.txt": "", **pictures})
        truth = one_hot({image: labels[image] for image in images}, CLASSES)
        put_zip(folder / f"{stem(name, 'GroundTruth')}.zip", {f"{stem(name, 'GroundTruth')}.csv": truth})
    rows = [f"{image},HAM_{number // 14}_{number % 7},histopathology" for number, image in enumerate(ids(42))]
    put(folder / "ISIC2018_Task3_Training_LesionGroupings.csv", table("image,lesion_id,diagnosis_confirm_type", rows))


def stem(name: str, what: str) -> str:
    return f"ISIC2018_Task3_{name}_{what}"


LAYOUTS: dict[str, tuple[Callable[[Path], None], int, list[str], int | None]] = {
    "kaggle": (kaggle, 42, list(CLASSES), 21),
    "dataverse": (dataverse, 42, list(CLASSES), 21),
    "archive_tool": (archive_tool, 20, ["Melanoma, NOS", "Nevus"], 10),
    "isic_2019": (isic_2019, 48, ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC"], 24),
    "given_split": (given_split, 48, ["cat", "dog"], None),
    "official_with_test_set": (official_with_test_set, 63, list(CLASSES), 42),
}
"""Name → what writes the layout; its images, classes and lesions."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A project for each layout after the whole chain, in one process, with every warning an error."""
    folders = {name: tmp_path_factory.mktemp(name) for name in LAYOUTS}
    for name, folder in folders.items():
        LAYOUTS[name][0](folder / "mine")
        start_project(folder, SETTINGS | {"split": "image" if name == "given_split" else "lesion"})
    command = [sys.executable, "-W", "error", "-c", CHAIN, *map(str, folders.values())]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return folders


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_check_reports_what_the_chain_trains_on(name: str, folders: dict[str, Path]):
    _, images, classes, lesions = LAYOUTS[name]
    found = check_dataset(str(folders[name] / "mine"))
    assert list(found.problems) == []
    assert (found.images, found.labels, found.lesions) == (images, images, lesions or found.lesions)
    assert list(found.class_counts) == classes == read_json(folders[name] / "data/classes.json")
    split = read_split(folders[name] / "data/split.csv", classes)
    assert len(split) == images
    assert split["label"].value_counts().to_dict() == found.class_counts


@pytest.mark.parametrize("name", LAYOUTS)
def test_evaluate_reads_the_same_images_with_the_same_ids(name: str, folders: dict[str, Path]):
    mine, split = folders[name] / "mine", read_split(folders[name] / "data/split.csv")
    found = labelled_pictures(mine, mine, None, LAYOUTS[name][2])
    assert [picture.image for picture in found.pictures] == split["image"].tolist()
    assert [LAYOUTS[name][2][label] for label in found.labels] == split["label"].tolist()


@pytest.mark.parametrize("name", LAYOUTS)
def test_test_images_are_scored_beside_the_validation_images(name: str, folders: dict[str, Path]):
    scores = read_scores(folders[name] / "metrics/scores.csv")
    metrics = json.loads((folders[name] / "metrics/metrics.json").read_text(encoding="utf-8"))
    page = (folders[name] / "metrics/report.html").read_text(encoding="utf-8")
    assert metrics["accuracy"] == scores["accuracy"].value
    has_test_images = name in ("given_split", "official_with_test_set")
    assert ("test_accuracy" in scores) == ("accuracy of test images" in page) == has_test_images
    assert not any(key.startswith("test_") for key in metrics)


def test_the_test_scores_are_those_of_the_command_evaluate(folders: dict[str, Path]):
    """An evaluation of the test images alone, which lie in a folder of their own, says the same."""
    folder = folders["given_split"]
    command = [sys.executable, "-m", "cclnet", "evaluate", str(folder / "models/model.safetensors"), "-o", "-"]
    test = folder / "mine" / "test"
    command += ["--images", str(test), "--labels", str(test)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    said, scores = json.loads(finished.stdout), read_scores(folder / "metrics/scores.csv")
    assert said["images"] == 16
    assert scores["test_accuracy"].value != scores["accuracy"].value
    for name in ("accuracy", "nll", "balanced_accuracy"):
        assert said[name] == pytest.approx(scores[f"test_{name}"].value, rel=1e-4)


@pytest.mark.parametrize("name", LAYOUTS)
def test_predict_finds_the_same_images_with_the_same_ids(name: str, folders: dict[str, Path]):
    mine = folders[name] / "mine"
    pictures, problems = pictures_in([mine])
    trained_on = set(read_split(folders[name] / "data/split.csv")["image"])
    found = {picture.image for picture in pictures}
    assert problems == [] and len(found) == len(pictures)
    assert trained_on <= found
    assert len(found - trained_on) == (10 if name == "archive_tool" else 0)  # images without a label
    assert ".zip" not in passed_over([mine], pictures) or name == "official_with_test_set"  # its tables


def test_predict_reads_same_names_in_different_folders_and_counts_what_it_passes_over(
    folders: dict[str, Path], tmp_path: Path
):
    folder, table = folders["given_split"], tmp_path / "predictions.csv"
    command = [sys.executable, "-m", "cclnet", "predict", str(folder / "models/model.safetensors")]
    finished = subprocess.run(
        [*command, str(folder / "mine"), "-o", str(table)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = table.read_text(encoding="utf-8").splitlines()
    assert sorted(line.split(",")[0] for line in lines[1:]) == read_split(folder / "data/split.csv")["image"].tolist()
    assert ".xyz 1" in finished.stdout + finished.stderr
