import os
import subprocess
import sys
from pathlib import Path

import pytest

from cclnet.system.streams import printable

PROJECT = Path(__file__).parents[2]

PROGRAM = """
import os, sys
from contextlib import suppress
from cclnet.system.errors import CCLNetError, errors_in_one_line
from cclnet.system.progress import progress
from pathlib import Path
with errors_in_one_line("program"):
    with progress() as report:
        report("working", 1, 1)
    first = open(sys.argv[1], "w")
    with suppress(OSError):
        os.write(2, b"of some library\\n")
    print("p\\u0304 " * int(sys.argv[2]))
    first.write("done")
    first.close()
    if sys.argv[3:]:
        raise CCLNetError(sys.argv[3])
"""


def run(tmp_path: Path, redirections: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program below a shell that redirects its streams; gives the program's exit status."""
    status = tmp_path / "status"
    script = f'"$0" "$@" {redirections}; echo "${{PIPESTATUS[0]}}" > {status}'
    command = ["bash", "-c", script, sys.executable, "-c", PROGRAM, str(tmp_path / "file"), *arguments]
    ended = subprocess.run(command, cwd=PROJECT, env=os.environ | environment, capture_output=True, text=True)
    ended.returncode = int(status.read_text())
    return ended


@pytest.mark.parametrize(
    ("redirections", "out", "err"),
    [
        ("", "working: 1 of 1 (100%)\np̄ \n", "of some library\nprogram: wrong\n"),
        ("2>&-", "working: 1 of 1 (100%)\np̄ \n", ""),
        (">&-", "", "of some library\nprogram: wrong\n"),
        ("<&- >&- 2>&-", "", ""),
    ],
)
def test_closed_streams_swallow_what_is_printed_and_no_file_gets_it(
    tmp_path: Path, redirections: str, out: str, err: str
):
    ended = run(tmp_path, redirections, "1", "wrong", PYTHONUTF8="1")
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, out, err)
    assert (tmp_path / "file").read_text() == "done"


@pytest.mark.parametrize("letters", ["1", "100000"])
def test_a_reader_that_is_gone_ends_the_program_without_a_word(tmp_path: Path, letters: str):
    ended = run(tmp_path, "| sleep 0", letters)  # ends without having read anything
    assert ended.returncode == 141
    assert ended.stderr.replace("of some library\n", "") == ""


def test_a_reader_of_errors_that_is_gone_keeps_the_exit_status(tmp_path: Path):
    ended = run(tmp_path, "2>&1 >/dev/null | sleep 0", "1", "wrong")
    assert ended.returncode == 1
    assert (tmp_path / "file").read_text() == "done"


@pytest.mark.parametrize("letters", ["1", "100000"])
def test_a_full_disk_behind_standard_output_is_one_line(tmp_path: Path, letters: str):
    ended = run(tmp_path, "> /dev/full", letters)
    assert ended.returncode == 1
    (line,) = ended.stderr.replace("of some library\n", "").splitlines()
    assert line.startswith("program: the disk or a limit on it is full")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_a_letter_that_the_terminal_lacks_is_escaped(tmp_path: Path, encoding: str):
    ended = run(tmp_path, "", "1", PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stdout) == (0, "working: 1 of 1 (100%)\np\\u0304 \n")


def test_control_characters_are_escaped():
    assert printable("a\x1b[31mb\x07\x9b1m\u202e\ud800\r\n") == "a\\x1b[31mb\\x07\\x9b1m\\u202e\\ud800\\r\n"
    assert printable("Nævus p̄ 母斑 🙂 “–”") == "Nævus p̄ 母斑 🙂 “–”"


def test_the_name_of_a_file_does_not_steer_the_terminal(tmp_path: Path):
    ended = run(tmp_path, "", "1", "photo\x1b]0;owned\x07.jpg is damaged")
    assert ended.stderr == "of some library\nprogram: photo\\x1b]0;owned\\x07.jpg is damaged\n"
