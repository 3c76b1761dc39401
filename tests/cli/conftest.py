"""Commands run in this process."""

from pathlib import Path
from typing import NamedTuple

import pytest

from cclnet.__main__ import main


class Ended(NamedTuple):
    """How a command ended, and what it printed."""

    status: object
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run a command in this process."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # NumPy is loaded already: too late to set it

    def run(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Ended(ended.value.code, printed.out, printed.err)

    return run
