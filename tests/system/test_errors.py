import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cclnet.system.errors import CCLNetError, DataError, ParamsError, Problem, errors_in_one_line

PROJECT = Path(__file__).parents[2]


def test_a_data_error_lists_every_problem_under_its_summary():
    problems = [Problem("b.jpg", "is truncated"), Problem("a.jpg", "is no image")]
    error = DataError("2 images cannot be used:", problems)
    assert str(error) == "2 images cannot be used:\n  b.jpg: is truncated\n  a.jpg: is no image"
    assert error.problems == tuple(problems)
    assert str(DataError("the folder is empty")) == "the folder is empty"


@pytest.mark.parametrize("error", [CCLNetError("no disk left"), ParamsError("no disk left"), DataError("no disk left")])
def test_what_a_user_can_put_right_ends_in_its_own_words(error: CCLNetError, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended, errors_in_one_line("train"):
        raise error
    assert ended.value.code == 1
    assert ended.value.__suppress_context__
    captured = capsys.readouterr()
    assert captured.err == "train: no disk left\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "train: interrupted; run it again\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a.npy"), 1, "the disk or a limit on it is full ([Errno 28]"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 1, "free some space and run it again\n"),
        (MemoryError(), 1, "out of memory; lower batch_size or crop in params.yaml"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), 1, "train: out of memory; lower"),
        (RuntimeError("could not create a primitive"), 1, "train: out of memory; lower batch_size"),
    ],
)
def test_what_the_machine_lacks_is_one_line(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended, errors_in_one_line("train"):
        raise error
    assert ended.value.code == status
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1


def test_memory_that_no_processor_has_is_one_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit), errors_in_one_line("train"):
        torch.empty(2**60)
    assert capsys.readouterr().err.startswith("train: out of memory; ")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOENT, "No such file or directory; check the name, or make it first (in a project: dvc repro)"),
        (errno.EACCES, "Permission denied; change its permissions, or those of its folder"),
        (errno.EROFS, "Read-only file system; choose a place that can be written to"),
        (errno.EISDIR, "Is a directory; a folder is where a file is needed: move it away"),
        (errno.ENOTDIR, "Not a directory; one of its folders is a file: move that away"),
        (errno.ELOOP, "Too many levels of symbolic links; its links lead in a circle"),
        (errno.EMFILE, "Too many open files; too many files are open: raise the limit (ulimit -n)"),
        (errno.EIO, "Input/output error; the disk behind it fails: check it"),
        (errno.ETXTBSY, "Text file busy; correct that and run it again"),
    ],
)
@pytest.mark.parametrize("name", ["data/split.csv", b"data/split.csv", Path("data/split.csv")])
def test_a_file_that_cannot_be_used_is_one_line_with_its_name(
    number: int, said: str, name: object, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended, errors_in_one_line("train"):
        raise OSError(number, os.strerror(number), name)
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"train: data/split.csv: {said}\n"


def test_a_disk_that_fails_while_it_is_read_is_one_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit), errors_in_one_line("train"):
        raise OSError(errno.EIO, "Input/output error")
    assert capsys.readouterr().err == "train: Input/output error: the disk behind it fails: check it\n"


def test_an_error_that_ctrl_c_has_become_is_no_traceback(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended, errors_in_one_line("train"):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("numpy.core.multiarray failed to import") from None  # as a library does
    assert ended.value.code == 130
    assert capsys.readouterr().err == "train: interrupted; run it again\n"
    with pytest.raises(ImportError), errors_in_one_line("train"):  # the next one is a mistake again
        raise ImportError("no module")


def test_the_handler_of_ctrl_c_is_as_before_and_one_that_is_ignored_stays_so():
    before = signal.getsignal(signal.SIGINT)
    with errors_in_one_line("train"):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with errors_in_one_line("train"):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), RuntimeError("mat1 and mat2"), FileNotFoundError(errno.ENOENT, "No such file")]
)
def test_a_mistake_of_the_program_keeps_its_traceback(error: Exception):
    with pytest.raises(type(error)), errors_in_one_line("train"):
        raise error


def test_success_passes_through(capsys: pytest.CaptureFixture[str]):
    with errors_in_one_line("train"):
        pass
    assert capsys.readouterr().err == ""


def test_a_stage_with_wrong_params_ends_with_one_report_and_exit_code_1(tmp_path: Path):
    text = (PROJECT / "params.yaml").read_text(encoding="utf-8").replace("\nlr_ccl:", "\nlr_cll:")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    code = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); import stages; stages.prepare()"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [
        "params: params.yaml cannot be used:",
        "  lr_ccl: missing",
        "  lr_cll: unknown key; did you mean lr_ccl?",
    ]
