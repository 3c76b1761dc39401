import os
from pathlib import Path

import pytest

from cclnet.images.finding import hidden, visible_files


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in visible_files(folder)[0]]


def test_files_are_found_at_any_depth_and_sorted(tmp_path: Path):
    write(tmp_path, "b/2.png", "a/deep/er/1.png", "a/3.png", "0.txt")
    assert names(tmp_path) == ["0.txt", "a/3.png", "a/deep/er/1.png", "b/2.png"]


@pytest.mark.parametrize(
    "name", [".git/1.png", ".1.png", "@eaDir/1.png", "a/__MACOSX/1.png", "Thumbs.db", "Desktop.ini"]
)
def test_what_systems_put_beside_files_is_passed_over(tmp_path: Path, name: str):
    write(tmp_path, name, "a/1.png")
    assert names(tmp_path) == ["a/1.png"]
    assert hidden(name.split("/")[-1]) or hidden(name.split("/")[-2])


def test_links_in_a_loop_end(tmp_path: Path):
    write(tmp_path, "a/1.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "loop").symlink_to("loop")
    files, problems = visible_files(tmp_path)
    assert [path.name for path in files] == ["1.png", "loop"]
    assert problems == [
        (str(tmp_path / "a" / "self"), f"is the same folder as {tmp_path / 'a'}, and is not read again"),
        (str(tmp_path / "a" / "up"), f"is the same folder as {tmp_path}, and is not read again"),
    ]


def test_links_that_double_with_every_level_are_followed_once(tmp_path: Path):
    """Forty folders with two links each to the next one: 2⁴⁰ paths."""
    for level in range(40):
        write(tmp_path, f"{level}/{level}.png")
        for name in ("left", "right"):
            (tmp_path / str(level) / name).symlink_to(tmp_path / str(level + 1))
    files, problems = visible_files(tmp_path / "0")
    assert sorted(path.name for path in files if path.suffix == ".png") == sorted(f"{level}.png" for level in range(40))
    assert len(problems) == 39


def test_a_folder_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, "a/1.png", "locked/2.png", "z/3.png")
    scan = os.scandir

    def refuse(path: str):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names(tmp_path) == ["a/1.png", "z/3.png"]
    assert visible_files(tmp_path)[1] == [(str(tmp_path / "locked"), "cannot be read: Permission denied")]
    with pytest.raises(PermissionError):
        visible_files(tmp_path / "locked")
