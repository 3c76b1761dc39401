import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cclnet.system.interruption import InterruptionError, interruptible

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_the_end_of_the_step(number: signal.Signals, status: int):
    with interruptible() as end_if_asked_to:
        end_if_asked_to()
        signal.raise_signal(number)
        done = True
        with pytest.raises(InterruptionError, match=f"ended by {number.name}; what is done is kept") as ended:
            end_if_asked_to()
    assert done
    assert ended.value.exit_status == status


@pytest.mark.parametrize("agreed", [0, signal.SIGTERM])
def test_what_all_agree_upon_counts(agreed: int):
    said = []

    def agree(number: int) -> int:
        said.append(number)
        return agreed

    with interruptible(agree) as end_if_asked_to:
        for _ in range(2):
            try:
                end_if_asked_to()
            except InterruptionError as ended:
                assert ended.exit_status == 128 + agreed
            else:
                assert agreed == 0
            if len(said) == 1:
                signal.raise_signal(signal.SIGINT)
    assert said == [0, signal.SIGINT]


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ZeroDivisionError), interruptible():
        assert signal.getsignal(signal.SIGINT) is not before[0]
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


STUCK = """
import time
from cclnet.interruption import interruptible
with interruptible():
    print("ready", flush=True)
    while True:
        time.sleep(0.05)
"""


def test_a_second_signal_does_not_wait():
    with subprocess.Popen([sys.executable, "-c", STUCK], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        time.sleep(0.3)
        assert process.poll() is None
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        process.kill()  # without effect on a process that has ended
    assert process.returncode == -signal.SIGTERM
