"""Features of labelled images: from a network, and from files as people have them."""

import io
import os
import zipfile
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


def test_missing_groups_stay_apart_when_written_and_read(tmp_path: Path):
    np.savez(tmp_path / "it.npz", features=FEATURES, labels=LABELS, groups=["1", "", "2", ""])
    first = read_features(tmp_path / "it.npz")
    assert len(set(first.groups or [])) == 4
    write_features(tmp_path / "again.npz", first)
    assert read_features(tmp_path / "again.npz").groups == first.groups


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
    (tmp_path / "it.parquet").touch()
    found = read_features(tmp_path / "it.parquet")
    np.testing.assert_array_equal(found.features, FEATURES)
    assert (found.labels, found.groups, found.images) == (LABELS, ["1", "1", "2", "3"], None)


def test_what_reads_parquet_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(path: Path) -> None:
        raise ImportError("no engine")

    monkeypatch.setattr("cclnet.inference.features.pd.read_parquet", missing)
    (tmp_path / "it.parquet").touch()
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
        ({"features": FEATURES, "labels": [1.0, np.nan, 2.0, 1.0]}, "the label of 1 rows is missing"),
        (
            {"features": FEATURES, "labels": np.zeros(4, "M8[D]")},
            r"labels must be names or numbers, not datetime",
        ),
        ({"features": FEATURES, "labels": ["a\x1b", "b"] * 2}, r"has a class 'a\\x1b': .* no control character"),
        ({"features": FEATURES, "labels": LABELS, "images": [1, 2, 2, 3]}, "has several rows of the image 2"),
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
        (
            "it.npy",
            "label\ncat,a\ndog,b\ncat,c\ndog,d\n",
            "it.csv: 4 rows have not one value for each of the 1",
        ),
        ("it.npy", "label,image\ncat,1\n,2\ndog,1\n,3\n", "it.csv: the label of 2 rows is missing; .* image 1$"),
        ("it.npy", "label\ncat\nCat\n=cmd|x\ndog\n", "'=cmd|x' that reads as a formula.* mind the letter case"),
        ("it.txt", "label\n", r"it.txt does not end in one of .npz, .npy, .parquet"),
        ("it.npz", "label\n", "it.npz holds its labels itself: leave out it.csv"),
    ],
)
def test_a_file_or_table_that_does_not_fit_is_refused(tmp_path: Path, name: str, table: str | None, message: str):
    np.save(tmp_path / "it.npy", FEATURES)
    np.savez(tmp_path / "it.npz", features=FEATURES, labels=LABELS)
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


def test_names_of_one_look_are_one_and_rows_without_a_group_have_one_of_their_own(tmp_path: Path):
    np.save(tmp_path / "it.npy", FEATURES)
    (tmp_path / "it.csv").write_text("label,group\nn\xe9vus,p\ne\u0301, p\nne\u0301vus ,\n\xe9,\n", encoding="utf-8")
    found = read_features(tmp_path / "it.npy", tmp_path / "it.csv")
    assert found.labels == ["n\xe9vus", "\xe9", "n\xe9vus", "\xe9"]
    assert (found.groups or [])[:2] == ["p", "p"]
    assert len(set(found.groups or [])) == 3


def test_labels_in_bytes_are_text(tmp_path: Path):
    np.savez(tmp_path / "it.npz", features=FEATURES, labels=np.array([b"cat", "d\xe9".encode()] * 2))
    assert read_features(tmp_path / "it.npz").labels == ["cat", "d\xe9"] * 2


def test_names_that_are_no_text_are_refused(tmp_path: Path):
    labels = np.full(4, 2**31 - 1, np.uint32).view("U1")
    np.savez(tmp_path / "it.npz", features=FEATURES, labels=labels)
    with pytest.raises(DataError, match=r"it\.npz: names are no text in Unicode"):
        read_features(tmp_path / "it.npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_within_a_compressed_array_is_one_line(tmp_path: Path, method: int):
    with zipfile.ZipFile(tmp_path / "it.npz", "w", method) as archive:
        for name, array in {"features": np.zeros((4000, 3)), "labels": np.array(LABELS * 1000)}.items():
            content = io.BytesIO()
            np.save(content, array)
            archive.writestr(f"{name}.npy", content.getvalue())
    data, refused = (tmp_path / "it.npz").read_bytes(), 0
    for place in range(30, len(data), 7):
        (tmp_path / "it.npz").write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            found = read_features(tmp_path / "it.npz")
        except CCLNetError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert found.labels == LABELS * 1000 and not found.features.any()
    assert refused > 20


def test_members_that_are_no_arrays_are_refused(tmp_path: Path):
    np.savez(tmp_path / "it.npz", features=FEATURES)
    with zipfile.ZipFile(tmp_path / "it.npz", "a") as archive:
        archive.writestr("labels", b"cat")
    with pytest.raises(DataError, match=r"it\.npz: labels is no array"):
        read_features(tmp_path / "it.npz")


def test_what_would_not_fit_into_memory_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.savez_compressed(tmp_path / "it.npz", features=np.zeros((50_000, 100)), labels=np.zeros(50_000))
    assert (tmp_path / "it.npz").stat().st_size < 50_000
    monkeypatch.setattr("cclnet.inference.features.physical_memory", lambda: 40_000_000)
    with pytest.raises(CCLNetError, match=r"it\.npz holds more than fits into this machine's memory"):
        read_features(tmp_path / "it.npz")


def test_an_array_that_claims_to_be_larger_than_any_memory_is_one_line(tmp_path: Path):
    np.save(tmp_path / "it.npy", FEATURES)
    claimed = (tmp_path / "it.npy").read_bytes().replace(b"(4, 3), }         ", b"(4000000000000, 3)}")
    (tmp_path / "it.npy").write_bytes(claimed)
    (tmp_path / "it.csv").write_text("label\na\nb\n", encoding="utf-8")
    with pytest.raises(CCLNetError, match=r"it\.npy holds more than fits into this machine's memory"):
        read_features(tmp_path / "it.npy", tmp_path / "it.csv")


@pytest.mark.parametrize("name", ["it.npz", "it.npy", "it.parquet"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str):
    os.mkfifo(tmp_path / name)
    with pytest.raises(CCLNetError, match="cannot be read: it is not a regular file"):
        read_features(tmp_path / name, tmp_path / "it.csv" if name == "it.npy" else None)
