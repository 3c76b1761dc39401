"""Features of labelled images: from a network, and from files as people have them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from cclnet.images.augmentation import Normalization
from cclnet.images.decoding import central_crop, decode, resize
from cclnet.inference.features import LabelledFeatures, picture_features, read_features, write_features
from cclnet.inference.labelled import labelled_folder
from cclnet.system.errors import CCLNetError, DataError
from tests.images.builders import SIZES, encoded, noise

CPU = torch.device("cpu")
FEATURES = np.arange(12.0).reshape(4, 3)
LABELS = ["cat", "dog", "cat", "dog"]


class Means(nn.Module):
    """The mean of each colour, and that of the upper half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images.mean(dim=(2, 3)), images[:, :1, : images.shape[2] // 2].mean(dim=(2, 3))], dim=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, size in enumerate(SIZES):
        place = tmp_path / "photos" / ("cat" if number % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(encoded(Image.fromarray(noise(*size, number)), "PNG"))
    return tmp_path / "photos"


def test_features_are_those_of_the_central_crop_of_each_picture(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cclnet.inference.probabilities.PREDICTION_BATCH", 2)
    labelled, classes = labelled_folder(folder)
    normalization = Normalization((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    found = picture_features(Means(), labelled, classes, 20, 16, CPU, normalization)
    assert classes == ["cat", "dog"]
    assert found.labels == [image.split("_")[0] for image in found.images or []]
    for picture, row in zip(found.pictures or [], found.features, strict=True):
        crop = central_crop(resize(decode(picture.path.read_bytes()), 20), 16) / 255
        normalised = (crop - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
        expected = [*normalised.mean(axis=(0, 1)), normalised[:8, :, 0].mean()]
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_a_picture_that_cannot_be_read_is_named_and_left_out(folder: Path):
    (folder / "dog" / "broken.png").write_bytes(b"no image")
    labelled, classes = labelled_folder(folder)
    found = picture_features(Means(), labelled, classes, 20, 16, CPU)
    assert [problem.where for problem in found.problems] == [str(folder / "dog" / "broken.png")]
    assert len(found.features) == len(found.labels) == len(SIZES)


def test_no_picture_at_all_is_refused(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"no image")
    labelled, classes = labelled_folder(tmp_path)
    with pytest.raises(DataError, match="no image can be used") as error:
        picture_features(Means(), labelled, classes, 20, 16, CPU)
    assert len(error.value.problems) == 2


@pytest.mark.parametrize("known", [(None, None), (["p", "p", "q", "r"], ["1", "2", "3", "4"])])
def test_what_is_written_is_read(tmp_path: Path, known):
    it = LabelledFeatures(FEATURES, LABELS, *known)
    write_features(tmp_path / "it.npz", it)
    found = read_features(tmp_path / "it.npz")
    np.testing.assert_array_equal(found.features, FEATURES)
    assert (found.labels, found.groups, found.images) == (LABELS, *known)


def test_labels_may_be_numbers(tmp_path: Path):
    np.savez(tmp_path / "it.npz", features=FEATURES.astype(np.float16), labels=np.array([3, 1, 3, 1]))
    assert read_features(tmp_path / "it.npz").labels == ["3", "1", "3", "1"]


def test_features_and_a_table(tmp_path: Path):
    np.save(tmp_path / "it.npy", FEATURES)
    (tmp_path / "it.csv").write_text(
        "image,label,group,age\na,cat,p,3\nb,NA,p,4\nc,cat,q,\nd,01,r,5\n", encoding="utf-8"
    )
    found = read_features(tmp_path / "it.npy", tmp_path / "it.csv")
    assert found.labels == ["cat", "NA", "cat", "01"]
    assert (found.groups, found.images) == (["p", "p", "q", "r"], ["a", "b", "c", "d"])


def test_parquet_is_read_as_its_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    frame = pd.DataFrame(FEATURES, columns=["x", "y", "z"]).assign(label=LABELS, group=[1, 1, 2, 3])
    monkeypatch.setattr("cclnet.inference.features.pd.read_parquet", lambda path: frame)
    found = read_features(tmp_path / "it.parquet")
    np.testing.assert_array_equal(found.features, FEATURES)
    assert (found.labels, found.groups, found.images) == (LABELS, ["1", "1", "2", "3"], None)


def test_what_reads_parquet_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(path: Path) -> None:
        raise ImportError("no engine")

    monkeypatch.setattr("cclnet.inference.features.pd.read_parquet", missing)
    with pytest.raises(CCLNetError, match="a parquet file needs pyarrow, which is not installed: pip install pyarrow"):
        read_features(tmp_path / "it.parquet")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": LABELS}, "it.npz has no array features; it holds labels"),
        ({}, "has no array features and no array labels; it holds nothing"),
        ({"features": FEATURES, "labels": LABELS[:3]}, r"labels have the shape \(3,\), not one for each of the 4 rows"),
        ({"features": FEATURES, "labels": LABELS, "groups": [[1]] * 4}, r"groups have the shape \(4, 1\)"),
        ({"features": FEATURES[0], "labels": LABELS}, r"features must be images × dimensions, not \(3,\)"),
        ({"features": FEATURES, "labels": np.array(LABELS, dtype=object)}, "is not an .npz file of plain arrays"),
    ],
)
def test_an_npz_file_of_another_form_is_refused(tmp_path: Path, arrays, message: str):
    np.savez(tmp_path / "it.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_features(tmp_path / "it.npz")


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("it.npy", None, "it.npy holds no labels: name a CSV table with a column label"),
        ("it.npy", "name\ncat\n", "it.csv has no column label; its columns are name"),
        ("it.npy", "label\ncat\n", "it.csv has 1 rows for 4 rows of features"),
        ("it.npy", "", "it.csv is not a CSV table"),
        ("it.txt", "label\n", r"it.txt does not end in one of .npz, .npy, .parquet"),
        ("it.npz", "label\n", "it.npz holds its labels itself: leave out it.csv"),
    ],
)
def test_a_file_or_table_that_does_not_fit_is_refused(tmp_path: Path, name: str, table: str | None, message: str):
    np.save(tmp_path / "it.npy", FEATURES)
    if table is not None:
        (tmp_path / "it.csv").write_text(table, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_features(tmp_path / name, None if table is None else tmp_path / "it.csv")


@pytest.mark.parametrize("name", ["it.npz", "it.npy", "it.parquet"])
def test_a_file_that_is_missing_or_damaged_is_one_line(tmp_path: Path, name: str):
    (tmp_path / "it.csv").write_text("label\ncat\n", encoding="utf-8")
    table = tmp_path / "it.csv" if name == "it.npy" else None
    for content in (None, b"", b"PK\x03\x04", bytes(range(256))):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(CCLNetError) as error:
            read_features(tmp_path / name, table)
        assert "\n" not in str(error.value)
