"""What a model file keeps besides plain weights; damaged files are in ``tests/training/test_states.py``."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from cclnet.networks.model_file import build_model, load_model, save_model
from cclnet.system.errors import CCLNetError
from tests.networks.builders import BACKBONE, description

CLASSES = description().classes


def test_tied_weights_are_saved_and_load_as_one_tensor(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model("timm/coat_lite_tiny", None, 32, len(CLASSES), with_head=True)
    weights = model.state_dict()
    assert len({tensor.data_ptr() for tensor in weights.values()}) < len(weights)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    nn.functional.cross_entropy(model(images), labels).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()

    save_model(tmp_path / "model", model.eval(), replace(description(), backbone="timm/coat_lite_tiny"))
    loaded, _ = load_model(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
    shared = {name: tensor.data_ptr() for name, tensor in loaded.state_dict().items()}
    assert len(set(shared.values())) == len({tensor.data_ptr() for tensor in weights.values()})


@pytest.mark.parametrize("converged_epoch", [None, 3])
def test_frozen_dictionary_stays_frozen_in_the_model_that_is_loaded(
    converged_epoch: int | None, tmp_path: Path
) -> None:
    model = build_model(BACKBONE, None, 32, len(CLASSES), with_head=True)
    assert model.head
    if converged_epoch:
        model.head.freeze_dictionary()
    save_model(tmp_path / "model", model, replace(description(), converged_epoch=converged_epoch))
    with safe_open(tmp_path / "model", framework="pt") as file:
        assert set(file.keys()) == {name for name in model.state_dict() if "extra_state" not in name}
    loaded, _ = load_model(tmp_path / "model")
    assert loaded.head
    assert loaded.head.frozen == (converged_epoch is not None)
    assert loaded.head.class_embeddings.requires_grad == (converged_epoch is None)


@pytest.mark.parametrize(
    ("value", "tensors"),
    [(float("nan"), ("classifier.bias",)), (float("inf"), ("head.class_embeddings", "classifier.bias"))],
)
def test_weights_that_are_no_numbers_are_refused(value: float, tensors: tuple[str, ...], tmp_path: Path) -> None:
    model = build_model(BACKBONE, None, 32, len(CLASSES), with_head=True)
    for name in tensors:
        model.state_dict()[name].view(-1)[-1] = value
    save_model(tmp_path / "model", model, description())
    with pytest.raises(CCLNetError) as caught:
        load_model(tmp_path / "model")
    assert str(caught.value) == (
        f"{tmp_path / 'model'} is not a model of this package, or is damaged: "
        f"{len(tensors)} of its tensors are not finite, such as classifier.bias"
    )


def test_a_description_that_makes_no_sense_is_refused_although_its_digest_is_right(tmp_path: Path) -> None:
    model = build_model(BACKBONE, None, 32, len(CLASSES), with_head=True)
    save_model(tmp_path / "model", model, replace(description(), crop=0, standard_deviation=[0.2, 0.2, 0.0]))
    with pytest.raises(
        CCLNetError, match=r"damaged: crop and short_side: 1 ≤ 0 ≤ 48 .*; standard_deviation is not pos"
    ):
        load_model(tmp_path / "model")


def test_a_pipe_is_no_model_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model")
    with pytest.raises(CCLNetError, match=r"model is no file, but a model of this package is one$"):
        load_model(tmp_path / "model")
