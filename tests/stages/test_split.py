"""The classes, the subsets and the leakage, counted again."""

import csv
from pathlib import Path

import pytest

from cclnet.dataset.isic import CLASSES
from cclnet.dataset.tables import read_table
from cclnet.system.files import read_json
from stages import split
from tests.stages.builders import Copied


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def subsets(folder: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The images of training and of validation."""
    rows = rows_of(folder / "data/split.csv")
    assert {row["subset"] for row in rows} == {"train", "validation"}
    training, validation = ([row for row in rows if row["subset"] == name] for name in ("train", "validation"))
    return training, validation


def test_every_image_is_in_one_subset_with_its_label_and_lesion(finished: Path):
    table = read_table(finished / "data/raw")
    given = zip(table["image"], table["label"], table["lesion"], strict=True)
    divided = [(row["image"], row["label"], row["lesion"]) for row in rows_of(finished / "data/split.csv")]
    assert sorted(divided) == sorted(given)
    assert read_json(finished / "data/classes.json") == list(CLASSES)


def test_the_leakage_is_counted(finished: Path, copied: Copied, capsys: pytest.CaptureFixture[str]):
    training, validation = subsets(finished)
    trained_on = {row["lesion"] for row in training}
    leaked = [row["label"] for row in validation if row["lesion"] in trained_on]
    found = rows_of(finished / "metrics/leakage.csv")
    assert [row["class"] for row in found] == list(CLASSES)
    for row in found:
        for subset, images in (("train", training), ("validation", validation)):
            lesions = [image["lesion"] for image in images if image["label"] == row["class"]]
            assert int(row[f"{subset}_images"]) == len(lesions)
            assert int(row[f"{subset}_lesions"]) == len(set(lesions))
        assert float(row["leakage"]) == pytest.approx(leaked.count(row["class"]) / int(row["validation_images"]))
    copied("data/raw")
    split.main()
    said = f"{len(leaked) / len(validation):.1%} of the validation images are of a lesion that is also trained on\n"
    assert capsys.readouterr().out == said


def test_by_lesion_nothing_leaks(copied: Copied, capsys: pytest.CaptureFixture[str]):
    folder = copied("data/raw", split="lesion")
    split.main()
    training, validation = subsets(folder)
    assert not {row["lesion"] for row in training} & {row["lesion"] for row in validation}
    assert capsys.readouterr().out == "0.0% of the validation images are of a lesion that is also trained on\n"


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_alone_decides(finished: Path, copied: Copied, seed: int):
    folder = copied("data/raw", split_seed=seed)
    split.main()
    same = (folder / "data/split.csv").read_bytes() == (finished / "data/split.csv").read_bytes()
    assert same == (seed == 0)
