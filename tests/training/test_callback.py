import logging
import signal
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from cclnet.system.errors import CCLNetError
from cclnet.system.files import write_csv
from cclnet.system.interruption import InterruptionError
from cclnet.training.callback import VARIABLE, epoch_callback
from cclnet.training.history import Row
from cclnet.training.loop import fit
from cclnet.training.states import StateStore
from tests.training.builders import IMAGES, RAN_ON, STEPS_OF_AN_EPOCH, VALIDATION, trainer_of

ROW: Row = {"epoch": 3, "softness": 0.5, "ccl_loss": None}


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest):
    """Write a module of the user's and name one of its functions; the name of the module is that of the test."""
    module = f"of_{abs(hash(request.node.name))}"
    monkeypatch.syspath_prepend(tmp_path)

    def name(code: str, function: str = "log") -> str:
        (tmp_path / f"{module}.py").write_text(code)
        monkeypatch.setenv(VARIABLE, f"{module}:{function}")
        return f"{module}:{function}"

    return name


# the function that is named


def test_the_named_function_gets_a_copy_of_the_row(named, tmp_path: Path):
    named("rows = []\ndef log(row):\n    rows.append(dict(row))\n    row.clear()")
    call = epoch_callback()
    call(ROW)
    call(ROW | {"epoch": 4})
    module = __import__(next(tmp_path.glob("*.py")).stem)
    assert module.rows == [ROW, ROW | {"epoch": 4}]
    assert ROW == {"epoch": 3, "softness": 0.5, "ccl_loss": None}


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_name_nothing_is_called(monkeypatch: pytest.MonkeyPatch, value: str | None):
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert epoch_callback()(ROW) is None


def test_an_exception_is_a_warning_in_one_line(named, caplog: pytest.LogCaptureFixture):
    name = named("def log(row):\n    raise RuntimeError('the server\\nis gone')")
    with caplog.at_level(logging.WARNING):
        epoch_callback()(ROW)
    assert caplog.messages == [f"{name} failed after epoch 3 (RuntimeError: the server is gone); training goes on"]


@pytest.mark.parametrize(
    ("code", "function", "reason"),
    [
        ("import no_such_logger", "log", "ModuleNotFoundError: No module named 'no_such_logger'"),
        ("def log(row): pass", "lag", "has no attribute 'lag'"),
        ("raise ValueError('no\\nserver')", "log", "ValueError: no server"),
        ("log = 3", "log", "is no function"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_line(named, code: str, function: str, reason: str):
    name = named(code, function)
    with pytest.raises(CCLNetError) as caught:
        epoch_callback()
    assert str(caught.value).startswith(f"{VARIABLE}={name} ")
    assert reason in str(caught.value)
    assert str(caught.value).endswith("or unset it")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["nothing", "json", ":dumps", "json:"])
def test_a_name_that_is_no_function_of_a_module_is_refused(monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(CCLNetError, match=f"{VARIABLE}={value} cannot be loaded"):
        epoch_callback()


# every epoch of a training


def run_fit(folder: Path, followed: list[Row], written: list[list[Row]], asked_after: int | None = None) -> list[Row]:
    """A fit of four epochs by a new process, which is asked to end after so many steps."""
    steps = 0

    def between_steps() -> None:
        nonlocal steps
        steps += 1
        if steps == asked_after:
            raise InterruptionError(signal.SIGTERM)

    def write_history(history: list[Row]) -> None:
        written.append(list(history))

    with StateStore(folder, "run") as store:
        return fit(
            trainer_of(epochs=4),
            IMAGES,
            VALIDATION,
            store,
            RAN_ON,
            between_steps=between_steps,
            write_history=write_history,
            after_epoch=followed.append,
        )


def test_every_epoch_is_followed_once_and_the_history_is_written_after_each(tmp_path: Path):
    followed: list[Row] = []
    written: list[list[Row]] = []
    history = run_fit(tmp_path, followed, written)
    assert followed == history
    assert written == [history[:count] for count in range(1, 5)]


@pytest.mark.parametrize("asked_after", [1, STEPS_OF_AN_EPOCH, STEPS_OF_AN_EPOCH + 2, 3 * STEPS_OF_AN_EPOCH])
def test_a_resumed_run_follows_its_own_epochs_and_writes_the_same_history(tmp_path: Path, asked_after: int):
    first: list[Row] = []
    second: list[Row] = []
    written: list[list[Row]] = []
    with pytest.raises(InterruptionError):
        run_fit(tmp_path / "resumed", first, [], asked_after)
    history = run_fit(tmp_path / "resumed", second, written)
    assert first + second == history
    assert len(first) == (asked_after - 1) // STEPS_OF_AN_EPOCH
    assert written == [history[:count] for count in range(max(1, len(first)), 5)]
    assert history == run_fit(tmp_path / "at once", [], [])


def test_a_failing_callback_loses_nothing(named, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    named("def log(row):\n    row.clear()\n    raise RuntimeError('gone')")
    expected = run_fit(tmp_path / "without", [], [])
    with caplog.at_level(logging.WARNING), StateStore(tmp_path, "run") as store:
        found = fit(trainer_of(epochs=4), IMAGES, VALIDATION, store, RAN_ON, after_epoch=epoch_callback())
    assert found == expected
    assert len(caplog.messages) == 4


def test_a_process_that_saves_no_states_calls_nothing():
    followed: list[Row] = []
    written: list[list[Row]] = []
    trainer = trainer_of(epochs=1)
    fit(trainer, IMAGES, VALIDATION, None, RAN_ON, write_history=written.append, after_epoch=followed.append)
    assert (followed, written) == ([], [])


def test_the_history_of_a_half_finished_run_is_the_beginning_of_the_whole_one(tmp_path: Path):
    """Columns do not depend on the number of epochs, and no number is written in another way."""
    written: list[list[Row]] = []
    run_fit(tmp_path, [], written)
    for count, rows in enumerate(written, start=1):
        write_csv(tmp_path / f"{count}.csv", rows)
    texts = [(tmp_path / f"{count}.csv").read_text(encoding="utf-8") for count in range(1, 5)]
    assert all(whole.startswith(half) for half, whole in pairwise(texts))
    assert pd.read_csv(tmp_path / "2.csv")["epoch"].tolist() == [1, 2]
