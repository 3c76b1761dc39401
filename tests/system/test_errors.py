import errno
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
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(PROJECT)!r}); import stages"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [
        "params: params.yaml cannot be used:",
        "  lr_ccl: missing",
        "  lr_cll: unknown key; did you mean lr_ccl?",
    ]
