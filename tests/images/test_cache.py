"""What is written beside the pixels, and what is noticed when it or they have changed."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cclnet.images.cache import DIGEST_BLOCK, ImageCache, build_cache, digest_of_blocks, read_copies, record_file
from cclnet.images.copies import Copies
from cclnet.system.errors import DataError
from cclnet.system.files import read_json, write_json
from tests.images.builders import blobs, encoded, zip_of

NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the cache of four pictures of one size, of which two are one file and one is mirrored."""
    pictures = {name: encoded(blobs(seed)) for seed, name in enumerate(NAMES[:2])}
    pictures |= {"c": pictures["a"], "d": encoded(blobs(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT))}
    members = zip_of(tmp_path / "in.zip", {f"{name}.png": data for name, data in pictures.items()})
    build_cache(tmp_path / "in.zip", members, 24, tmp_path / "a.npy", tmp_path / "a.csv", 2)
    return tmp_path


def opened(folder: Path) -> ImageCache:
    return ImageCache.open(folder / "a.npy", folder / "a.csv")


def problems(folder: Path) -> list[tuple[str, str]]:
    """What the cache is refused for."""
    with pytest.raises(
        DataError, match="the resized images are not what the resize stage wrote: run it again"
    ) as caught:
        opened(folder)
    return [(Path(where).name, what) for where, what in caught.value.problems]


def test_what_was_written_is_opened_and_its_copies_are_known(folder: Path):
    assert opened(folder).images == NAMES
    assert read_copies(folder / "a.npy") == Copies([["a", "c"]], [["b", "d"]])
    record = read_json(folder / "a.json")
    assert record["index"] == hashlib.sha256((folder / "a.csv").read_bytes()).hexdigest()
    assert record["pixels"] == digest_of_blocks(folder / "a.npy")


def rewrite_rows(change: Callable[[list[list[str]]], None]) -> Callable[[Path], None]:
    """Change the rows of the index, each a list of its values."""

    def rewrite(folder: Path) -> None:
        rows = [line.split(",") for line in (folder / "a.csv").read_text().splitlines()]
        change(rows)
        (folder / "a.csv").write_text("".join(f"{','.join(row)}\n" for row in rows))

    return rewrite


def swap_offsets(rows: list[list[str]]) -> None:
    rows[1][3], rows[2][3] = rows[2][3], rows[1][3]


def swap_names(rows: list[list[str]]) -> None:
    rows[1][4], rows[2][4] = rows[2][4], rows[1][4]


def repeat_image(rows: list[list[str]]) -> None:
    rows[2][0] = "a"


def spoil_digest(rows: list[list[str]]) -> None:
    rows[4][4] = "no digest"


def shrink_image(rows: list[list[str]]) -> None:
    rows[1][1] = "0"


def write_text(rows: list[list[str]]) -> None:
    rows[1][2] = "wide"


def drop_column(rows: list[list[str]]) -> None:
    for row in rows:
        row.pop(1)


def write_array(array: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / "a.npy", array)


def flip_bit(folder: Path) -> None:
    data = bytearray((folder / "a.npy").read_bytes())
    data[-1] ^= 1
    (folder / "a.npy").write_bytes(data)


def cut(folder: Path) -> None:
    os.truncate(folder / "a.npy", 1000)


def zero(folder: Path) -> None:
    pixels = np.load(folder / "a.npy")
    np.save(folder / "a.npy", np.zeros_like(pixels))


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, contents: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(contents)

    return change


def spoil_record(folder: Path) -> None:
    record = read_json(folder / "a.json")
    write_json(folder / "a.json", record | {"alike": [["b"]]})


SIZE = 4 * 32 * 24 * 3
FAULTS: dict[str, tuple[Callable[[Path], None], list[tuple[str, str]]]] = {
    "other pixels": (flip_bit, [("a.npy", "holds other pixels than those that were written")]),
    "no pixels": (zero, [("a.npy", "holds other pixels than those that were written")]),
    "cut": (cut, [("a.npy", "is no array of NumPy, or not the whole of one")]),
    "too few pixels": (
        write_array(np.zeros(9, np.uint8)),
        [("a.npy", f"holds 9 bytes of pixels instead of {SIZE:,}")],
    ),
    "of another type": (write_array(np.zeros(SIZE, np.float32)), [("a.npy", "is no flat array of bytes")]),
    "of another shape": (write_array(np.zeros((SIZE, 1), np.uint8)), [("a.npy", "is no flat array of bytes")]),
    "objects": (
        write_array(np.array([{}], dtype=object)),
        [("a.npy", "is no array of NumPy, or not the whole of one")],
    ),
    "no array": (write("a.npy", b"no array"), [("a.npy", "is no array of NumPy, or not the whole of one")]),
    "an empty array": (write("a.npy", b""), [("a.npy", "is no array of NumPy, or not the whole of one")]),
    "no file": (remove("a.npy"), [("a.npy", "cannot be read: No such file or directory")]),
    "offsets swapped": (
        rewrite_rows(swap_offsets),
        [("a.csv", "has images at another offset than after the one before it: 'a', 'b'")],
    ),
    "rows of equal form swapped": (rewrite_rows(swap_names), [("a.csv", "has changed since it was written")]),
    "an image twice": (rewrite_rows(repeat_image), [("a.csv", "has images twice, or out of order: 'a'")]),
    "no digest": (rewrite_rows(spoil_digest), [("a.csv", "has images with no sha256: 'd'")]),
    "no height": (
        rewrite_rows(shrink_image),
        [
            ("a.csv", "has images of an impossible height or width: 'a'"),
            ("a.csv", "has images at another offset than after the one before it: 'b', 'c', 'd'"),
            ("a.npy", f"holds {SIZE:,} bytes of pixels instead of {SIZE * 3 // 4:,}"),
        ],
    ),
    "a text as width": (
        rewrite_rows(write_text),
        [("a.csv", "has a height, width or offset that is no whole number")],
    ),
    "no column": (
        rewrite_rows(drop_column),
        [("a.csv", "is no table of image, height, width, offset, sha256 with a row for each image")],
    ),
    "no table": (
        write("a.csv", b"\xff\xfe"),
        [("a.csv", "is no CSV table")],
    ),
    "no index": (remove("a.csv"), [("a.csv", "cannot be read: No such file or directory")]),
    "no record": (remove("a.json"), [("a.json", "cannot be read: No such file or directory")]),
    "a record of nothing": (write("a.json", b"[]"), [("a.json", "is not the record of resized images")]),
    "a record that is no JSON": (write("a.json", b"{"), [("a.json", "is no JSON")]),
    "a record of other groups": (spoil_record, [("a.json", "is not the record of resized images")]),
}


@pytest.mark.parametrize(("spoil", "expected"), FAULTS.values(), ids=FAULTS)
def test_what_has_changed_is_named(folder: Path, spoil: Callable[[Path], None], expected: list[tuple[str, str]]):
    spoil(folder)
    assert problems(folder) == expected


def test_all_that_has_changed_comes_at_once(folder: Path):
    remove("a.json")(folder)
    cut(folder)
    rewrite_rows(repeat_image)(folder)
    assert [where for where, _ in problems(folder)] == ["a.json", "a.csv", "a.npy"]


def test_copies_of_a_spoilt_record_are_not_believed(folder: Path):
    spoil_record(folder)
    with pytest.raises(DataError, match="run it again"):
        read_copies(folder / "a.npy")


def test_the_digest_is_of_blocks_whatever_the_threads(tmp_path: Path):
    data = np.random.default_rng(0).bytes(2 * DIGEST_BLOCK + 5)
    (tmp_path / "file").write_bytes(data)
    blocks = [data[start : start + DIGEST_BLOCK] for start in range(0, len(data), DIGEST_BLOCK)]
    expected = hashlib.sha256(b"".join(hashlib.sha256(block).digest() for block in blocks)).hexdigest()
    assert {digest_of_blocks(tmp_path / "file", threads) for threads in (1, 2, 5)} == {expected}
    assert record_file(Path("data/images.npy")) == Path("data/images.json")


def test_the_digest_costs_less_than_a_second_of_a_core_for_each_gigabyte(tmp_path: Path):
    """Where the processor has instructions for sha256; three seconds where it has not."""
    with (tmp_path / "file").open("wb") as file:
        file.truncate(2**28)
    seconds = []
    for _ in range(3):
        begun = time.process_time()
        digest_of_blocks(tmp_path / "file")
        seconds.append(time.process_time() - begun)
    assert min(seconds) < 3 / 4
