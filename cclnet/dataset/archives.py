"""Zips: checks of untrusted ones before anything is unpacked, and writing of reproducible ones."""

import lzma
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from cclnet.system.errors import Problem
from cclnet.system.names import UNPRINTABLE
from cclnet.system.progress import Report
from cclnet.system.writing import whole_file

SUPPORTED_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
ENCRYPTED = 1
LARGEST_MEMBER = 2**28
LARGEST_RATIO = 200
"""Largest compression ratio of a member; a real table of one-hot rows reaches about 15."""
MOST_ENTRIES = 2_000_000
"""Largest number of entries in a zip's directory; Python needs about 600 bytes and 8 µs for each."""
LARGEST_DIRECTORY = 2**29
LOCAL_HEADER = 30
"""Number of bytes before a zip member's name and contents."""
DATE = (2018, 1, 1, 0, 0, 0)
"""Date of every member of a zip that the project writes."""

_END, _END_64, _LOCATOR_64, _ENTRY = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2"
_END_SIZE, _LOCATOR_64_SIZE, _LONGEST_COMMENT = 22, 20, 2**16


def zip_directory(path: Path, name: str) -> tuple[list[zipfile.ZipInfo], list[Problem]]:
    """Read a zip's directory and find everything that makes it unsafe or impossible to unpack; nothing is unpacked.

    Args:
        path: the zip.
        name: its name in the problems.

    Returns:
        The members that are files, and the problems.
    """
    try:
        with path.open("rb") as file:
            if too_many := _too_many_entries(file):
                return [], [Problem(name, too_many)]
            with zipfile.ZipFile(file) as archive:
                entries, directory = archive.infolist(), archive.start_dir
    except UnicodeDecodeError:
        return [], [Problem(name, "has a member whose name is not UTF-8, although the zip says so")]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, EOFError, struct.error):
        return [], [Problem(name, "is no zip, or not the whole of one")]
    members = [entry for entry in entries if not (entry.filename and entry.is_dir())]  # it would fail without a name
    if not members:
        return [], [Problem(name, "holds no files")]
    faults = [(entry, fault) for entry in entries for fault in entry_faults(entry)]
    counts = Counter(entry.filename for entry in entries)
    faults += [(entry, "is there more than once") for entry in members if counts[entry.filename] > 1]
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        start, end_before = entry.header_offset, end
        end = max(end, start + LOCAL_HEADER + len(entry.orig_filename) + entry.compress_size)
        if start < end_before or end > directory:
            faults.append((entry, "overlaps another part of the zip"))
    return members, [Problem(f"{name}: {entry.orig_filename!r}", fault) for entry, fault in faults]


def _too_many_entries(file: BinaryIO) -> str:
    """Why a zip's directory is too large to read; empty if it can be read, or if the file is not a zip."""
    start, size = _directory_extent(file)
    if size > LARGEST_DIRECTORY:
        return f"has a directory of {size:,} bytes, more than {LARGEST_DIRECTORY:,}"
    file.seek(start)
    entries = file.read(size).count(_ENTRY)
    return f"has {entries:,} members, more than {MOST_ENTRIES:,}" if entries > MOST_ENTRIES else ""


def _directory_extent(file: BinaryIO) -> tuple[int, int]:
    """The start of a zip's directory and its length in bytes, from the end record."""
    length = file.seek(0, 2)
    file.seek(max(0, length - _END_SIZE - _LONGEST_COMMENT - _LOCATOR_64_SIZE))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or at + _END_SIZE > len(tail):
        return 0, 0
    size = int.from_bytes(tail[at + 12 : at + 16], "little")
    end = length - len(tail) + at
    locator = tail[max(0, at - _LOCATOR_64_SIZE) : at]
    if locator.startswith(_LOCATOR_64) and len(locator) == _LOCATOR_64_SIZE:
        end = int.from_bytes(locator[8:16], "little")
        if end >= length:
            return 0, 0
        file.seek(end)
        record = file.read(56)
        size = int.from_bytes(record[40:48], "little") if record.startswith(_END_64) else 0
    return max(0, end - size), size


def entry_faults(entry: zipfile.ZipInfo) -> Iterator[str]:
    """The problems of a single entry of a zip's directory."""
    path = entry.orig_filename
    if not entry.filename:
        yield "has no name"
    if path.startswith("/") or ".." in path.split("/") or any(character in path for character in "\\:\0"):
        yield "is a path that may lead out of a folder"
    elif UNPRINTABLE.search(path):
        yield "has control characters in its name"
    if entry.flag_bits & ENCRYPTED:
        yield "is encrypted"
    if entry.compress_type not in SUPPORTED_COMPRESSION:
        yield f"is compressed by an unknown method ({entry.compress_type})"
    if entry.file_size > LARGEST_MEMBER or entry.file_size > LARGEST_RATIO * max(entry.compress_size, 1):
        yield f"would unpack {entry.compress_size:,} bytes to {entry.file_size:,}"


def damaged_members(path: Path, name: str, report: Report) -> list[Problem]:
    """The members of a safe zip that cannot be unpacked or have a wrong checksum."""
    problems: list[Problem] = []
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for number, member in enumerate(members, start=1):
            try:
                with archive.open(member) as stream:
                    while stream.read(2**20):
                        pass
            except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, ValueError, OSError, EOFError):
                problems.append(Problem(f"{name}: {member.filename!r}", "is damaged"))
            report(f"checking {name}", number, len(members))
    return problems


def write_zip(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Store files (name, contents) in a folder with the zip's name, so that equal files give equal zips.

    The files are not compressed, because the result would depend on the version of zlib.

    Raises:
        CCLNetError: the zip cannot be written.
    """
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, data in files:
            member = zipfile.ZipInfo(f"{path.stem}/{name}", DATE)
            member.external_attr = 0o644 << 16
            archive.writestr(member, data)
