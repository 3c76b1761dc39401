import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cclnet.networks.pretrained import file_digest, misfits, read_weights
from cclnet.system.errors import CCLNetError

TENSORS = {"conv.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(1), "steps": torch.tensor(3)}


def save_in_the_old_format(tensors: dict[str, Tensor], file: Path) -> None:
    torch.save(tensors, file, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("name", "save"),
    [("a.safetensors", save_file), ("a.pt", torch.save), ("a.pth", torch.save), ("a.bin", save_in_the_old_format)],
)
def test_a_file_gives_the_tensors_that_were_saved(tmp_path: Path, name: str, save: Callable[..., None]) -> None:
    save(TENSORS, tmp_path / name)
    found = read_weights(tmp_path / name)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in TENSORS.items())


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"abc" * 10_000)
    assert file_digest(tmp_path / "a.pt") == hashlib.sha256(b"abc" * 10_000).hexdigest()


class Harmful:
    """Unpickled, it would write a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def saved(content: Any, file: Path) -> bytes:
    torch.save(content, file)
    return file.read_bytes()


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_what_is_no_weights_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(TENSORS, file)
    whole = file.read_bytes()
    with pytest.raises(CCLNetError, match=rf"^weights: there is no file {tmp_path}/missing-{name}; a relative path"):
        read_weights(tmp_path / f"missing-{name}")
    with pytest.raises(CCLNetError, match=r"^weights: there is no file"):
        read_weights(tmp_path)
    harmful = saved({"a": Harmful(tmp_path / "harm")}, tmp_path / "harmful.pt")
    plain = pickle.dumps(Harmful(tmp_path / "harm"))
    for content in (b"", b"<html>", whole[:-7], whole[:40], b"\xff" * 100, harmful, plain):
        file.write_bytes(content)
        with pytest.raises(CCLNetError) as caught:
            read_weights(file)
        assert str(caught.value).startswith(f"weights: {file} is damaged, or holds no weights (")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([torch.zeros(1)], "holds no table of tensors"),
        ({}, "holds no table of tensors"),
        ({"epoch": 3, "model": {"a": torch.zeros(1)}}, r"holds what are no tensors \(epoch, model\)"),
    ],
)
def test_a_file_of_other_things_is_refused(tmp_path: Path, content: Any, problem: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CCLNetError, match=rf"^weights: {tmp_path}/a\.pt {problem}"):
        read_weights(tmp_path / "a.pt")


# what fits


def tensors(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """Empty ones; ``__`` stands for a dot."""
    return {name.replace("__", "."): torch.empty(shape) for name, shape in shapes.items()}


BACKBONE = tensors(conv__weight=(8, 3, 5, 5), bn__num_batches_tracked=())
NETWORK = BACKBONE | tensors(head__fc__weight=(1000, 8), head__fc__bias=(1000,))


@pytest.mark.parametrize(
    "given",
    [
        NETWORK,
        BACKBONE,
        tensors(conv__weight=(8, 3, 5, 5)),
        BACKBONE | tensors(head__fc__weight=(7, 8)),
        BACKBONE | tensors(head__fc__1__weight=(7, 4), head__fc__0__weight=(4, 8)),
    ],
)
def test_a_classifier_may_be_of_other_classes_or_not_there(given: dict[str, Tensor]) -> None:
    assert misfits(given, BACKBONE, NETWORK) == ""


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "1 missing: conv.weight"),
        (NETWORK | tensors(fc__weight=(2,)), "1 unknown: fc.weight"),
        (NETWORK | tensors(conv__weight=(8, 3, 3, 3)), "1 of another shape: conv.weight (8×3×3×3, not 8×3×5×5)"),
        (
            tensors(bn__num_batches_tracked=(1,), a=(), b=(), c=(), d=(), e=()),
            "1 missing: conv.weight; 5 unknown: a, b, c and 2 more; 1 of another shape: bn.num_batches_tracked "
            "(1, not a single value)",
        ),
    ],
)
def test_all_that_does_not_fit_is_told_in_short(given: dict[str, Tensor], problem: str) -> None:
    assert misfits(given, BACKBONE, NETWORK) == problem


def test_names_of_tensors_do_not_steer_the_terminal_or_break_the_line():
    given = {"\x1b[2Jconv\n.weight": torch.zeros(1), "x " * 3000: torch.zeros(1)}
    problem = misfits(given, {"a": torch.zeros(1)}, {"a": torch.zeros(1)})
    assert problem == r"1 missing: a; 2 unknown: '\x1b[2Jconv .weight', " + "x " * 47 + "[...]"
