import io
import sys
import time

import pytest

from cclnet.system.progress import plain_lines, progress, silent


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_a_line_now_and_then_and_the_last_one_always(clock: Clock, capsys: pytest.CaptureFixture[str]):
    report = plain_lines(seconds=10)
    for done in range(1, 26):
        report("training", done, 25)
        clock.now += 1
    assert capsys.readouterr().out.splitlines() == [
        "training: 11 of 25 (44%)",
        "training: 21 of 25 (84%)",
        "training: 25 of 25 (100%)",
    ]


def test_names_do_not_silence_each_other(clock: Clock, capsys: pytest.CaptureFixture[str]):
    report = plain_lines(seconds=10)
    report("a", 1, 9)
    clock.now += 6
    report("b", 1, 9)
    clock.now += 6
    report("a", 2, 9)
    report("b", 2, 9)
    clock.now += 6
    report("a", 3, 9)
    report("b", 3, 9)
    assert capsys.readouterr().out.splitlines() == ["a: 2 of 9 (22%)", "b: 3 of 9 (33%)"]


def test_details_thousands_and_an_unknown_whole(clock: Clock, capsys: pytest.CaptureFixture[str]):
    report = plain_lines(seconds=10)
    report("training", 8012, 8012, "epoch 1 of 30, 85 images/s")
    report("downloading", 1000, 0)
    clock.now += 10
    report("downloading", 1234567, 0, "12 MB/s")
    assert capsys.readouterr().out.splitlines() == [
        "training: 8,012 of 8,012 (100%), epoch 1 of 30, 85 images/s",
        "downloading: 1,234,567, 12 MB/s",
    ]


def test_without_a_terminal_there_are_plain_lines(capsys: pytest.CaptureFixture[str]):
    with progress() as report:
        report("reading", 2, 2)
    assert capsys.readouterr().out == "reading: 2 of 2 (100%)\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_terminal_there_is_a_bar_for_each_name(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress() as report:
        report("reading", 0, 0)
        report("reading", 1, 4)
        report("training", 3, 4, "loss 0.5")
        report("reading", 4, 4)
    shown = terminal.getvalue()
    for words in ("reading", "100%", "training", " 75%", "loss 0.5"):
        assert words in shown
    assert "reading: 4 of 4" not in shown


def test_a_bar_does_not_go_into_a_file(monkeypatch: pytest.MonkeyPatch):
    file, terminal = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", file)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress() as report:
        report("reading", 4, 4)
    assert file.getvalue() == ""
    assert "reading" in terminal.getvalue()


def test_a_silent_report_says_nothing(capsys: pytest.CaptureFixture[str]):
    silent("reading", 1, 1, "detail")
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
