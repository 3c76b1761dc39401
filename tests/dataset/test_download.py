import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cclnet.dataset.download import CHUNK, Patience, Provenance, fetch
from cclnet.dataset.isic import RemoteFile
from cclnet.system.errors import CCLNetError, DataError
from cclnet.system.locks import only_process
from tests.campaigns.faulty_server import (
    FaultyServer,
    Reply,
    answer,
    cut,
    faulty_server,
    hang_up,
    stall,
    stuck,
    well,
    whole,
)
from tests.dataset.builders import FILE, IMPATIENT, MEBIBYTE, Folders, start_fetching, zip_of


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


DATA = zip_of(MEBIBYTE)
OTHER = zip_of(MEBIBYTE, seed=1)
PAGE = b"<!DOCTYPE html><html><body>please sign in</body></html>"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server(DATA) as running:
        yield running


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def one_line(error: pytest.ExceptionInfo[CCLNetError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_file_is_fetched_and_described(server, folders):
    reports = []

    def report(name: str, done: int, total: int, detail: str = "") -> None:
        reports.append((name, done, total))

    found = fetch(server.source, [FILE], folders.destination, folders.partial, report)
    assert found == [Provenance("a.zip", f"{server.source}a.zip", len(DATA), sha256(DATA))]
    assert folders.final.read_bytes() == DATA
    assert reports[0] == ("a.zip", CHUNK, len(DATA))
    assert ("a.zip", len(DATA), len(DATA)) in reports
    assert reports[-1] == ("checking a.zip", 1, 1)
    assert names_in(folders.destination) == ["a.zip"]


def test_several_files_come_together_or_not_at_all(server, folders):
    server.script = [whole, answer(404)]
    files = [FILE, RemoteFile("b.zip", "https://publisher.invalid/b.zip")]
    with pytest.raises(DataError, match="404"):
        fetch(server.source, files, folders.destination, folders.partial, patience=IMPATIENT)
    assert not folders.destination.exists()
    fetch(server.source, files, folders.destination, folders.partial, patience=IMPATIENT)
    assert names_in(folders.destination) == ["a.zip", "b.zip"]
    assert len(server.asked) == 3, "what was complete is not fetched again"


SURVIVED: dict[str, list[Reply]] = {
    "one cut": [cut(300_000)],
    "more cuts than attempts": [cut(100_000)] * 8,
    "no reply, then a cut": [hang_up, cut(300_000), hang_up],
    "503, 500 and 429": [cut(300_000), answer(503, body=b"SlowDown"), well, answer(500), answer(429)],
    "200 for a range": [cut(300_000), whole],
    "stalled at once": [stall(0)],
    "stalled": [stall(300_000), stall(300_000)],
    "a 206 from the wrong place": [
        cut(300_000),
        answer(206, {"Content-Range": f"bytes 7-{len(DATA) - 1}/{len(DATA)}"}, DATA[7:]),
    ],
    "a 206 without a range": [cut(300_000), answer(206, {"Content-Length": "5"}, b"abcde")],
    "a 206 that is too long": [
        cut(CHUNK),
        answer(206, {"Content-Range": f"bytes {CHUNK}-{len(DATA) - 1}/{len(DATA)}"}, DATA[CHUNK:] + b"more"),
    ],
    "a 206 that is too short": [
        cut(CHUNK),
        answer(206, {"Content-Range": f"bytes {CHUNK}-{len(DATA) - 1}/{len(DATA)}"}, DATA[CHUNK:-9]),
    ],
    "a 206 of another version": [
        cut(CHUNK),
        answer(206, {"Content-Range": f"bytes {CHUNK}-{len(OTHER) - 1}/{len(OTHER)}", "ETag": '"2"'}, OTHER[CHUNK:]),
    ],
    "a 206 of another version that does not say so": [
        cut(CHUNK),
        answer(206, {"Content-Range": f"bytes {CHUNK}-{len(OTHER) - 1}/{len(OTHER)}"}, OTHER[CHUNK:]),
    ],
    "416 with another length": [cut(300_000), answer(416, {"Content-Range": "bytes */1000"})],
    "416 with the length so far": [cut(4 * CHUNK), answer(416, {"Content-Range": f"bytes */{4 * CHUNK}"})],
    "416 with no length": [cut(300_000), answer(416)],
}


@pytest.mark.parametrize("script", SURVIVED.values(), ids=SURVIVED)
def test_a_fault_on_the_way_is_survived(server, folders, script):
    server.script = list(script)
    assert folders.fetch(server.source).sha256 == sha256(DATA)
    assert folders.final.read_bytes() == DATA


NOTICED_BY_CONTENTS = ("a 206 of another version that does not say so", "416 with the length so far")


@pytest.mark.parametrize("fault", [fault for fault in SURVIVED if fault not in NOTICED_BY_CONTENTS])
def test_a_fault_is_survived_by_a_file_without_a_checksum_in_it(server, folders, fault):
    """A table has nothing but the protocol to tell a wrong splice by."""
    server.script = list(SURVIVED[fault])
    assert folders.fetch(server.source, RemoteFile("a.csv", "")).sha256 == sha256(DATA)


def test_a_cut_costs_at_most_one_chunk(server, folders):
    server.script = [cut(700_000)]
    folders.fetch(server.source)
    assert server.asked[0]["Range"] is None
    assert server.asked[1]["If-Range"] == '"first"'
    start = int(server.asked[1]["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 700_000 - CHUNK <= start <= 700_000
    assert server.sent == 700_000 + len(DATA) - start


def test_a_file_that_changes_starts_over(server, folders):
    def change(handler):
        server.data, server.headers = OTHER, {"ETag": '"second"'}
        well(handler)

    server.script = [cut(300_000), change]
    assert folders.fetch(server.source).sha256 == sha256(OTHER)


@pytest.mark.parametrize(
    ("headers", "if_range"),
    [({}, None), ({"ETag": 'W/"weak"'}, None), ({"ETag": 'W/"weak"', "Last-Modified": "yesterday"}, "yesterday")],
)
def test_only_a_strong_validator_continues_a_part(server, folders, headers, if_range):
    server.headers = headers
    server.script = [cut(300_000)]
    assert folders.fetch(server.source).sha256 == sha256(DATA)
    assert server.asked[1]["If-Range"] == if_range
    assert (server.asked[1]["Range"] is None) == (if_range is None)


def test_a_complete_part_is_verified_by_416(server, folders):
    server.script = [cut(CHUNK), hang_up]
    with pytest.raises(CCLNetError):
        folders.fetch(server.source, patience=Patience(attempts=1))
    folders.part().write_bytes(DATA)
    sent = server.sent
    assert folders.fetch(server.source).sha256 == sha256(DATA)
    assert server.sent == sent


def test_a_part_that_rotted_is_found_and_fetched_anew(server, folders):
    server.script = [cut(3 * CHUNK), hang_up]
    with pytest.raises(CCLNetError):
        folders.fetch(server.source, patience=Patience(attempts=1))
    part = folders.part()
    part.write_bytes(bytes(CHUNK) + part.read_bytes()[CHUNK:])
    assert folders.fetch(server.source).sha256 == sha256(DATA)
    assert [asked["Range"] for asked in server.asked[2:]] == [f"bytes={3 * CHUNK}-", None]


REFUSED: dict[str, tuple[Reply, str]] = {
    "404": (answer(404), "answers 404 Not Found: check the source"),
    "403": (answer(403), "answers 403"),
    "a page, by its type": (answer(200, {"Content-Type": "text/html; charset=utf-8"}, PAGE), "is a web page"),
    "a page, by its contents": (answer(200, body=b"\xef\xbb\xbf\r\n" + PAGE), "is a web page"),
    "an encoding": (answer(200, {"Content-Encoding": "gzip"}, b"?"), "comes encoded"),
    "nothing": (answer(200), "is empty"),
    "a short file": (answer(200, body=DATA[:-40]), "is no zip, or not the whole of one"),
    "a short file of unknown length": (answer(200, {"X": ""}, DATA[:500_000]), "is no zip, or not the whole of one"),
    "a flipped byte": (answer(200, body=DATA[:5000] + b"?" + DATA[5001:]), "'folder/ISIC_0000001.jpg': is damaged"),
}


@pytest.mark.parametrize(("reply", "said"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_file_is_refused(server, folders, reply, said):
    server.script = [reply]
    with pytest.raises(DataError) as error:
        folders.fetch(server.source)
    assert said in str(error.value)
    assert server.source in str(error.value)
    folders.assert_nothing_final()
    assert len(server.asked) == 1
    assert folders.fetch(server.source).sha256 == sha256(DATA)


def test_a_page_in_between_does_not_cost_the_part(server, folders):
    server.script = [cut(3 * CHUNK), answer(200, {"Content-Type": "text/html"}, PAGE)]
    with pytest.raises(DataError, match="sign in to the network"):
        folders.fetch(server.source)
    folders.fetch(server.source)
    assert server.asked[2]["Range"] == f"bytes={3 * CHUNK}-"


@pytest.mark.parametrize(
    ("size", "digest", "said"),
    [
        (len(DATA) - 1, None, "bytes instead of"),
        (None, "sha256:" + 64 * "0", "has the sha256"),
        (None, "md5:" + 32 * "0", "has the md5"),
    ],
)
def test_the_publishers_own_copy_must_be_the_known_one(server, folders, size, digest, said):
    file = RemoteFile("a.zip", f"{server.source}a.zip", size, digest)
    for source in ("official", server.source):
        with pytest.raises(DataError, match=said):
            folders.fetch(source, file)
        folders.assert_nothing_final()
    mirror = server.source.replace("/data/", "/mirror/")
    assert folders.fetch(mirror, file).sha256 == sha256(DATA)


def test_the_official_source(server, folders):
    digest = "md5:" + hashlib.md5(DATA, usedforsecurity=False).hexdigest()
    file = RemoteFile("a.zip", f"{server.source}a.zip", len(DATA), digest)
    assert folders.fetch("official", file) == Provenance("a.zip", f"{server.source}a.zip", len(DATA), sha256(DATA))


def test_a_publishers_body_of_unknown_length_is_continued_when_it_is_short(server, folders):
    file = RemoteFile("a.zip", f"{server.source}a.zip", len(DATA))
    server.script = [answer(200, {"ETag": '"first"'}, DATA[:CHUNK])]
    assert folders.fetch("official", file).sha256 == sha256(DATA)
    assert server.asked[1]["Range"] == f"bytes={CHUNK}-"


def test_a_publishers_file_of_the_wrong_length_does_not_cost_the_part(server, folders):
    file = RemoteFile("a.zip", f"{server.source}a.zip", len(DATA))
    server.script = [cut(3 * CHUNK), answer(200, body=b"short")]
    with pytest.raises(DataError, match="has 5 bytes instead of 1,04"):
        folders.fetch("official", file)
    folders.fetch("official", file)
    assert server.asked[2]["Range"] == f"bytes={3 * CHUNK}-"


GIVEN_UP: dict[str, tuple[Reply, str]] = {
    "silent": (stall(0), "timed out"),
    "stalled at the same byte": (stuck(300_000, stalls=True), "timed out"),
    "hangs up": (hang_up, "Remote end closed connection"),
    "503": (answer(503), "the server answers 503 Service Unavailable"),
    "cut at the same byte": (stuck(300_000, stalls=False), "IncompleteRead"),
}


@pytest.mark.parametrize(("reply", "said"), GIVEN_UP.values(), ids=GIVEN_UP)
def test_a_server_that_does_not_mend_is_given_up(server, folders, reply, said):
    server.script = [reply] * 20
    with pytest.raises(CCLNetError) as error:
        folders.fetch(server.source)
    assert said in one_line(error)
    assert "put the dataset's files into a folder and name that as the source" in one_line(error)
    assert len(server.asked) <= IMPATIENT.attempts + 1
    folders.assert_nothing_final()


def test_an_unreachable_server(folders):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        source = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(CCLNetError) as error:
        folders.fetch(source)
    assert one_line(error).startswith(f"{source}/a.zip cannot be fetched: [Errno 111] Connection refused (3 attempts)")


@pytest.mark.parametrize("source", ["http://[", "http://", "http://127.0.0.1:port/", "ftp://127.0.0.1/", "", "absent"])
def test_a_source_that_is_none(folders, source):
    with pytest.raises(DataError) as error:
        folders.fetch(source if source != "" else "no/such/folder")
    assert one_line(error)


def test_what_is_complete_is_not_fetched_again_while_its_hash_holds(server, folders):
    first = folders.fetch(server.source)
    for expected_requests in (1, 1, 2):
        if expected_requests == 2:
            kept = next(folders.partial.glob("*/a.zip"))
            kept.write_bytes(kept.read_bytes()[:-1])
        shutil.rmtree(folders.destination)
        assert folders.fetch(server.source) == first
        assert folders.final.read_bytes() == DATA
        assert len(server.asked) == expected_requests


def test_another_source_gets_nothing_of_the_first(server, folders):
    folders.fetch(server.source)
    server.script = [cut(CHUNK)]
    with faulty_server(OTHER) as second:
        assert folders.fetch(second.source).sha256 == sha256(OTHER)
    assert folders.final.read_bytes() == OTHER
    assert folders.fetch(server.source).sha256 == sha256(DATA)


def test_the_kept_file_and_the_destination_share_the_disk(server, folders, monkeypatch):
    folders.fetch(server.source)
    assert folders.final.samefile(next(folders.partial.glob("*/a.zip")))

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    folders.fetch(server.source)
    assert not folders.final.samefile(next(folders.partial.glob("*/a.zip")))
    assert folders.final.read_bytes() == DATA
    assert names_in(folders.destination) == ["a.zip"]


def test_credentials_reach_the_server_and_nothing_else(server, folders):
    source = server.source.replace("http://", "http://user:secret@") + "?token=hidden"
    server.script = [cut(CHUNK), answer(404)]
    with pytest.raises(DataError) as error:
        folders.fetch(source)
    provenance = folders.fetch(source)
    assert provenance.source == f"{server.source}a.zip"
    assert server.asked[0]["Authorization"].startswith("Basic ")
    for text in (str(error.value), str(provenance)):
        assert "secret" not in text
        assert "hidden" not in text


def test_a_second_process_is_refused(server, folders):
    folders.fetch(server.source)
    lock = next(folders.partial.iterdir()) / "lock"
    with (
        only_process(lock, "waits"),
        pytest.raises(CCLNetError, match=f"process {os.getpid()} is fetching a.zip already"),
    ):
        folders.fetch(server.source)


def test_too_small_a_disk_is_found_before_anything_is_written(server, folders, monkeypatch):
    monkeypatch.setattr("cclnet.dataset.download.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(CCLNetError, match=rf"1,000 bytes left, {len(DATA):,} are needed") as error:
        folders.fetch(server.source)
    one_line(error)
    folders.assert_nothing_final()
    assert not list(folders.partial.glob("*/*.part"))


def test_a_disk_that_fills_up(server, folders):
    process = start_fetching(server.source, folders, limit=CHUNK)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert errors.decode().count("\n") == 1
    assert "File too large; fix that and run it again" in errors.decode()
    folders.assert_nothing_final()
    assert folders.fetch(server.source).sha256 == sha256(DATA)
    assert server.asked[1]["Range"] == f"bytes={CHUNK}-"


def test_sigkill_at_ten_offsets(server, folders):
    server.data = zip_of(8 * MEBIBYTE)
    size = len(server.data)
    fetched_twice = []
    for offset in range(size // 20, size, size // 10):
        process = start_fetching(server.source, folders)
        server.after_sending = (offset + sum(fetched_twice), process.kill)
        process.communicate(timeout=20)
        assert process.returncode == -9
        folders.assert_nothing_final()
        server.after_sending = None
        held = folders.part().stat().st_size
        assert server.data.startswith(folders.part().read_bytes())
        fetched_twice.append(server.sent - sum(fetched_twice) - held)
    assert folders.fetch(server.source).sha256 == sha256(server.data)
    assert folders.final.read_bytes() == server.data
    assert server.sent == size + sum(fetched_twice)
    assert max(fetched_twice) <= MEBIBYTE, fetched_twice


def test_a_folder_is_copied_and_left_alone(tmp_path, folders):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.zip").write_bytes(DATA)
    before = (folder / "a.zip").stat()
    file = RemoteFile("a.zip", "https://publisher.invalid/a.zip", size=1, digest="md5:0")
    for _ in range(2):
        assert folders.fetch(str(folder), file) == Provenance("a.zip", str(folder), len(DATA), sha256(DATA))
    assert folders.final.read_bytes() == DATA
    assert not folders.final.samefile(folder / "a.zip"), "DVC takes the write permission of what it caches"
    folders.final.chmod(0o444)
    after = (folder / "a.zip").stat()
    assert (after.st_mtime_ns, after.st_mode, after.st_nlink) == (before.st_mtime_ns, before.st_mode, 1)
    assert not folders.partial.exists()


def test_a_folder_is_written_down_as_the_user_wrote_it(tmp_path, folders, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.zip").write_bytes(DATA)
    monkeypatch.chdir(tmp_path)
    assert folders.fetch("mine").source == "mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folders.fetch("~/mine").source == "~/mine"


def test_all_problems_of_a_folder_come_together(tmp_path, folders):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.zip").write_bytes(DATA[:900_000])
    (folder / "page.csv").write_bytes(PAGE)
    (folder / "empty.csv").write_bytes(b"")
    files = [RemoteFile(name, "") for name in ("a.zip", "page.csv", "empty.csv", "absent.csv")]
    with pytest.raises(DataError) as error:
        fetch(str(folder), files, folders.destination, folders.partial)
    assert error.value.problems == (
        ("a.zip", "is no zip, or not the whole of one"),
        ("page.csv", "is a web page"),
        ("empty.csv", "is empty"),
        ("absent.csv", "is missing"),
    )
    assert not folders.destination.exists()
