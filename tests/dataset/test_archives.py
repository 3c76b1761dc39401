import struct
import time
import timeit
import tracemalloc
import zipfile
from functools import partial
from pathlib import Path

import pytest

from cclnet.dataset import archives
from cclnet.dataset.archives import zip_directory
from cclnet.dataset.tables import MOST_STRAYS, images_in, members_in
from cclnet.images.finding import IMAGE_SUFFIXES

CENTRAL = struct.Struct("<4s4B4HL2L5H2L")


def write_directory(path: Path, names: list[bytes]) -> None:
    """A zip of empty members, written by hand: ``zipfile`` takes a minute for a million."""
    local = b"".join(
        b"PK\3\4" + struct.pack("<5H3L2H", 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0) + name for name in names
    )
    directory, offset = bytearray(), 0
    for name in names:
        directory += (
            CENTRAL.pack(b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0, 0, 0, offset) + name
        )
        offset += 30 + len(name)
    end64 = b"PK\6\6" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, len(names), len(names), len(directory), len(local))
    locator = b"PK\6\7" + struct.pack("<LQL", 0, len(local) + len(directory), 1)
    end = b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(local + bytes(directory) + end64 + locator + end)


def test_a_directory_written_by_hand_is_one(tmp_path: Path):
    write_directory(tmp_path / "a.zip", [b"a/1.png", b"a/2.png"])
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == ["a/1.png", "a/2.png"]
    assert images_in(tmp_path / "a.zip") == ({"1": "a/1.png", "2": "a/2.png"}, [])


def test_a_hundred_thousand_members_are_looked_up_in_linear_time(tmp_path: Path):
    """Twice as many may take three times as long; each looked for among all would take four times."""

    def seconds(count: int) -> float:
        """The faster of two: without garbage collection, and not slowed by the processes beside it."""
        names = [f"{number:06d}.{'png' if number % 2 else 'xyz'}".encode() for number in range(count)]
        write_directory(tmp_path / "large.zip", names)
        members, problems = members_in(tmp_path / "large.zip", IMAGE_SUFFIXES)
        assert (len(members), len(problems)) == (count // 2, MOST_STRAYS + 1)
        look_up = partial(members_in, tmp_path / "large.zip", IMAGE_SUFFIXES)
        return min(timeit.repeat(look_up, number=1, repeat=2, timer=time.process_time))

    assert seconds(100_000) < 3 * seconds(50_000) + 0.5


def test_strays_are_named_up_to_a_number_and_counted(tmp_path: Path):
    write_directory(tmp_path / "a.zip", [f"{number}.xyz".encode() for number in range(MOST_STRAYS + 7)])
    _, problems = members_in(tmp_path / "a.zip", IMAGE_SUFFIXES)
    assert problems[MOST_STRAYS] == ("a.zip", "holds 7 more files that do not belong there")
    assert problems[MOST_STRAYS + 1].what.startswith("holds no file with the suffix")


def test_more_members_than_are_read_are_refused_before_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "MOST_ENTRIES", 1000)
    write_directory(tmp_path / "many.zip", [f"{number}.png".encode() for number in range(1001)])
    tracemalloc.start()
    assert zip_directory(tmp_path / "many.zip", "many.zip") == (
        [],
        [("many.zip", "has 1,001 members, more than 1,000")],
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000
    write_directory(tmp_path / "many.zip", [f"{number}.png".encode() for number in range(1000)])
    assert len(zip_directory(tmp_path / "many.zip", "many.zip")[0]) == 1000


def test_a_directory_of_an_absurd_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "LARGEST_DIRECTORY", 100)
    write_directory(tmp_path / "a.zip", [b"1.png", b"2.png"])
    assert zip_directory(tmp_path / "a.zip", "a.zip")[1] == [("a.zip", "has a directory of 102 bytes, more than 100")]


@pytest.mark.parametrize("size", [0, 5, 2**20, 2**40, 2**63])
def test_a_last_record_that_lies_is_no_zip(tmp_path: Path, size: int):
    write_directory(tmp_path / "a.zip", [b"1.png", b"2.png"])
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.rfind(b"PK\6\6")
    data[at + 40 : at + 48] = size.to_bytes(8, "little")
    (tmp_path / "a.zip").write_bytes(data)
    members, problems = zip_directory(tmp_path / "a.zip", "a.zip")
    assert members == []
    assert len(problems) == 1


@pytest.mark.parametrize("name", ["a\x1b[31m.png", "a\n.png", "a\u202egnp.exe.png"])
def test_control_characters_in_names_are_refused(tmp_path: Path, name: str):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"")
    assert zip_directory(tmp_path / "a.zip", "a.zip")[1] == [(f"a.zip: {name!r}", "has control characters in its name")]


def test_a_name_that_is_not_the_text_that_it_claims_to_be(tmp_path: Path):
    write_directory(tmp_path / "a.zip", [b"\xff.png", b"2.png"])
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.find(b"PK\1\2") + 9] = 8  # the flag that says UTF-8
    (tmp_path / "a.zip").write_bytes(data)
    fault = "has a member whose name is not UTF-8, although the zip says so"
    assert zip_directory(tmp_path / "a.zip", "a.zip") == ([], [("a.zip", fault)])


@pytest.mark.parametrize("name", [b"", b"\0.png"])
def test_a_member_without_a_name_is_refused(tmp_path: Path, name: bytes):
    write_directory(tmp_path / "a.zip", [name, b"2.png"])
    members, problems = zip_directory(tmp_path / "a.zip", "a.zip")
    assert [member.filename for member in members] == ["", "2.png"]
    assert (f"a.zip: {name.decode()!r}", "has no name") in problems
