"""Read and process many files, in zips or not, in several threads, in order and with bounded memory."""

import lzma
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_members(
    input_zip: Path, members: Sequence[str], function: Callable[[bytes], Result], threads: int
) -> Iterator[Result | ValueError]:
    """Apply a function to the bytes of members of a zip, in parallel.

    Args:
        input_zip: the zip.
        members: the names of the members to read.
        function: processes a member's bytes; it may refuse them with a ValueError.
        threads: number of members that are processed at the same time.

    Yields:
        For each member, in order, the function's result or a ValueError that describes the problem. Exceptions other
        than MemoryError affect only their member; the others are still processed.
    """
    with _ZipReader(input_zip) as reader:
        yield from _map(reader.read, members, function, threads)


def map_places(
    places: Sequence[tuple[Path, str | None]], function: Callable[[bytes], Result], threads: int
) -> Iterator[Result | ValueError]:
    """Like ``map_members`` for files and members of several zips: a place is a path, and a member's name or None."""
    with ExitStack() as stack:
        readers = {
            path: stack.enter_context(_ZipReader(path))
            for path in dict.fromkeys(path for path, member in places if member is not None)
        }

        def read(place: tuple[Path, str | None]) -> bytes:
            path, member = place
            return _read_file(path) if member is None else readers[path].read(member)

        yield from _map(read, places, function, threads)


def _map(
    read: Callable[[Item], bytes], items: Sequence[Item], function: Callable[[bytes], Result], threads: int
) -> Iterator[Result | ValueError]:
    def load(item: Item) -> Result | ValueError:
        try:
            return function(read(item))
        except ValueError as error:
            return error
        except MemoryError:
            raise
        except Exception as error:
            return ValueError(f"cannot be used: {type(error).__name__} {' '.join(str(error).split())}".strip())

    with ThreadPoolExecutor(threads) as pool:
        yield from _in_order(pool, load, items, 8 * threads)


def _read_file(path: Path) -> bytes:
    if not path.is_file() and path.exists():
        raise ValueError("is not a regular file")  # reading a pipe could block forever
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Sequence[Item], ahead: int
) -> Iterator[Result]:
    """Like ``pool.map``, but with at most ``ahead`` pending results, so that memory does not grow with the dataset."""
    pending = [pool.submit(function, item) for item in items[:ahead]]
    for item in [*items[ahead:], *[None] * min(ahead, len(items))]:
        yield pending.pop(0).result()
        if item is not None:
            pending.append(pool.submit(function, item))


class _ZipReader:
    """Members of one open zip, read from several threads."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def read(self, name: str) -> bytes:
        """The contents of a member.

        Raises:
            ValueError: it cannot be unpacked, or its checksum is wrong.
        """
        try:
            with self._lock, self._zip.open(name) as stream:
                size_in_directory = self._zip.getinfo(name).file_size
                return stream.read(size_in_directory)  # and no more, even if the member would unpack to more
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, ValueError, OSError, EOFError) as error:
            raise ValueError("is damaged") from error
