"""``cclnet init`` on the screen; what it makes is tested in ``tests/experiments/test_project.py``."""

import shutil
from pathlib import Path

import pytest

from tests.experiments.builders import write_photos


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_photos(Path("photos"))


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The programs that are installed."""
    names = {"git", "dvc"}
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: which(name) or name if name in names else None)
    return names


def test_init_says_what_it_found_and_what_to_run(run, programs: set[str]):
    Path("photos/notes.txt").write_text("none", encoding="utf-8")
    status, out, err = run("init", "a project", "--data", "photos")
    assert (status, err) == (0, "")
    first, *others = out.splitlines()
    assert first == "note: the folder: holds other files, which are passed over: .txt 1"
    assert others == [
        "20 images of 2 classes: cat 10, dog 10",
        "sizes and schedule are those of the block folder in params.yaml: adapt them to your images",
        "next: cd 'a project' && dvc repro",
    ]


def test_programs_that_are_missing_are_named(run, programs: set[str]):
    programs.clear()
    out = run("init", "it", "--data", "photos").out
    assert "git was not found: install it for experiments (dvc exp)" in out
    assert 'dvc was not found: pip install "dvc>=3.60"' in out


def test_many_classes_and_groups_are_summed_up(run, programs: set[str]):
    rows = []
    for number in range(13):
        path = (
            Path("photos") / "cat" / f"{number % 10}.png" if number < 10 else Path("photos") / "dog" / f"{number}.png"
        )
        path.write_bytes(Path("photos/cat/0.png").read_bytes())
        rows.append(f"{path.relative_to('photos')},class {number:02},{number // 2}\n")
    for path in Path("photos/dog").glob("[0-9].png"):
        path.unlink()
    Path("photos/labels.csv").write_text("image,label,group\n" + "".join(rows), encoding="utf-8")
    out = run("init", "it", "--data", "photos").out
    assert "13 images of 13 classes: class 00 1, " in out
    assert "class 09 1 and 3 more\n" in out
    assert "groups have several images, which stay in one subset (split: lesion)" in out


def test_problems_come_one_a_line_and_end_with_1(run):
    Path("it").mkdir()
    Path("it/dvc.yaml").write_text("mine", encoding="utf-8")
    Path("photos/cat/a.heic").write_bytes(b"")
    status, out, err = run("init", "it", "--data", "photos")
    assert (status, out) == (1, "")
    head, *problems = err.splitlines()
    assert head == "cclnet: the project cannot be made: correct what follows"
    assert [line.split(": ")[0] for line in problems] == ["  it/dvc.yaml", "  cat/a.heic"]
    assert [path.name for path in Path("it").iterdir()] == ["dvc.yaml"]


def test_the_images_have_to_be_named(run):
    status, _, err = run("init", "it")
    assert status == 2 and "--data" in err
