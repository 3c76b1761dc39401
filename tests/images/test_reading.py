"""Many files at once, in zips or not."""

import os
import threading
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from cclnet.images.reading import map_members, map_places
from tests.images.builders import zip_of


def contents(count: int) -> dict[str, bytes]:
    """Files that can be told apart by their lengths."""
    return {f"{number}.bin": bytes(number) for number in range(count)}


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_the_order_asked_for(tmp_path: Path, threads: int):
    zip_of(tmp_path / "in.zip", contents(60))
    members = [f"{number}.bin" for number in (5, 59, *range(40), 5)]
    assert list(map_members(tmp_path / "in.zip", members, len, threads)) == [5, 59, *range(40), 5]
    assert list(map_members(tmp_path / "in.zip", [], len, threads)) == []


def test_places_may_lie_in_several_zips_and_beside_them(tmp_path: Path):
    zip_of(tmp_path / "a.zip", contents(4))
    zip_of(tmp_path / "b.zip", {"3.bin": b"another"})
    (tmp_path / "3.bin").write_bytes(b"no zip")
    a, b = tmp_path / "a.zip", tmp_path / "b.zip"
    places = [(b, "3.bin"), (tmp_path / "3.bin", None), (a, "3.bin"), (tmp_path / "none", None), (a, "0.bin")]
    *found, missing, empty = map_places(places, bytes, 2)
    assert found == [b"another", b"no zip", bytes(3)]
    assert (str(missing), empty) == ("cannot be read: No such file or directory", b"")


def test_an_item_that_is_refused_or_fails_leaves_the_others(tmp_path: Path):
    zip_of(tmp_path / "in.zip", contents(4))

    def use(data: bytes) -> int:
        match len(data):
            case 1:
                raise ValueError("is too short")
            case 2:
                raise KeyError("two\nlines")
        return len(data)

    first, refused, failed, last = map_members(tmp_path / "in.zip", [f"{number}.bin" for number in range(4)], use, 2)
    assert (first, str(refused), last) == (0, "is too short", 3)
    assert str(failed) == "cannot be used: KeyError 'two\\nlines'"


def test_lack_of_memory_ends_it_all(tmp_path: Path):
    def use(data: bytes) -> int:
        raise MemoryError

    zip_of(tmp_path / "in.zip", contents(2))
    with pytest.raises(MemoryError):
        list(map_members(tmp_path / "in.zip", ["0.bin"], use, 1))


@pytest.mark.parametrize("threads", [1, 2])
def test_no_more_than_eight_results_a_thread_wait_to_be_taken(tmp_path: Path, threads: int):
    zip_of(tmp_path / "in.zip", contents(50))
    used, lock = [0], threading.Lock()

    def use(data: bytes) -> int:
        with lock:
            used[0] += 1
        return len(data)

    for taken, result in enumerate(map_members(tmp_path / "in.zip", list(contents(50)), use, threads)):
        assert result == taken
        assert used[0] <= taken + 8 * threads


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    found = list(map_places([(tmp_path / "pipe", None), (tmp_path / "folder", None)], len, 1))
    assert [str(result) for result in found] == ["is not a regular file"] * 2


def test_a_member_is_not_unpacked_beyond_its_size_in_the_directory(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(2**26))
        archive.infolist()[0].file_size = 2**16
    tracemalloc.start()
    results = list(map_members(tmp_path / "in.zip", ["a.jpg"], len, 1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [str(result) for result in results] == ["is damaged"]
    assert peak < 2**23


def test_files_of_a_folder_are_read_as_members_of_a_zip(tmp_path: Path):
    contents = {f"{number}.bin": bytes(number) for number in range(40)}
    paths = [tmp_path / name for name in contents]
    for path in paths:
        path.write_bytes(contents[path.name])
    paths[7].unlink()
    results = list(map_places([(path, None) for path in paths], len, 2))
    assert [str(results.pop(7))] == ["cannot be read: No such file or directory"]
    assert results == [number for number in range(40) if number != 7]
