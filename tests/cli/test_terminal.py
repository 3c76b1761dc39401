import io
import os
import sys

import pytest
from rich.console import Console

from cclnet.cli import terminal as screen
from cclnet.cli.model import show_matrix
from cclnet.views.figures import is_dark
from tests.cli.builders import BALANCED


@pytest.mark.parametrize("value", [0.0, 0.3, 0.49, 0.7, 1.0])
def test_cells_can_be_read_in_any_colour(value: float):
    style = screen.coloured(value)
    assert style.bgcolor and style.color and style.bgcolor.triplet and style.color.triplet
    background = [channel / 255 for channel in style.bgcolor.triplet]
    assert set(style.color.triplet) == ({255} if is_dark(*background) else {0})


@pytest.mark.parametrize("terminal", [True, False])
def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch, terminal: bool):
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    file = io.StringIO()
    show_matrix(Console(file=file, force_terminal=terminal), BALANCED)
    assert ("\x1b[" in file.getvalue()) == terminal


def test_without_a_terminal_the_screen_is_as_wide_as_its_tables(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert screen.screen().width == screen.UNBOUNDED
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert screen.screen().width == 40


def test_a_reader_that_is_gone_is_an_error_for_the_whole_program(monkeypatch: pytest.MonkeyPatch):
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writing, "w"))
    with pytest.raises(BrokenPipeError):
        screen.say(screen.screen(), "nobody reads this")
    with pytest.raises(BrokenPipeError):
        sys.stdout.close()
