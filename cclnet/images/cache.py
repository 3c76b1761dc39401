"""All resized images in one memory-mapped array.

The array is flat: the images are stored one after the other as height × width × 3 bytes, so sizes and aspect ratios
may differ. A table beside it (image, height, width, offset, sha256 of the original file) contains the location of each
image. A record (JSON) contains the copies (images with the same content) and digests of array and table, with which a
later change of either is detected.
"""

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cclnet.images.copies import Copies, describe, find_copies
from cclnet.images.decoding import MAX_PIXELS, Pixels, decode_resized
from cclnet.images.reading import map_members
from cclnet.system.errors import DataError, Problem
from cclnet.system.files import read_csv, read_json, write_csv, write_json
from cclnet.system.progress import Report, silent
from cclnet.system.writing import whole_file

DIGEST_BLOCK = 2**24
"""Number of bytes that one thread hashes at a time."""
_COLUMNS = ("image", "height", "width", "offset", "sha256")
_NAMED = 5
"""Number of images that are named in a problem that affects many."""


def build_cache(
    input_zip: Path,
    members: Mapping[str, str],
    short_side: int,
    pixels_file: Path,
    index_file: Path,
    threads: int,
    report: Report = silent,
) -> Copies:
    """Decode and resize every image once, directly from the zip, and write pixels, table and record.

    Args:
        input_zip: the zip of the images.
        members: image id → the name of its member of the zip.
        short_side: length of the shorter side in pixels.
        pixels_file: path of the array (npy).
        index_file: path of the table (csv).
        threads: number of images decoded at the same time; Pillow releases the interpreter's lock.
        report: called with the number of images resized.

    Returns:
        The copies among the images.

    Raises:
        DataError: images cannot be decoded; all of them are named, and no file is left behind.
    """
    problems: list[Problem] = []
    rows: list[tuple[str, int, int, int, str]] = []
    descriptions: dict[str, bytes] = {}

    def shrink(data: bytes) -> tuple[Pixels, str, bytes]:
        resized = decode_resized(data, short_side)
        return resized.pixels, hashlib.sha256(data).hexdigest(), describe(resized.image)

    names = sorted(members)
    offset = 0
    with whole_file(pixels_file) as pixels:
        pixels.write(_header(0))
        results = map_members(input_zip, [members[name] for name in names], shrink, threads)
        for done, (name, loaded) in enumerate(zip(names, results, strict=True), start=1):
            report("images resized", done, len(names))
            if isinstance(loaded, ValueError):
                problems.append(Problem(f"{name} in {input_zip.name}", str(loaded)))
                continue
            resized, digest, descriptions[name] = loaded
            pixels.write(resized.data)
            rows.append((name, resized.shape[0], resized.shape[1], offset, digest))
            offset += resized.size
        pixels.seek(0)
        pixels.write(_header(offset))
        if problems:
            raise DataError(f"{len(problems)} of {len(names)} images cannot be used; replace or remove them:", problems)
    write_csv(index_file, pd.DataFrame(rows, columns=list(_COLUMNS)))
    copies = find_copies({row[0]: row[4] for row in rows}, descriptions)
    record = {"pixels": digest_of_blocks(pixels_file), "index": _sha256(index_file)}
    write_json(record_file(pixels_file), record | {"identical": copies.identical, "alike": copies.alike})
    return copies


def record_file(pixels_file: Path) -> Path:
    """The path of the record of an array of pixels: beside it, with the same stem."""
    return pixels_file.with_suffix(".json")


def digest_of_blocks(path: Path, threads: int | None = None) -> str:
    """The sha256 of the concatenated sha256 digests of a file's blocks.

    The blocks are hashed in parallel, about a gigabyte per second. The result does not depend on the number of threads
    (default: one per core).
    """

    def block(offset: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return hashlib.sha256(file.read(DIGEST_BLOCK)).digest()

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        blocks = pool.map(block, range(0, path.stat().st_size, DIGEST_BLOCK))
        return hashlib.sha256(b"".join(blocks)).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_copies(pixels_file: Path) -> Copies:
    """Read the copies that ``build_cache`` found.

    Raises:
        DataError: the record is missing or damaged.
    """
    record, problems = _record_in(record_file(pixels_file))
    _require_none(problems)
    return Copies(record["identical"], record["alike"])


def _header(length: int) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (length,)})
    return header.getvalue()


@dataclass(frozen=True)
class ImageCache:
    """The resized images, read from disk on access.

    Attributes:
        pixels: the flat array of all images' bytes.
        images: the image ids, sorted.
        heights, widths, offsets: of each image, in pixels, pixels and bytes.
    """

    pixels: Pixels
    images: list[str]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def open(cls, pixels_file: Path, index_file: Path) -> Self:
        """Open the files that ``build_cache`` wrote, after checking every byte.

        Raises:
            DataError: the files are missing or have changed; it lists all problems.
        """
        record, problems = _record_in(record_file(pixels_file))
        index, faults = _index_in(index_file)
        pixels, more = _pixels_in(pixels_file)
        problems += faults + more
        if index is not None and pixels is not None and (size := _bytes_of(index)) != len(pixels):
            problems.append(Problem(str(pixels_file), f"holds {len(pixels):,} bytes of pixels instead of {size:,}"))
        if not problems and _sha256(index_file) != record["index"]:
            problems.append(Problem(str(index_file), "has changed since it was written"))
        if not problems and digest_of_blocks(pixels_file) != record["pixels"]:
            problems.append(Problem(str(pixels_file), "holds other pixels than those that were written"))
        _require_none(problems)
        assert index is not None and pixels is not None  # noqa: S101 - else there are problems
        columns = (index[name].to_numpy(np.int64) for name in ("height", "width", "offset"))
        return cls(pixels, index["image"].tolist(), *columns)

    @property
    def short_side(self) -> int:
        """Length of the shorter side in pixels, the same for all images."""
        return int(min(self.heights.min(), self.widths.min()))

    def __getitem__(self, row: int) -> Pixels:
        height, width, offset = self.heights[row], self.widths[row], self.offsets[row]
        return self.pixels[offset : offset + height * width * 3].reshape(height, width, 3)

    def rows(self, images: Sequence[str]) -> NDArray[np.int64]:
        """The rows of the given images.

        Raises:
            DataError: some of them are not in the cache.
        """
        row_of = {image: row for row, image in enumerate(self.images)}
        missing = [Problem(image, "not in the resized images") for image in images if image not in row_of]
        if missing:
            raise DataError("the split names images that were not resized; run the resize stage again:", missing)
        return np.array([row_of[image] for image in images], dtype=np.int64)

    def crops(self, rows: NDArray[np.int64], size: int, tops: NDArray[np.int64], lefts: NDArray[np.int64]) -> Pixels:
        """Square crops, n × size × size × 3.

        Args:
            rows: the images.
            size: side length in pixels.
            tops, lefts: the first row and column of each crop, in pixels.
        """
        batch = np.empty((len(rows), size, size, 3), dtype=np.uint8)
        for crop, row, top, left in zip(batch, rows, tops, lefts, strict=True):
            crop[:] = self[row][top : top + size, left : left + size]
        return batch


def _record_in(path: Path) -> tuple[dict[str, Any], list[Problem]]:
    """The record beside an array of pixels, and its problems."""
    try:
        record = read_json(path)
    except OSError as error:
        return {}, [Problem(str(path), f"cannot be read: {error.strerror}")]
    except (ValueError, RecursionError):
        return {}, [Problem(str(path), "is no JSON")]
    digests = ("pixels", "index")
    groups = ("identical", "alike")
    usable = (
        isinstance(record, dict)
        and set(record) == {*digests, *groups}
        and all(isinstance(record[name], str) for name in digests)
        and all(_are_groups(record[name]) for name in groups)
    )
    return (record, []) if usable else ({}, [Problem(str(path), "is not the record of resized images")])


def _are_groups(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(group, list) and len(group) > 1 and all(isinstance(image, str) for image in group) for group in value
    )


def _index_in(path: Path) -> tuple[pd.DataFrame | None, list[Problem]]:
    """The table beside an array of pixels (None if it is unusable), and its problems."""
    try:
        index = read_csv(path, ["image", "sha256"])
    except OSError as error:
        return None, [Problem(str(path), f"cannot be read: {error.strerror}")]
    except ValueError:
        return None, [Problem(str(path), "is no CSV table")]
    if list(index.columns) != list(_COLUMNS) or not len(index):
        return None, [Problem(str(path), f"is no table of {', '.join(_COLUMNS)} with a row for each image")]
    numbers = [index[name] for name in ("height", "width", "offset")]
    if not all(pd.api.types.is_integer_dtype(column) for column in numbers):
        return None, [Problem(str(path), "has a height, width or offset that is no whole number")]
    images = index["image"].tolist()
    sides = index[["height", "width"]]
    after = np.cumsum(_sizes(index)) - _sizes(index)
    faults = {
        "of an impossible height or width": ((sides < 1) | (sides > MAX_PIXELS)).any(axis=1),
        "at another offset than after the one before it": index["offset"] != after,
        "with no sha256": ~index["sha256"].str.fullmatch("[0-9a-f]{64}"),
        "twice, or out of order": [False, *(first >= second for first, second in pairwise(images))],
    }
    problems = []
    for fault, rows in faults.items():
        if named := index["image"][np.asarray(rows, dtype=bool)].tolist():
            shown = ", ".join(map(repr, named[:_NAMED])) + (" …" if len(named) > _NAMED else "")
            problems.append(Problem(str(path), f"has images {fault}: {shown}"))
    return index, problems


def _sizes(index: pd.DataFrame) -> NDArray[np.int64]:
    """Number of bytes of each image's pixels."""
    return index["height"].to_numpy(np.int64) * index["width"].to_numpy(np.int64) * 3


def _bytes_of(index: pd.DataFrame) -> int:
    return int(_sizes(index).sum())


def _pixels_in(path: Path) -> tuple[Pixels | None, list[Problem]]:
    """The memory-mapped array of all pixels (None if there is none), and its problems."""
    try:
        mapped = np.load(path, mmap_mode="r")
    except OSError as error:
        return None, [Problem(str(path), f"cannot be read: {error.strerror or error}")]
    except MemoryError:
        raise
    except Exception:  # NumPy reads the header as Python's own syntax, and raises what that does
        return None, [Problem(str(path), "is no array of NumPy, or not the whole of one")]
    if not isinstance(mapped, np.ndarray) or mapped.dtype != np.uint8 or mapped.ndim != 1:
        return None, [Problem(str(path), "is no flat array of bytes")]
    return np.asarray(mapped), []  # a plain array of the same bytes, which is faster to slice


def _require_none(problems: Sequence[Problem]) -> None:
    if problems:
        raise DataError("the resized images are not what the resize stage wrote: run it again", problems)
