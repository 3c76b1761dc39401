"""The arguments and options that several commands share."""

from pathlib import Path

import pytest
import torch

from cclnet.cli.options import Device, Runtime

PREDICT = ["predict", "model", "in.zip"]
EVALUATE = ["evaluate", "model", "--images", "in.zip", "--labels", "truth.csv"]
SIMILAR = ["similar", "features.npz"]
DEVICES = ["auto", "cpu", "cuda", "mps"]
RUNTIMES = ["torch", "onnxruntime"]


def test_each_name_is_said_as_it_is_written():
    assert [str(device) for device in Device] == DEVICES
    assert [str(runtime) for runtime in Runtime] == RUNTIMES


@pytest.mark.parametrize(
    ("command", "option", "known"),
    [
        (PREDICT, "--device", DEVICES),
        (EVALUATE, "--device", DEVICES),
        (SIMILAR, "--device", DEVICES),
        (PREDICT, "--runtime", RUNTIMES),
        (EVALUATE, "--runtime", RUNTIMES),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_another_name_is_refused_and_the_known_ones_are_listed(run, command: list[str], option: str, known: list[str]):
    status, out, err = run(*command, option, "abacus")
    assert (status, out) == (2, "")
    assert option in err
    assert all(f"'{name}'" in err for name in ("abacus", *known))


@pytest.mark.parametrize("command", [PREDICT, EVALUATE], ids=lambda command: command[0])
def test_a_gpu_of_apple_is_asked_for_in_vain_here(
    run, model: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    said = "cclnet: device: mps is asked for, and torch sees no GPU of Apple; set device: auto or cpu\n"
    assert run(*command, "--device", "mps") == (1, "", said)
