"""Several processes beside one."""

import pytest

from benchmarks.questions import processes
from tests.benchmarks.builders import IN_SMALL


def test_processes_stand_beside_what_one_would_do_as_often(monkeypatch: pytest.MonkeyPatch):
    speeds = {"one": [10.0, 12.0, 11.0], "together": [18.0, 19.0, 20.0], "apart": [21.0, 22.0, 20.0]}
    monkeypatch.setattr(processes, "in_processes", lambda folder, case, repetitions: speeds)
    exchange, together, apart = processes.run(IN_SMALL)
    assert (together.ratio, apart.ratio, exchange.ratio) == (19 / 22, 21 / 22, 19 / 21)
    assert (exchange.met, together.met, apart.met) == (False, None, None)
