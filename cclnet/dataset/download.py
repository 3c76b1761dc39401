"""Download the dataset's files, complete and verified, in spite of cut connections, kills and restarts.

Received data are kept in a folder that outlives the run: an interrupted download resumes, and a complete file is not
fetched again as long as it matches its recorded sha256. No file gets its final name before its contents are verified,
and either all files are moved to the destination or none.

A server is not trusted: it may send nothing, one byte per second, endless data, or invalid headers. Each of these cases
ends with a one-line error message.
"""

import hashlib
import os
import queue
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import requests

from cclnet.dataset.archives import damaged_members, zip_directory
from cclnet.dataset.isic import RemoteFile
from cclnet.system.errors import CCLNetError, DataError, Problem
from cclnet.system.files import write_bytes
from cclnet.system.locks import only_process
from cclnet.system.progress import Report, silent
from cclnet.system.workspace import user_path
from cclnet.system.writing import flush_folder, whole_file

OFFICIAL = "official"
CHUNK = 2**16
"""Number of bytes read and written at a time. A kill or a cut connection loses at most this, plus the buffers of the
sockets. A connection that is cut repeatedly makes progress only by whole chunks, so chunks are small."""
CHUNKS_BETWEEN_LOOKS = 256
"""Number of chunks between checks of the free disk space, if a server does not announce the length."""
RESERVE = 2**28
"""Number of bytes that must stay free on the disk in this case."""
LONGEST_NUMBER = 18
"""Largest number of digits of a length that is accepted."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Provenance:
    """A file and its origin: ``source`` is an address without credentials, or the folder as the user wrote it."""

    name: str
    source: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Patience:
    """When to give up on a server.

    Args:
        connect: seconds to wait for a connection.
        stall: seconds to wait for the next byte; the next ``CHUNK`` bytes may take ``connect`` + 2 × ``stall``.
        attempts: number of consecutive attempts that may receive nothing new.
        pause: seconds before the second attempt, doubled before each further one (at most a minute).
    """

    connect: float = 15.0
    stall: float = 60.0
    attempts: int = 6
    pause: float = 1.0


class AttemptError(Exception):
    """An attempt failed for a reason that may be temporary."""


def fetch(
    source: str,
    files: Sequence[RemoteFile],
    destination: Path,
    partial_folder: Path,
    report: Report = silent,
    patience: Patience = Patience(),
) -> list[Provenance]:
    """Put the files, verified, into ``destination``.

    Args:
        source: ``official``, the base URL of another server, or a local folder that contains the files.
        files: the files to fetch; their known sizes and hashes are required only of the publisher's own copies.
        destination: the target folder; created if necessary, and unchanged unless all files are valid.
        partial_folder: keeps received data, in one folder per address.
        report: called with the number of bytes received and checked.
        patience: when to give up on a server.

    Returns:
        The provenance of each file.

    Raises:
        DataError: a file is missing or invalid.
        CCLNetError: a server cannot be reached, or the disk is too small.
    """
    local = source != OFFICIAL and not source.lower().startswith(("http://", "https://"))
    try:
        if local:
            found = find_in_folder(source, files, report)
        else:
            found = [download(file, address_of(file, source), partial_folder, report, patience) for file in files]
        destination.mkdir(parents=True, exist_ok=True)
        for path, provenance in found:
            (copy if local else link)(path, destination / provenance.name, provenance)
        flush_folder(destination)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise CCLNetError(f"{where}{error.strerror or error}; fix that and run it again") from None
    return [provenance for _, provenance in found]


@contextmanager
def incoming(destination: Path) -> Iterator[Path]:
    """Yield a folder whose files are moved to ``destination`` when the block ends, or removed if it fails.

    Other files in ``destination`` are kept.

    Raises:
        CCLNetError: a file cannot be written.
    """
    folder = destination / ".incoming"
    try:
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed run
        folder.mkdir(parents=True)
        yield folder
        for path in sorted(folder.iterdir()):
            path.replace(destination / path.name)
        flush_folder(destination)
    except OSError as error:
        where = error.filename or destination
        raise CCLNetError(f"{where}: {error.strerror or error}; fix that and run it again") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            destination.rmdir()  # if it is empty


def address_of(file: RemoteFile, source: str) -> str:
    """The file's URL at a source; a query, such as an access token, is kept at the end."""
    if source == OFFICIAL:
        return file.address
    try:
        parts = urlsplit(source)
    except ValueError as error:
        raise DataError(f"source is no usable address ({error}): check it") from None
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(file.name)}", fragment=""))


def without_credentials(address: str) -> str:
    """The address without user, password and query."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def find_in_folder(source: str, files: Sequence[RemoteFile], report: Report) -> list[tuple[Path, Provenance]]:
    """Verify files in a local folder in place.

    Raises:
        DataError: the folder or files in it are missing or damaged; all of them are named.
    """
    folder = user_path(source)
    if "://" in source or not folder.is_dir():
        raise DataError(f"source {source!r} is no folder: write {OFFICIAL!r}, an http(s) address or a folder's name")
    problems: list[Problem] = []
    for file in files:
        path = folder / file.name
        problems += content_problems(path, file.name, report) if path.is_file() else [Problem(file.name, "is missing")]
    if problems:
        raise DataError(f"source {source!r} cannot be used: put the right files there", problems)
    return [(folder / file.name, provenance_of(folder / file.name, source)) for file in files]


def provenance_of(path: Path, source: str) -> Provenance:
    """The provenance of a file, with its size and hash."""
    return Provenance(path.name, source, path.stat().st_size, digest_of(path, "sha256"))


def download(
    file: RemoteFile, address: str, partial_folder: Path, report: Report, patience: Patience
) -> tuple[Path, Provenance]:
    """Fetch one file, or its missing part, and verify it.

    Returns:
        The verified file, in the folder of ``partial_folder`` for this address, and its provenance.

    Raises:
        DataError: the address serves something else.
        CCLNetError: the address cannot be reached, or another process is fetching from it.
    """
    folder = partial_folder / hashlib.sha256(address.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    kept, record = folder / file.name, folder / f"{file.name}.sha256"
    with only_process(folder / "lock", f"is fetching {file.name}"):
        if not (kept.is_file() and _text(record) == digest_of(kept, "sha256")):
            kept.unlink(missing_ok=True)
            part = fetch_verified(file, address, Part(folder / f"{file.name}.part"), report, patience)
            write_bytes(record, digest_of(part, "sha256").encode())
            part.replace(kept)
            flush_folder(folder)
        return kept, Provenance(file.name, without_credentials(address), kept.stat().st_size, _text(record))


def _text(path: Path) -> str:
    """The contents of a small file of this project; empty if it is missing or damaged."""
    try:
        return path.read_bytes().decode("ascii") if path.is_file() else ""
    except UnicodeDecodeError:
        return ""


@dataclass(frozen=True)
class Part:
    """A partially received file, and beside it the validator (ETag or date) of its version."""

    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def validator(self) -> str:
        """Empty if the server sent none; then the download cannot be resumed."""
        return _text(self.path.with_suffix(".validator"))

    def start_over(self, validator: str = "") -> None:
        self.path.unlink(missing_ok=True)
        write_bytes(self.path.with_suffix(".validator"), validator.encode())


def fetch_verified(file: RemoteFile, address: str, part: Part, report: Report, patience: Patience) -> Path:
    """Repeat attempts until the part is complete and its contents are verified.

    An attempt that makes progress resets the count of failed attempts. If a file assembled from several replies is
    invalid, it is fetched once more in one piece.
    """
    public = without_credentials(address)
    official = address == file.address
    furthest, vain, reason = part.size, 0, ""
    while vain < patience.attempts:
        if vain:
            longest = min(patience.pause * 2 ** (vain - 1), 60)
            time.sleep(random.SystemRandom().uniform(longest / 2, longest))
        pieced_together = part.size > 0
        try:
            receive(file, address, part, report, patience)
            problems = content_problems(part.path, file.name, report, file if official else None)
            if not problems:
                return part.path
            part.start_over()
            if not pieced_together:
                raise DataError(f"{public} is not the file that it should be: check the source", problems)
            reason = problems[0].what
        except AttemptError as error:
            reason = str(error)
        vain = 0 if part.size > furthest else vain + 1
        furthest = max(furthest, part.size)
    raise CCLNetError(
        f"{public} cannot be fetched: {reason} ({patience.attempts} attempts). What has arrived is kept: run again to "
        "go on, or put the dataset's files into a folder and name that as the source"
    )


def receive(file: RemoteFile, address: str, part: Part, report: Report, patience: Patience) -> None:
    """Send one request for the missing bytes and append the reply to the part.

    Raises:
        AttemptError: the part is not complete yet, or had to be discarded.
        DataError: the file does not exist, or the server sends another one.
    """
    headers = {"Accept-Encoding": "identity"}
    if part.size and part.validator:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.validator}
    expected_size = file.size if address == file.address else None
    public = without_credentials(address)
    try:
        arriving = _in_time(_conversation(address, headers, patience), patience.connect + 2 * patience.stall)
        with closing(arriving):
            response = next(arriving)
            if not isinstance(response, requests.Response):
                raise AttemptError("no reply came")
            check_status(response, public)
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                check_complete(response, part)
            else:
                chunks = (chunk for chunk in arriving if isinstance(chunk, bytes))
                append(
                    response, chunks, part, public, expected_size, lambda done, total: report(file.name, done, total)
                )
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise AttemptError(root_cause(error)) from None
    except (requests.RequestException, ValueError) as error:  # for example a redirect to an invalid address
        reason = type(error).__name__
        raise DataError(f"{public} cannot be fetched ({reason}): check the source") from None


def _conversation(
    address: str, headers: dict[str, str], patience: Patience
) -> Generator[requests.Response | bytes, None, None]:
    """Yield a server's reply and then its body in chunks."""
    timeout = (patience.connect, patience.stall)
    with requests.get(address, headers=headers, stream=True, timeout=timeout) as response:
        yield response
        yield from response.iter_content(CHUNK)


def _in_time(items: Generator[Item, None, None], seconds: float) -> Generator[Item, None, None]:
    """Yield the items of a generator, which runs in its own thread, with a timeout for each item.

    The timeouts of sockets restart with each byte, also in headers, so a server that sends one byte per second would
    never exceed them.

    Raises:
        AttemptError: an item did not arrive in time.
    """
    arrived: queue.Queue[Callable[[], Item] | None] = queue.Queue(maxsize=1)
    unwanted = threading.Event()

    def hand_over(item: Callable[[], Item] | None) -> None:
        while not unwanted.is_set():
            with suppress(queue.Full):
                arrived.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                hand_over(lambda item=item: item)
                if unwanted.is_set():
                    break
        except Exception as error:
            hand_over(_raiser(error))
        finally:
            items.close()
        hand_over(None)

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            try:
                item = arrived.get(timeout=seconds)
            except queue.Empty:
                raise AttemptError(f"fewer than {CHUNK:,} bytes came in {seconds:g} s") from None
            if item is None:
                return
            yield item()
    finally:
        unwanted.set()


def _raiser(error: Exception) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


def check_status(response: requests.Response, public: str) -> None:
    """Raise AttemptError for a temporary error status, DataError for a permanent one."""
    status = f"{response.status_code} {_printable(response.reason or '')}".strip()
    if response.status_code in (408, 429) or response.status_code >= 500:
        raise AttemptError(f"the server answers {status}")
    if response.status_code not in (200, 206, 416):
        raise DataError(f"{public} answers {status}: check the source")
    if response.headers.get("Content-Type", "").startswith("text/html") and response.status_code != 416:
        raise DataError(f"{public} is a web page instead of the file: check the source, or sign in to the network")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DataError(f"{public} comes encoded, though it was asked for as it is: choose another source")


def _printable(text: str) -> str:
    """Text from a server without line breaks and terminal control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:200]


def check_complete(response: requests.Response, part: Part) -> None:
    """Handle status 416 (nothing follows the part): the part is complete, unless the file has another length."""
    if response.headers.get("Content-Range") != f"bytes */{part.size}":
        part.start_over()
        raise AttemptError("the server has a shorter file than what had arrived")


def append(
    response: requests.Response,
    chunks: Iterator[bytes],
    part: Part,
    public: str,
    expected_size: int | None,
    report: Callable[[int, int], None],
) -> None:
    """Write a reply's body to the part: appended to it, or from the start.

    Raises:
        AttemptError: bytes are missing or do not fit; the part is kept if its contents may be valid.
        DataError: the file has the wrong size.
        CCLNetError: the disk is too small.
    """
    start, total = extent(response, part)
    if None not in (total, expected_size) and total != expected_size:
        raise DataError(f"{public} has {total:,} bytes instead of {expected_size:,}: check the source")
    total = total or expected_size
    if start == 0:
        part.start_over(validator_of(response))
    require_room(part.path.parent, (total or 0) - start)
    done = start
    with part.path.open("ab") as stream:
        for number, chunk in enumerate(chunks):
            if not total and number % CHUNKS_BETWEEN_LOOKS == 0:
                require_room(part.path.parent, RESERVE)
            stream.write(chunk)
            done += len(chunk)
            report(done, total or 0)
            if total and done > total:
                break
        stream.flush()
        os.fsync(stream.fileno())
    if total and done != total:
        raise AttemptError(f"{done:,} of {total:,} bytes arrived")


def extent(response: requests.Response, part: Part) -> tuple[int, int | None]:
    """The offset of a reply's body in the file, and the length of the whole file if the server sends it."""
    if response.status_code == requests.codes.ok:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if re.fullmatch(rf"[0-9]{{1,{LONGEST_NUMBER}}}", length) else None
    content_range = response.headers.get("Content-Range", "")
    number = rf"[0-9]{{1,{LONGEST_NUMBER}}}"
    match = re.fullmatch(rf"bytes ({number})-{number}/({number})", content_range)
    start, total = map(int, match.groups()) if match else (-1, -1)
    if start not in (0, part.size):
        part.start_over()
        shown = _printable(content_range)
        raise AttemptError(f"the server sends the wrong part of the file (Content-Range {shown!r})")
    if start and validator_of(response) not in ("", part.validator):
        part.start_over()
        raise AttemptError("the file changed on the server")
    return start, total


def validator_of(response: requests.Response) -> str:
    """The validator for ``If-Range``: a strong ETag, otherwise the date; a weak ETag does not guarantee equal bytes."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
    return validator if validator.isascii() and validator.isprintable() else ""


def root_cause(error: BaseException) -> str:
    """The message of the innermost exception, without the addresses that the outer ones repeat."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return _printable(str(error)) or type(error).__name__


def content_problems(path: Path, name: str, report: Report, file: RemoteFile | None = None) -> list[Problem]:
    """The problems of a file's contents: general checks, and the size and hash of the publisher's ``file``."""
    with path.open("rb") as stream:
        beginning = stream.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not beginning:
        return [Problem(name, "is empty")]
    if beginning.startswith((b"<!doctype", b"<html", b"<?xml")):
        return [Problem(name, "is a web page")]
    problems: list[Problem] = []
    if file and file.size and path.stat().st_size != file.size:
        problems.append(Problem(name, f"has {path.stat().st_size:,} bytes instead of {file.size:,}"))
    if name.endswith(".zip"):
        problems += zip_directory(path, name)[1] or damaged_members(path, name, report)
    if file and file.digest:
        algorithm, _, expected = file.digest.partition(":")
        if (actual := digest_of(path, algorithm)) != expected:
            problems.append(Problem(name, f"has the {algorithm} {actual} instead of {expected}"))
    return problems


def digest_of(path: Path, algorithm: str) -> str:
    """A file's hash in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def require_room(folder: Path, size: int) -> None:
    """Raise if the disk of a folder has less than ``size`` bytes left."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise CCLNetError(f"the disk of {folder} has {free:,} bytes left, {size:,} are needed: free some and run again")


def link(path: Path, final: Path, provenance: Provenance) -> None:
    """Create a hard link to a file of this project, or a copy on another disk."""
    final.unlink(missing_ok=True)
    try:
        final.hardlink_to(path)
    except OSError:
        copy(path, final, provenance)


def copy(path: Path, final: Path, provenance: Provenance) -> None:
    """Copy a file, so that changes to the copy (DVC removes its write permission) do not affect the original."""
    require_room(final.parent, provenance.bytes)
    digest = hashlib.sha256()
    with path.open("rb") as source, whole_file(final) as target:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            target.write(chunk)
        if digest.hexdigest() != provenance.sha256:
            raise DataError(f"{provenance.name} changed while it was copied: run again")
