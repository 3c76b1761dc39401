"""New projects for the user's own images; ``tests/project/test_wheel.py`` makes one from the wheel."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from cclnet import __version__
from cclnet.experiments.project import IS_THERE, create_project
from cclnet.params import Params
from cclnet.system.errors import CCLNetError, DataError
from tests.experiments.builders import write_photos

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


def everything_in(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_stages_are_those_of_this_repository_but_for_the_code_that_is_installed(photos: Path, tmp_path: Path):
    create_project(tmp_path / "it", photos)
    made, own = (read(folder / "dvc.yaml") for folder in (tmp_path / "it", PROJECT))
    assert made.keys() == own.keys()
    assert (made["plots"], made["artifacts"]) == (own["plots"], own["artifacts"])
    assert list(made["stages"]) == list(own["stages"])
    for name, stage in own["stages"].items():
        kept = [dep for dep in stage["deps"] if not dep.startswith("cclnet/")]
        assert sorted(made["stages"][name].pop("deps")) == sorted([*kept, "requirements.txt"])
        assert made["stages"][name] == {key: value for key, value in stage.items() if key != "deps"}
    for folder, pattern in (("stages", "*.py"), (".dvc/plots", "*.json")):
        copied = {path.name: path.read_bytes() for path in (tmp_path / "it" / folder).glob(pattern)}
        assert copied == {path.name: path.read_bytes() for path in (PROJECT / folder).glob(pattern)}
    assert (tmp_path / "it" / "requirements.txt").read_text() == f"cclnet[pipeline]=={__version__}\n"
    page = (PROJECT / "cclnet" / "views" / "pages" / "plots.html").read_bytes()
    assert (tmp_path / "it" / ".dvc" / "plots.html").read_bytes() == page


@pytest.mark.parametrize("name", ["photos", "Aufnähme von 'heute'", 'a "b" \\ # {c}: [d]', "12", "null"])
def test_only_the_dataset_differs_in_the_params(name: str, tmp_path: Path):
    photos = write_photos(tmp_path / name)
    found = create_project(tmp_path / "it", photos)
    params, own = (read(folder / "params.yaml") for folder in (tmp_path / "it", PROJECT))
    own["dataset"] = "folder"
    own["datasets"]["folder"]["source"] = str(photos)
    assert params == own
    assert Params.load(tmp_path / "it" / "params.yaml").block.source == str(photos)
    assert found.class_counts == {"cat": 10, "dog": 10}


@pytest.mark.parametrize(("groups", "split"), [(("A", "A", "B"), "lesion"), (("A", "B", "C"), "image")])
def test_images_of_one_group_stay_together(photos: Path, tmp_path: Path, groups: tuple[str, ...], split: str):
    rows = zip(("cat/0.png", "dog/0.png", "dog/1.png"), ("cat", "dog", "dog"), groups, strict=True)
    text = "".join(f"{','.join(row)}\n" for row in rows)
    (photos / "labels.csv").write_text(f"image,label,group\n{text}", encoding="utf-8")
    for path in [*photos.rglob("[2-9].png"), photos / "cat" / "1.png"]:
        path.unlink()
    found = create_project(tmp_path / "it", photos)
    assert (found.by_group, read(tmp_path / "it" / "params.yaml")["split"]) == (split == "lesion", split)


def test_images_in_the_project_stay_there_and_out_of_git(tmp_path: Path):
    place = tmp_path / "it"
    photos = write_photos(place / "my photos")
    (place / "README.md").write_text("mine", encoding="utf-8")
    before = everything_in(place)
    create_project(place, photos)
    assert before.items() <= everything_in(place).items()
    assert read(place / "params.yaml")["datasets"]["folder"]["source"] == "my photos"
    ignored = subprocess.run(["git", "status", "--short", "--ignored"], cwd=place, capture_output=True, text=True)
    assert '!! "my photos/"' in ignored.stdout.splitlines()
    assert "?? README.md" in ignored.stdout.splitlines()


@pytest.mark.parametrize("name", ["photos [1]", "a*b?", "!x", "#y", r"back\slash"])
def test_images_in_the_project_are_ignored_whatever_the_folder_is_called(tmp_path: Path, name: str):
    place = tmp_path / "it"
    write_photos(place / name)
    create_project(place, place / name)
    command = ["git", "status", "--short", "--untracked-files=all"]
    untracked = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True).stdout
    assert ".png" not in untracked and "?? dvc.yaml" in untracked


@pytest.mark.parametrize("name", ["official", "drawn"])
def test_a_folder_that_is_called_as_another_source_is_that_folder(tmp_path: Path, name: str):
    place = tmp_path / "it"
    write_photos(place / name)
    create_project(place, place / name)
    assert read(place / "params.yaml")["datasets"]["folder"]["source"] == f"./{name}"


def test_the_current_folder_can_become_the_project(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "it").mkdir()
    monkeypatch.chdir(tmp_path / "it")
    create_project(Path(), Path("../photos"))
    assert read(Path("params.yaml"))["datasets"]["folder"]["source"] == str(photos)
    assert sorted(path.name for path in Path.cwd().iterdir() if path.name.startswith(".")) == [
        *(".dvc", ".dvcignore", ".git", ".gitignore")
    ]


def test_all_problems_are_listed_and_nothing_is_written(photos: Path, tmp_path: Path):
    place = tmp_path / "it"
    (place / "data").mkdir(parents=True)
    (place / "dvc.yaml").write_text("mine", encoding="utf-8")
    (place / ".gitignore").symlink_to("nowhere")
    (photos / "cat" / "a.heic").write_bytes(b"")
    before = everything_in(tmp_path)
    with pytest.raises(DataError) as caught:
        create_project(place, photos)
    problems = [(where, what) for where, what in caught.value.problems]
    assert problems[:3] == [(str(place / name), IS_THERE) for name in ("dvc.yaml", ".gitignore", "data")]
    assert [where for where, _ in problems[3:]] == ["cat/a.heic"]
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize(
    ("folder", "images", "problem"),
    [
        ("it", "none", "none: is no folder of images"),
        ("it", "file", "file: is no folder of images"),
        ("file", "photos", "file: cannot be made: "),
        ("file/it", "photos", "file/it: cannot be made: "),
        ("it", "empty", "the folder: "),
        ("photos/it", "photos", "source "),
    ],
)
def test_what_cannot_be_made_is_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, images: str, problem: str
):
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"")
    Path("empty").mkdir()
    before = everything_in(tmp_path)
    with pytest.raises(DataError) as caught:
        create_project(Path(folder), Path(images))
    assert any(f"{where}: {what}".startswith(problem) for where, what in caught.value.problems)
    assert everything_in(tmp_path) == before


def test_a_failure_on_the_way_leaves_nothing(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before, rename, names = everything_in(tmp_path), Path.rename, []

    def fail_at_the_fourth(self: Path, target: Path) -> Path:
        names.append(self.name)
        if len(names) == 4:
            raise OSError(28, "No space left on device", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_at_the_fourth)
    with pytest.raises(CCLNetError, match=r"No space left on device; correct that and run it again$"):
        create_project(tmp_path / "it", photos)
    assert len(names) == 4
    assert everything_in(tmp_path) == before


def test_a_project_in_a_repository_is_a_part_of_it(photos: Path, tmp_path: Path):
    (tmp_path / "repository").mkdir()
    subprocess.run(["git", "init", "--quiet", tmp_path / "repository"], check=True)
    assert create_project(tmp_path / "repository" / "it", photos).has_git
    assert not (tmp_path / "repository" / "it" / ".git").exists()
    assert "no_scm" not in (tmp_path / "repository" / "it" / ".dvc" / "config").read_text()


def test_without_git_dvc_is_set_up_for_that(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    assert not create_project(tmp_path / "it", photos).has_git
    assert not (tmp_path / "it" / ".git").exists()
    assert "    no_scm = true\n" in (tmp_path / "it" / ".dvc" / "config").read_text()


@pytest.mark.parametrize("with_git", [True, False])
def test_dvc_runs_the_project(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_git: bool):
    with monkeypatch.context() as patch:
        if not with_git:
            patch.setattr(shutil, "which", lambda name: None)
        create_project(tmp_path / "it", photos)
    paths = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)}
    for command in (["repro", "split"], ["status", "split"]):
        dvc = [sys.executable, "-m", "dvc", *command]
        ended = subprocess.run(dvc, cwd=tmp_path / "it", env=os.environ | paths, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
    assert "up to date" in ended.stdout
    split = pd.read_csv(tmp_path / "it" / "data" / "split.csv")
    assert split["subset"].value_counts().to_dict() == {"train": 16, "validation": 4}
    assert set(split["image"]) == {f"{kind}_{number}" for kind in ("cat", "dog") for number in range(10)}
