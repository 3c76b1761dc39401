"""``CCLLoss`` in Lightning, transformers and timm: the examples, run as a user runs them, by ``make hosts``.

Not collected by a plain ``pytest``: the frameworks have an environment of their own, ``.venv-hosts``, in which the
project's wheel is installed. Under torchrun this file is what each of two processes runs.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
EPOCHS = 8
FROZEN_AFTER = 4

State = dict[str, Tensor]


def in_lightning(folder: Path) -> State:
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


def in_transformers(folder: Path) -> State:
    newest = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.removeprefix("checkpoint-")))
    return load_file(newest / "model.safetensors")


def in_timm(folder: Path) -> State:
    saved = torch.load(folder / "last.pth.tar", weights_only=True)
    return saved["state_dict"] | {f"criterion.{name}": tensor for name, tensor in saved["task_state"].items()}


CHECKPOINT_OF: dict[str, Callable[[Path], State]] = {
    "lightning_digits": in_lightning,
    "hugging_face_digits": in_transformers,
    "timm_digits": in_timm,
}


def python(*arguments: object) -> str:
    """What a command prints that this environment's interpreter ran, without anything that names the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, *map(str, arguments)]
    finished = subprocess.run(command, cwd="/", env=kept, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def train(example: str, folder: Path, epochs: int) -> str:
    return python(EXAMPLES / f"{example}.py", folder, epochs)


def accuracy(printed: str) -> float:
    (value,) = re.findall(r"^accuracy on held-out digits +(\S+)$", printed, re.MULTILINE)  # and not one of each process
    return float(value)


def count(state: State) -> tuple[int, int]:
    """Epochs, and the epoch after which the dictionary froze or 0, as the checkpoint has them."""
    epoch, *_, converged_epoch = state["criterion.freezing._extra_state"].tolist()
    assert bool(state["criterion.head._extra_state"]) == (converged_epoch > 0)
    return int(epoch), int(converged_epoch)


def different(a: State, b: State) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


@pytest.fixture(scope="module", params=CHECKPOINT_OF)
def example(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(example: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a whole run, and what it printed."""
    folder = tmp_path_factory.mktemp(example)
    return folder, train(example, folder, EPOCHS)


def test_the_wheel_is_what_is_used() -> None:
    assert Path(python("-c", "import cclnet; print(cclnet.__file__)")).is_relative_to(sys.prefix)


def test_held_out_digits_are_recognized(uninterrupted: tuple[Path, str]) -> None:
    assert accuracy(uninterrupted[1]) >= 0.9


@pytest.mark.parametrize("interrupted_after", [2, 4], ids=["before the freeze", "at the freeze"])
def test_a_resumed_run_ends_like_the_uninterrupted_one(
    example: str, interrupted_after: int, uninterrupted: tuple[Path, str], tmp_path: Path
) -> None:
    checkpoint = CHECKPOINT_OF[example]
    train(example, tmp_path, interrupted_after)
    assert count(checkpoint(tmp_path)) == (interrupted_after, FROZEN_AFTER * (interrupted_after == FROZEN_AFTER))
    train(example, tmp_path, EPOCHS)
    assert count(checkpoint(tmp_path)) == (EPOCHS, FROZEN_AFTER)
    assert different(checkpoint(tmp_path), checkpoint(uninterrupted[0])) == []


def test_two_processes_hold_the_same_parameters_after_the_freeze(example: str, tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    assert accuracy(python(*torchrun, __file__, example, tmp_path, EPOCHS)) >= 0.9
    first, second = (torch.load(tmp_path / f"process {rank}", weights_only=True) for rank in "01")
    assert different(first, second) == []
    assert [bool(value) for name, value in first.items() if name.endswith("head._extra_state")] == [True]


SETTINGS = [
    ("lightning_digits", "Trainer", {"precision": "bf16-mixed"}),
    ("lightning_digits", "Trainer", {"accumulate_grad_batches": 2}),
    ("hugging_face_digits", "TrainingArguments", {"bf16": True}),
    ("hugging_face_digits", "TrainingArguments", {"gradient_accumulation_steps": 2}),
    ("hugging_face_digits", "TrainingArguments", {"torch_compile": True, "torch_compile_backend": "aot_eager"}),
]


@pytest.mark.parametrize(("example", "configured", "settings"), SETTINGS, ids=str)
def test_mixed_precision_accumulation_and_compilation_need_nothing_more(
    example: str, configured: str, settings: dict[str, object], tmp_path: Path
) -> None:
    code = (
        "import functools, pathlib, sys\n"
        f"sys.path.insert(0, {str(EXAMPLES)!r})\n"
        f"import {example} as example\n"
        f"example.{configured} = functools.partial(example.{configured}, **{settings!r})\n"
        f"example.main(pathlib.Path({str(tmp_path)!r}), {EPOCHS})"
    )
    assert accuracy(python("-c", code)) >= 0.9
    assert count(CHECKPOINT_OF[example](tmp_path))[0] == EPOCHS


def one_of_two_processes(example: str, folder: Path, epochs: int) -> None:
    """Run the example and leave the parameters that this process holds at its end, and whether they are frozen.

    Not the running statistics: those of the last step are each process's own.
    """
    sys.path.insert(0, str(EXAMPLES))
    trained = import_module(example).main(folder, epochs)
    found = {name: parameter.detach() for name, parameter in trained.named_parameters()}
    found |= {name: tensor for name, tensor in trained.state_dict().items() if name.endswith("_extra_state")}
    torch.save(found, folder / f"process {os.environ['RANK']}")


if __name__ == "__main__":
    one_of_two_processes(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
