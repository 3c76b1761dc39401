import json
import os
import subprocess
import sys
import unicodedata
import zipfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cclnet.dataset.archives import DATE
from cclnet.dataset.checks import check_dataset
from cclnet.dataset.download import digest_of
from cclnet.dataset.folders import holds_own_images, import_folder
from cclnet.dataset.isic import GROUND_TRUTH_ZIP, INPUT_ZIP, LESION_TABLE, OTHER_SETS
from cclnet.dataset.splits import read_split
from cclnet.dataset.tables import OWN_LABELS, dataset_problems, image_members, read_classes, read_table
from cclnet.metrics.names import HEADLINE
from cclnet.metrics.score_table import read_scores
from cclnet.system.errors import CCLNetError, DataError, Problem
from cclnet.system.files import read_csv, read_json
from studies.running.projects import start_project
from studies.running.settings import ROOT
from tests.images.builders import encoded, noise

DECOMPOSED = unicodedata.normalize("NFD", "Flöte")
FORMATS = {"jpg": "JPEG", "JPEG": "JPEG", "png": "PNG", "tif": "TIFF", "bmp": "BMP", "gif": "GIF", "webp": "WEBP"}


def picture(number: int, suffix: str = "png") -> bytes:
    """A file that no other number gives."""
    return encoded(Image.fromarray(np.full((9, 12, 3), number, np.uint8)), FORMATS[suffix])


def write_folder(folder: Path, names: list[str], labels: str | None = None) -> None:
    """A picture under each name, and a table of labels if one is given."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, path.suffix.removeprefix(".")))
    if labels is not None:
        (folder / "labels.csv").write_text(labels, encoding="utf-8")


def problems(folder: Path) -> list[Problem]:
    """What the import refuses a folder for, after a look that it has written nothing."""
    with pytest.raises(DataError, match="cannot be used: fix what follows") as caught:
        import_folder(str(folder), folder / ".out")
    assert not (folder / ".out").exists()
    return list(caught.value.problems)


def imported(folder: Path, destination: Path) -> list[tuple[str, str, str]]:
    """Image, label and lesion of every image, after the checks that every dataset goes through."""
    import_folder(str(folder), destination)
    assert check_dataset(str(destination)).problems == []
    return list(read_table(destination).itertuples(index=False, name=None))


def test_an_experiment_in_a_copy_of_the_project_reads_the_checkout_s_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_folder(tmp_path / "images", ["a/1.png", "b/1.png"])
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "x"
    (copy / "images").mkdir(parents=True)  # of the folder git may keep some files, which are not all
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(copy)
    assert holds_own_images("images")
    provenance, _ = import_folder("images", copy / "raw")
    assert sorted(image_members(copy / "raw" / INPUT_ZIP)) == ["a_1", "b_1"]
    assert {file.source for file in provenance} == {"images"}


def originals(folder: Path, names: Mapping[str, str]) -> dict[str, bytes]:
    return {image: (folder / name).read_bytes() for image, name in names.items()}


def stored(destination: Path) -> dict[str, bytes]:
    members = image_members(destination / INPUT_ZIP)
    with zipfile.ZipFile(destination / INPUT_ZIP) as archive:
        return {image: archive.read(member) for image, member in members.items()}


def test_a_folder_for_each_class(tmp_path: Path):
    names = ["b c/2.png", "b c/1.JPEG", "ärger/1.webp", "10/license.tif", "10/1:2\\3.bmp", f"{DECOMPOSED}/x.y.gif"]
    write_folder(tmp_path / "mine", [*names, "10/.hidden.png", ".git/1.png"])
    (tmp_path / "mine" / "LICENSE").write_text("free")
    ids = ["b c_2", "b c_1", "ärger_1", "10_license", "10_1_2_3", "Flöte_x.y"]
    labels = ["b c", "b c", "ärger", "10", "10", "Flöte"]
    expected = sorted(zip(ids, labels, ids, strict=True))
    assert imported(tmp_path / "mine", tmp_path / "raw") == expected
    assert read_classes(tmp_path / "raw" / GROUND_TRUTH_ZIP) == ["10", "Flöte", "b c", "ärger"]
    assert stored(tmp_path / "raw") == originals(tmp_path / "mine", dict(zip(ids, names, strict=True)))
    counts = {"10": 2, "Flöte": 1, "b c": 2, "ärger": 1}
    assert check_dataset(str(tmp_path / "raw")).class_counts == counts


def test_a_table_of_labels_with_groups(tmp_path: Path):
    table = (
        "\ufeffimage,label,group\r\n"
        "deep/er/1.png,NA,p1\r\n"
        f'2.jpg,"cat, old",p1\r\n{DECOMPOSED}.png,{DECOMPOSED},p2\r\n007.png,NA,p2\r\n'
    )
    names = ["deep/er/1.png", "2.jpg", "Flöte.png", "007.png"]
    write_folder(tmp_path / "mine", names, table)
    assert imported(tmp_path / "mine", tmp_path / "raw") == [
        ("007", "NA", "p2"),
        ("2", "cat, old", "p1"),
        ("Flöte", "Flöte", "p2"),
        ("deep_er_1", "NA", "p1"),
    ]
    assert read_classes(tmp_path / "raw" / GROUND_TRUTH_ZIP) == ["Flöte", "NA", "cat, old"]


def test_a_table_without_groups_makes_each_image_its_own(tmp_path: Path):
    write_folder(tmp_path / "mine", ["1.png", "2.png"], "image,label\n1.png,a\n2.png,b\n")
    assert imported(tmp_path / "mine", tmp_path / "raw") == [("1", "a", "1"), ("2", "b", "2")]


def test_a_class_s_folder_may_be_a_link(tmp_path: Path):
    write_folder(tmp_path / "mine", ["a/1.png"])
    write_folder(tmp_path / "elsewhere", ["1.png"])
    (tmp_path / "mine" / "b").symlink_to(tmp_path / "elsewhere")
    assert [label for _, label, _ in imported(tmp_path / "mine", tmp_path / "raw")] == ["a", "b"]


def test_equal_folders_give_equal_bytes(tmp_path: Path):
    names = ["b/1.png", "a/2.png", "a/1.png"]
    for copy in ("one", "two"):
        write_folder(tmp_path / copy, names)
        names.reverse()
    for number, name in enumerate(["b/1.png", "a/2.png", "a/1.png"]):
        (tmp_path / "two" / name).write_bytes(picture(number))
        os.utime(tmp_path / "two" / name, (0, 0))
    records = [import_folder(str(tmp_path / copy), tmp_path / f"raw-{copy}")[0] for copy in ("one", "two")]
    for name in (INPUT_ZIP, GROUND_TRUTH_ZIP, LESION_TABLE):
        assert (tmp_path / "raw-one" / name).read_bytes() == (tmp_path / "raw-two" / name).read_bytes()
    assert [(record.name, record.sha256) for record in records[0]] == [
        (record.name, record.sha256) for record in records[1]
    ]
    with zipfile.ZipFile(tmp_path / "raw-one" / INPUT_ZIP) as archive:
        assert [entry.filename.split("/")[1] for entry in archive.infolist()] == ["a_1.png", "a_2.png", "b_1.png"]
        assert {(entry.date_time, entry.compress_type) for entry in archive.infolist()} == {(DATE, zipfile.ZIP_STORED)}


def test_what_was_read_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_folder(tmp_path / "mine", ["1.png", "2.png"], "image,label\n1.png,a\n2.png,b\n")
    monkeypatch.chdir(tmp_path)
    records, _ = import_folder("mine", Path("raw"))
    assert [record.name for record in records] == [LESION_TABLE, GROUND_TRUTH_ZIP, INPUT_ZIP, "labels.csv"]
    assert {record.source for record in records} == {"mine"}
    paths = ["raw/" + record.name for record in records[:3]] + ["mine/labels.csv"]
    for record, path in zip(records, paths, strict=True):
        assert record.sha256 == digest_of(Path(path), "sha256")
        assert record.bytes == Path(path).stat().st_size


def test_progress_is_told(tmp_path: Path):
    told = []
    write_folder(tmp_path / "mine", ["a/1.png", "b/1.png"])

    def note(name: str, done: int, total: int, detail: str = "") -> None:
        told.append((name, done, total))

    import_folder(str(tmp_path / "mine"), tmp_path / "raw", note)
    assert told == [("images stored", 1, 2), ("images stored", 2, 2)]


# what is refused


def test_everything_that_is_wrong_with_folders_comes_at_once(tmp_path: Path):
    names = ["a/1.png", "a/1.jpg", "a/A.png", "a/a.png", "A/2.png", "stray.png", "label/1.png"]
    write_folder(tmp_path, [*names, "a/new\nline.png"])
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a" / "photo.heic").write_bytes(b"?")
    (tmp_path / "a" / os.fsdecode(b"\xff.png")).write_bytes(picture(1))
    no_image = "is an image that is not read: convert it to one of .jpg, .jpeg, .png, .tif, .tiff, .bmp, .gif, .webp"
    unprintable = "has control characters, or bytes that are no UTF-8, in its name"
    assert problems(tmp_path) == [
        ("'a/new\\nline.png'", unprintable),
        ("a/photo.heic", no_image),
        ("a/pipe.png", "is not a regular file"),
        ("'a/\\udcff.png'", unprintable),
        ("stray.png", "lies in no class's folder"),
        ("empty", "is a class's folder without an image"),
        ("a/1.png", "would have the id 'a_1', as 'a/1.jpg' has: rename one of them"),
        ("a/a.png", "would have the id 'a_a', as 'a/A.png' has: rename one of them"),
        ("the folder", "has the classes 'A' and 'a': mind the letter case"),
        ("the folder", "has a class 'label', which is the name of a column: call it otherwise"),
    ]


def test_everything_that_is_wrong_with_a_table_comes_at_once(tmp_path: Path):
    rows = ["1.png,a,p,x", "2.png,,p,x", "3.png,b,,x", "1.png,b,p,x", "gone.png,a,p,x", "D.png,a,p,x", "short.png,b"]
    write_folder(tmp_path, ["1.png", "2.png", "3.png", "d.png", "new.png", "short.png"])
    (tmp_path / "labels.csv").write_text("\n".join(["image,label,group,age", *rows]), encoding="utf-8")
    assert problems(tmp_path) == [
        ("labels.csv, line 5, '1.png'", "is there a second time, after labels.csv, line 2, '1.png'"),
        ("labels.csv, line 8, 'short.png'", "has 2 values instead of 4"),
        ("labels.csv", "has the unknown columns ['age']: image, label and group are read"),
        ("labels.csv, line 3, '2.png'", "names no label"),
        ("labels.csv, line 4, '3.png'", "names no group"),
        ("the folder", "has no image 'gone.png'"),
        ("the folder", "has no image 'D.png', but one of 'd.png': mind the letter case"),
        ("labels.csv", "has no label of image 'd.png', but one of 'D.png': mind the letter case"),
        ("labels.csv", "has no label of image 'new.png'"),
    ]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (b"\xff\xfe\x00", "is no CSV table in UTF-8"),
        (b"", "has the columns '' instead of 'image,label'"),
        (b"label,image\na,1.png\n", "has the columns 'label,image' instead of 'image,label'"),
        (b"image,label\n", "has no rows"),
        (b"image,label\n1.png,a\n", "has fewer than two classes"),
        (b"image,label,patient\n1.png,a,p\n", "has the unknown columns ['patient']"),
    ],
)
def test_a_table_that_cannot_be_read(tmp_path: Path, table: bytes, said: str):
    write_folder(tmp_path, ["1.png"])
    (tmp_path / "labels.csv").write_bytes(table)
    where, what = problems(tmp_path)[0]
    assert where == "labels.csv"
    assert said in what


@pytest.mark.parametrize("names", [[], ["1.png"], [".hidden/1.png"]])
def test_a_folder_of_nothing_known(tmp_path: Path, names: list[str]):
    write_folder(tmp_path, names)
    assert problems(tmp_path) == [
        ("the folder", "holds neither the official files nor labels.csv nor a folder for each class")
    ]


def test_a_single_class_is_none(tmp_path: Path):
    write_folder(tmp_path, ["a/1.png", "a/2.png"])
    assert problems(tmp_path) == [("the folder", "has fewer than two classes")]


def test_two_spellings_of_one_name(tmp_path: Path):
    write_folder(tmp_path, ["a/Flöte.png", f"a/{DECOMPOSED}.png", "b/1.png"])
    assert problems(tmp_path) == [
        ("a/Flöte.png", "is there twice, in two spellings that read the same: rename one of them")
    ]


def test_a_file_that_the_system_does_not_give_leaves_no_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_folder(tmp_path / "mine", ["a/1.png", "b/1.png", "b/2.png"])
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.parent.name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"(?s)b/1\.png: cannot be read: Permission denied.*b/2\.png: cannot be read"):
        import_folder(str(tmp_path / "mine"), tmp_path / "raw")
    assert list((tmp_path / "raw").iterdir()) == []


def test_a_folder_that_the_system_does_not_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_folder(tmp_path / "mine", ["a/1.png", "b/1.png"])
    scan = os.scandir

    def refuse(path: str):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(CCLNetError, match=r"mine/b: cannot be read: Permission denied$"):
        import_folder(str(tmp_path / "mine"), tmp_path / "raw")


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_folder(tmp_path / "mine", ["a/1.png", "b/1.png"])
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(CCLNetError, match="has 1 bytes left"):
        import_folder(str(tmp_path / "mine"), tmp_path / "raw")
    assert list((tmp_path / "raw").iterdir()) == []


# which sources are such folders


def test_a_folder_with_an_official_file_is_none_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert holds_own_images(str(tmp_path))
    assert holds_own_images(".")
    for source in ("official", "https://example.org/data", "absent"):
        assert not holds_own_images(source)
    (tmp_path / "official").mkdir()
    assert not holds_own_images("official")
    (tmp_path / LESION_TABLE).touch()
    assert not holds_own_images(".")
    (tmp_path / INPUT_ZIP).with_suffix("").mkdir()  # the official images, unpacked
    assert holds_own_images(".")
    (tmp_path / INPUT_ZIP).touch()
    assert not holds_own_images(".")
    images, labels = OTHER_SETS[1]
    (tmp_path / images).touch()
    assert not holds_own_images(".")
    (tmp_path / labels).touch()  # the challenge's test set beside the training set
    assert holds_own_images(".")


def test_what_was_imported_is_a_dataset_itself(tmp_path: Path):
    write_folder(tmp_path / "mine", ["a/1.png", "b/1.png"])
    import_folder(str(tmp_path / "mine"), tmp_path / "raw")
    assert dataset_problems(tmp_path / "raw") == []
    assert not holds_own_images(str(tmp_path / "raw"))
    with zipfile.ZipFile(tmp_path / "raw" / GROUND_TRUTH_ZIP) as archive:
        assert archive.namelist() == [f"{Path(GROUND_TRUTH_ZIP).stem}/{OWN_LABELS}"]
    json.dumps(check_dataset(str(tmp_path / "raw")).as_dict())


# the whole chain

STAGES = """
import os, sys
from importlib import import_module
import stages
for folder in sys.argv[1:]:
    os.chdir(folder)
    stages.prepare()
    for stage in ("params", "download", "split", "resize", "train", "evaluate", "plot"):
        import_module(f"stages.{stage}").main()
"""
SETTINGS = {
    "dataset": "folder", "source": "mine", "backbone": "shufflenet_v2_x0_5",
    "short_side": "12", "crop": "10", "epochs": "1", "milestones": "[]", "batch_size": "16", "threads": "1",
}  # fmt: skip
TWO, TEN = ["0", "1"], [f"{name} ä" for name in "abcdefghij"]
GROUPED = ["NA", "cat", "dog, old"]


def write_pictures(folder: Path, classes: list[str]) -> None:
    """Ten pictures of noise in a folder for each class."""
    for label in classes:
        (folder / label).mkdir(parents=True)
        for number in range(10):
            data = encoded(Image.fromarray(noise(14 + number % 3, 12)), "PNG")
            (folder / label / f"{number:03d}.png").write_bytes(data)


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Projects of a user's images after all stages, in one process, with every warning an error."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("two", "ten", "groups")}
    write_pictures(folders["two"] / "mine", TWO)
    write_pictures(folders["ten"] / "mine", TEN)
    write_pictures(folders["groups"] / "mine", ["x", "y", "z"])
    rows = [
        f'{folder}/{number:03d}.png,"{label}",p{number // 2}{folder}'
        for folder, label in zip("xyz", GROUPED, strict=True)
        for number in range(10)
    ]
    (folders["groups"] / "mine/labels.csv").write_text("\n".join(["image,label,group", *rows]), encoding="utf-8")
    for name, folder in folders.items():
        chosen = {"split": "lesion", "method": "lsr"} if name == "groups" else {"head_balance": "none"}
        start_project(folder, SETTINGS | chosen)
    command = [sys.executable, "-W", "error", "-c", STAGES, *map(str, folders.values())]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return folders


@pytest.mark.parametrize(("name", "classes"), [("two", TWO), ("ten", TEN)])
def test_the_chain_with_two_and_with_ten_classes(chains: dict[str, Path], name: str, classes: list[str]):
    folder = chains[name]
    assert read_json(folder / "data/classes.json") == classes
    cells = read_json(folder / "metrics/soft_labels.json")
    assert [(cell["true_class"], cell["soft_class"]) for cell in cells] == list(product(classes, repeat=2))
    predictions = read_csv(folder / "metrics/predictions.csv", ["image"])
    assert list(predictions) == ["image", *classes]
    assert len(predictions) == 2 * len(classes)
    assert pd.read_csv(folder / "metrics/classes.csv", dtype={"class": str})["class"].tolist() == classes
    scores = read_scores(folder / "metrics/scores.csv")
    assert all(score.value is not None or score.note for score in scores.values())
    assert list(read_json(folder / "metrics/metrics.json")) == sorted(set(HEADLINE) - {"planted_similarity"})
    if len(classes) == 2:
        assert scores["not_explained_by_counts"].note == "undefined: two classes are one pair"
    for figure in ("soft_labels", "confusion", "history", "reliability"):
        assert (folder / f"metrics/figures/{figure}.png").stat().st_size > 10_000


def test_the_chain_with_three_classes_and_groups(chains: dict[str, Path]):
    folder = chains["groups"]
    split = read_split(folder / "data/split.csv")
    assert split["label"].value_counts().to_dict() == dict.fromkeys(GROUPED, 10)
    assert max(split.groupby("lesion")["subset"].nunique().tolist()) == 1
    assert len(set(split["lesion"])) == 15
    scores = read_scores(folder / "metrics/scores.csv")
    assert scores["leakage"].value == 0
    assert scores["not_explained_by_counts"].note
    provenance = read_json(folder / "data/provenance.json")
    assert [file["name"] for file in provenance] == [LESION_TABLE, GROUND_TRUTH_ZIP, INPUT_ZIP, "labels.csv"]
    assert {file["source"] for file in provenance} == {"mine"}
