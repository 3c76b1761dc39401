"""The atomic writer: files of every kind, several writers, file systems that lack something, and foreseen failures."""

import errno
import logging
import os
import pty
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cclnet.system import locks, writing
from cclnet.system.errors import CCLNetError
from cclnet.system.files import write_bytes
from cclnet.system.writing import flush_folder, open_descriptor, require_writable, whole_file
from tests.system.builders import IS_KILLED, TWO_WRITERS

PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_warning_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_warned", set())


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# whole or not there


def test_what_is_renamed_is_on_the_disk_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def name_of(path: Any) -> str:
        return "partial" if str(path).endswith(".partial") else Path(path).name

    def noting_fsync(descriptor: int) -> None:
        events.append(f"fsync {name_of(Path(f'/proc/self/fd/{descriptor}').readlink())}")
        fsync(descriptor)

    def noting_replace(source: Any, target: Any) -> None:
        assert Path(source).read_bytes() == b"content"
        events.append(f"rename {name_of(source)} to {name_of(target)}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    write_bytes(tmp_path / "file", b"content")
    assert events == ["fsync partial", "rename partial to file", f"fsync {tmp_path.name}"]


def failing(number: int) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_file_before_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str):
    write_bytes(tmp_path / "file", b"before")
    monkeypatch.setattr(os, call, failing(errno.ENOSPC))
    with pytest.raises(CCLNetError, match="file cannot be written: No space left on device; correct that"):
        write_bytes(tmp_path / "file", b"after")
    assert names_in(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"


def test_a_file_that_is_given_up_is_not_there(tmp_path: Path):
    with pytest.raises(CCLNetError, match="given up"), whole_file(tmp_path / "file") as file:
        file.write(b"half")
        raise CCLNetError("given up")
    assert names_in(tmp_path) == []


def test_an_error_about_a_file_that_is_read_meanwhile_is_not_taken_for_one_of_writing(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="missing"), whole_file(tmp_path / "file") as file:
        file.write((tmp_path / "missing").read_bytes())
    assert names_in(tmp_path) == []


def test_a_name_may_be_as_long_as_a_name_can_be(tmp_path: Path):
    for name in ("n" * 255, "é" * 127):
        write_bytes(tmp_path / name, b"content")
        assert (tmp_path / name).read_bytes() == b"content"
    with pytest.raises(CCLNetError, match="cannot be written: File name too long"):
        write_bytes(tmp_path / ("n" * 256), b"content")


@pytest.mark.parametrize(("below", "said"), [("file/x", "/file is no folder"), ("file/a/x", "/file is no folder")])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path, below: str, said: str):
    (tmp_path / "file").write_bytes(b"before")
    with pytest.raises(CCLNetError, match=f"{said}; correct that"):
        write_bytes(tmp_path / below, b"content")


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(CCLNetError, match="folder cannot be written: Is a directory"):
        write_bytes(tmp_path / "folder", b"content")


# links, permissions and owner


def test_a_link_is_followed_and_stays(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_bytes(b"before")
    (tmp_path / "link").symlink_to(tmp_path / "second")
    (tmp_path / "second").symlink_to("real/file")
    write_bytes(tmp_path / "link", b"content")
    assert (tmp_path / "real" / "file").read_bytes() == b"content"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert names_in(tmp_path / "real") == ["file"]


def test_a_link_to_nothing_makes_what_it_leads_to(tmp_path: Path):
    (tmp_path / "link").symlink_to("new/file")
    write_bytes(tmp_path / "link", b"content")
    assert (tmp_path / "new" / "file").read_bytes() == b"content"
    assert (tmp_path / "link").is_symlink()


def test_links_in_a_circle_are_one_line(tmp_path: Path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(CCLNetError, match="a cannot be written: Too many levels of symbolic links"):
        write_bytes(tmp_path / "a", b"content")
    with pytest.raises(CCLNetError, match="Too many levels of symbolic links"):
        require_writable([tmp_path / "a"])


def test_a_link_that_the_system_would_not_follow_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("precious")
    look = os.stat

    def protected(path: Any, **options: Any) -> os.stat_result:
        """As in /tmp, where another user may have made the link."""
        if Path(path) == tmp_path / "link" and options.get("follow_symlinks", True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return look(path, **options)

    monkeypatch.setattr(os, "stat", protected)
    with pytest.raises(CCLNetError, match="link cannot be written: Permission denied"):
        write_bytes(tmp_path / "link", b"content")
    with pytest.raises(CCLNetError, match=r"link cannot be written \(Permission denied\)"):
        require_writable([tmp_path / "link"])
    assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_file_of_dvc_s_cache_is_not_written_through_a_link(tmp_path: Path, link: str):
    cached, output = tmp_path / "cached", tmp_path / "output"
    cached.write_bytes(b"in the cache")
    cached.chmod(0o444)
    getattr(output, link)(cached)
    write_bytes(output, b"content")
    assert (cached.read_bytes(), mode_of(cached)) == (b"in the cache", 0o444)
    assert (output.read_bytes(), output.is_symlink()) == (b"content", False)
    assert mode_of(output) & 0o200


def test_permissions_are_kept_and_new_files_get_those_that_the_user_asks_for(tmp_path: Path):
    umask = os.umask(0o027)
    try:
        write_bytes(tmp_path / "new", b"content")
        assert mode_of(tmp_path / "new") == 0o640
        for mode in (0o600, 0o664, 0o755):
            (tmp_path / "new").chmod(mode)
            write_bytes(tmp_path / "new", b"content")
            assert mode_of(tmp_path / "new") == mode
    finally:
        os.umask(umask)


def test_what_is_private_is_never_open_to_others_while_it_is_written(tmp_path: Path):
    write_bytes(tmp_path / "file", b"secret")
    (tmp_path / "file").chmod(0o600)
    with whole_file(tmp_path / "file") as file:
        file.write(b"secret, too")
        file.flush()
        (partial,) = tmp_path.glob("*.partial")
        assert mode_of(partial) == 0o600


def test_the_owner_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_bytes(b"before")
    given = []
    monkeypatch.setattr(os, "chown", lambda path, user, group: given.append((user, group)))
    write_bytes(tmp_path / "file", b"content")
    assert given == [(os.getuid(), os.getgid())]
    monkeypatch.setattr(os, "chown", failing(errno.EPERM))  # of somebody who is not root
    write_bytes(tmp_path / "file", b"content, again")
    assert (tmp_path / "file").read_bytes() == b"content, again"


# pipes, devices, descriptors


def read_all(path: Path, into: list[bytes]) -> None:
    into.append(path.read_bytes())


def test_a_pipe_gets_the_contents_and_stays_a_pipe(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        read: list[bytes] = []
        reader = threading.Thread(target=read_all, args=(tmp_path / "pipe", read))
        reader.start()
        write_bytes(tmp_path / name, b"one", b"two")
        reader.join(timeout=60)
        assert read == [b"onetwo"]
    assert (tmp_path / "pipe").is_fifo()
    assert names_in(tmp_path) == ["link", "pipe"]


def test_a_terminal_gets_the_contents(tmp_path: Path):
    mine, theirs = pty.openpty()
    device = Path(os.ttyname(theirs))
    write_bytes(device, b"content\n")
    assert os.read(mine, 100) == b"content\r\n"
    assert device.is_char_device()
    os.close(mine)
    os.close(theirs)


def test_nothing_of_what_is_given_up_gets_into_a_pipe():
    reading, pipe = os.pipe()
    with pytest.raises(CCLNetError, match="given up"), whole_file(Path(f"/dev/fd/{pipe}")) as file:
        file.write(b"half")
        raise CCLNetError("given up")
    os.close(pipe)
    assert os.read(reading, 100) == b""
    os.close(reading)


def test_a_full_device_is_one_line():
    with pytest.raises(CCLNetError, match="/dev/full cannot be written: No space left on device; correct that"):
        write_bytes(Path("/dev/full"), b"content")
    assert Path("/dev/full").is_char_device()


def test_a_pipe_that_nobody_reads_is_an_error_of_its_own():
    reading, pipe = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        write_bytes(Path(f"/dev/fd/{pipe}"), b"content")
    os.close(pipe)


WRITES = """
import sys
from pathlib import Path
from cclnet.system.writing import whole_file
print("printed before")
with whole_file(Path(sys.argv[1])) as file:
    file.write(b"content\\n")
print("printed after")
"""


@pytest.mark.parametrize("output", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("appended", [False, True])
def test_standard_output_is_written_in_turn_wherever_it_goes(tmp_path: Path, output: str, appended: bool):
    (tmp_path / "link").symlink_to("/dev/stdout")
    redirected = tmp_path / "redirected"
    redirected.write_bytes(b"of another command\n")
    before = redirected.stat().st_ino
    with redirected.open("ab" if appended else "wb") as stream:
        command = [sys.executable, "-c", WRITES, output]
        ended = subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(PROJECT)}, stdout=stream, stderr=subprocess.PIPE
        )
    assert (ended.returncode, ended.stderr) == (0, b"")
    expected = b"printed before\ncontent\nprinted after\n"
    assert redirected.read_bytes() == (b"of another command\n" if appended else b"") + expected
    assert redirected.stat().st_ino == before
    assert names_in(tmp_path) == ["link", "redirected"]
    assert Path("/dev/stdout").is_symlink()


def test_process_substitution_is_written_to(tmp_path: Path):
    script = f'"$0" -c "$1" >(cat > {tmp_path / "file"}) > {tmp_path / "out"}; wait; sleep 0.2'
    ended = subprocess.run(["bash", "-c", script, sys.executable, WRITES], cwd=PROJECT, capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, b"")
    for _ in range(100):
        if (tmp_path / "file").read_bytes():
            break
        time.sleep(0.1)
    assert (tmp_path / "file").read_bytes() == b"content\n"


@pytest.mark.parametrize("path", ["file", "/dev/null", "/dev/fd", "1", "folder/1"])
def test_other_paths_are_no_open_files(tmp_path: Path, path: str):
    assert open_descriptor(tmp_path / path) is None


# several writers, and those that were killed


def test_writers_of_one_file_never_mix(tmp_path: Path):
    path = tmp_path / "file"
    command = [sys.executable, "-c", TWO_WRITERS, str(path)]
    pipes: dict[str, Any] = {"cwd": PROJECT, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, letter, "1"], **pipes) for letter in "abc"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            seen.add(path.read_bytes())
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert all(int(writer.communicate()[0]) >= 20 for writer in writers)
    assert seen | {path.read_bytes()} <= {letter * 8 * 4096 for letter in (b"a", b"b", b"c")}
    assert names_in(tmp_path) == ["file"]


def kill_a_writer(path: Path) -> Path:
    """Leaves the partial file of a killed writer."""
    subprocess.run([sys.executable, "-c", IS_KILLED, str(path)], cwd=PROJECT, check=False)
    (partial,) = (other for other in path.parent.iterdir() if other.name.endswith(".partial"))
    assert partial.read_bytes() == b"half"
    return partial


@pytest.mark.parametrize("name", ["file", "a [b] *.csv", "n" * 255])
def test_what_a_killed_writer_has_left_is_removed_by_the_next_one(tmp_path: Path, name: str):
    others = ["file.partial", "file.0123456g.partial", "other.01234567.partial", "file.01234567.partial.csv"]
    kill_a_writer(tmp_path / name)
    for other in others:
        (tmp_path / other).write_bytes(b"not ours")
    write_bytes(tmp_path / name, b"content")
    assert names_in(tmp_path) == sorted([*others, name])


def test_the_partial_file_of_a_writer_that_is_at_work_stays(tmp_path: Path):
    path = tmp_path / "file"
    with whole_file(path) as slow:
        slow.write(b"slow")
        write_bytes(path, b"quick")
        assert path.read_bytes() == b"quick"
    assert path.read_bytes() == b"slow"
    assert names_in(tmp_path) == ["file"]


def test_what_leads_elsewhere_is_not_removed_and_not_written_through(tmp_path: Path):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "file.01234567.partial").symlink_to("precious")
    os.mkfifo(tmp_path / "file.89abcdef.partial")
    write_bytes(tmp_path / "file", b"content")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert names_in(tmp_path) == ["file", "file.01234567.partial", "file.89abcdef.partial", "precious"]


def test_a_name_that_is_taken_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "file.00000000.partial").symlink_to("precious")  # planted by somebody who has guessed the name
    tokens = iter(["00000000", "11111111"])
    monkeypatch.setattr("secrets.token_hex", lambda _: next(tokens))
    write_bytes(tmp_path / "file", b"content")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (tmp_path / "file").read_bytes() == b"content"


# file systems that lack something


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_without_flushing_one_warning_is_given_and_the_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
):
    monkeypatch.setattr(os, "fsync", failing(number))
    with caplog.at_level(logging.WARNING):
        for name in ("one", "two"):
            write_bytes(tmp_path / name, b"content")
        flush_folder(tmp_path)
    reason = os.strerror(number)
    assert caplog.messages == [
        f"{tmp_path / 'one'} cannot be flushed to the disk ({reason}): a power cut may undo what was written last"
    ]
    assert names_in(tmp_path) == ["one", "two"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fails_is_no_missing_guarantee(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int):
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(CCLNetError, match=os.strerror(number)):
        write_bytes(tmp_path / "file", b"content")


@pytest.fixture(params=["ENOLCK", "ENOSYS", "no fcntl"])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no fcntl":
        monkeypatch.setattr(locks, "fcntl", None)
    else:
        monkeypatch.setattr("fcntl.flock", failing(getattr(errno, request.param)))


def test_without_locks_what_a_killed_writer_has_left_is_removed_after_a_day(tmp_path: Path, no_locks: None):
    partial = tmp_path / "file.01234567.partial"
    partial.write_bytes(b"half")
    write_bytes(tmp_path / "file", b"content")
    assert names_in(tmp_path) == ["file", partial.name]
    yesterday = time.time() - 86_500
    os.utime(partial, (yesterday, yesterday))
    write_bytes(tmp_path / "file", b"content")
    assert names_in(tmp_path) == ["file"]


def test_a_file_that_cannot_be_replaced_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "file"
    path.write_bytes(b"longer than the contents that follow")
    before = path.stat().st_ino
    monkeypatch.setattr(os, "replace", failing(errno.EBUSY))  # a single file that is mounted there
    with caplog.at_level(logging.WARNING):
        write_bytes(path, b"content")
    assert path.read_bytes() == b"content"
    assert path.stat().st_ino == before
    assert names_in(tmp_path) == ["file"]
    assert caplog.messages == [
        f"{path} cannot be replaced, so it is overwritten: if that is interrupted, half of it is lost"
    ]


def test_a_file_in_a_folder_that_is_not_one_s_own_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "file"
    path.write_bytes(b"longer than the contents that follow")
    monkeypatch.setattr(os, "access", lambda where, mode: where != tmp_path)
    with caplog.at_level(logging.WARNING):
        with pytest.raises(CCLNetError, match="given up"), whole_file(path) as file:
            file.write(b"half")
            raise CCLNetError("given up")
        assert path.read_bytes() == b"longer than the contents that follow"
        write_bytes(path, b"content")
    assert path.read_bytes() == b"content"
    assert len(caplog.messages) == 1


# what can be known before


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which the process is, with files of several kinds."""
    monkeypatch.chdir(tmp_path)
    for name in ("file", "input", "protected"):
        (tmp_path / name).write_bytes(b"before")
    (tmp_path / "protected").chmod(0o444)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("input")
    (tmp_path / "dangling").symlink_to("folder/new")
    yield tmp_path


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("folder", "folder is a folder"),
        ("protected", "protected is write-protected"),
        ("file/x", "/file is no folder"),
        ("n" * 256, "n cannot be written (File name too long)"),
        ("/proc/x", "/proc/x cannot be written: /proc: No such file or directory"),
        ("input", "input is also read"),
        ("link", "link is also read"),
    ],
)
def test_an_output_that_cannot_be_written_is_named_before(place: Path, output: str, problem: str):
    with pytest.raises(CCLNetError) as refused:
        require_writable([None, Path("new"), Path(output)], [Path("input"), Path("folder/other")])
    assert str(refused.value).endswith(f"{problem}: choose another file to write")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("output", ["file", "new", "new/file", "dangling", "-", "/dev/null", "/dev/stdout"])
def test_an_output_that_can_be_written_is_left_as_it_is(place: Path, output: str):
    before = names_in(place)
    require_writable([Path(output)], [Path("input")])
    assert names_in(place) == before
    assert (place / "file").read_bytes() == b"before"


def test_all_problems_are_named_at_once(place: Path):
    with pytest.raises(CCLNetError) as refused:
        require_writable([Path("folder"), Path("protected"), Path("a"), Path("./a")])
    said = "folder is a folder; protected is write-protected; a and a are the same file: choose another file to write"
    assert str(refused.value) == said


def test_a_stage_s_output_may_be_a_protected_file_of_dvc(place: Path):
    require_writable([Path("protected")], replace_protected=True)


def test_a_folder_that_cannot_be_written_to_is_named(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda where, mode: Path(where).name != "folder")
    with pytest.raises(CCLNetError, match=f"folder/a/b cannot be written: {place}/folder is write-protected: choose"):
        require_writable([Path("folder/a/b")])
