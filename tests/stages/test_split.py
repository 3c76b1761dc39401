"""The classes, the subsets and the leakage, counted again."""

from pathlib import Path

import pandas as pd
import pytest

from cclnet.dataset.isic import CLASSES
from cclnet.dataset.tables import read_table
from cclnet.system.files import read_json
from stages import split
from tests.stages.builders import Copied


def subsets(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The images of training and of validation."""
    table = pd.read_csv(folder / "data/split.csv")
    assert set(table["subset"]) == {"train", "validation"}
    return table[table["subset"] == "train"], table[table["subset"] == "validation"]


def test_every_image_is_in_one_subset_with_its_label_and_lesion(finished: Path):
    columns = ["image", "label", "lesion"]
    table = read_table(finished / "data/raw")[columns].sort_values("image").to_numpy().tolist()
    divided = pd.read_csv(finished / "data/split.csv")[columns].sort_values("image").to_numpy().tolist()
    assert divided == table
    assert read_json(finished / "data/classes.json") == list(CLASSES)


def test_the_leakage_is_counted(finished: Path, copied: Copied, capsys: pytest.CaptureFixture[str]):
    training, validation = subsets(finished)
    leaked = validation["lesion"].isin(training["lesion"])
    rows = pd.read_csv(finished / "metrics/leakage.csv").set_index("class")
    assert list(rows.index) == list(CLASSES)
    for name, row in rows.iterrows():
        here = validation["label"] == name
        assert row["leakage"] == pytest.approx(leaked[here].mean())
        assert row["train_images"] == (training["label"] == name).sum()
        assert row["validation_images"] == here.sum()
        assert row["train_lesions"] == training.loc[training["label"] == name, "lesion"].nunique()
        assert row["validation_lesions"] == validation.loc[here, "lesion"].nunique()
    copied("data/raw")
    split.main()
    said = f"{leaked.mean():.1%} of the validation images are of a lesion that is also trained on\n"
    assert capsys.readouterr().out == said


def test_by_lesion_nothing_leaks(copied: Copied, capsys: pytest.CaptureFixture[str]):
    folder = copied("data/raw", split="lesion")
    split.main()
    training, validation = subsets(folder)
    assert not set(training["lesion"]) & set(validation["lesion"])
    assert capsys.readouterr().out == "0.0% of the validation images are of a lesion that is also trained on\n"


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_alone_decides(finished: Path, copied: Copied, seed: int):
    folder = copied("data/raw", split_seed=seed)
    split.main()
    same = (folder / "data/split.csv").read_bytes() == (finished / "data/split.csv").read_bytes()
    assert same == (seed == 0)
