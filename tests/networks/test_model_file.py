"""What a model file keeps besides plain weights; damaged files are in ``tests/training/test_states.py``."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from cclnet.networks.model_file import ModelDescription, build_model, load_model, save_model

CLASSES = ["MEL", "NV", "BCC"]


def description(backbone: str, **changes: Any) -> ModelDescription:
    values: dict[str, Any] = dict.fromkeys(field.name for field in fields(ModelDescription))
    values |= {"backbone": backbone, "classes": CLASSES, "method": "ccl", "crop": 32}
    values |= {"params": {"margin": 2.0, "temperature": 1.0}} | changes
    return ModelDescription(**values)


def test_tied_weights_are_saved_and_load_as_one_tensor(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model("timm/coat_lite_tiny", None, 32, len(CLASSES), with_head=True)
    weights = model.state_dict()
    assert len({tensor.data_ptr() for tensor in weights.values()}) < len(weights)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    nn.functional.cross_entropy(model(images), labels).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()

    save_model(tmp_path / "model", model.eval(), description("timm/coat_lite_tiny"))
    loaded, _ = load_model(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
    shared = {name: tensor.data_ptr() for name, tensor in loaded.state_dict().items()}
    assert len(set(shared.values())) == len({tensor.data_ptr() for tensor in weights.values()})


@pytest.mark.parametrize("converged_epoch", [None, 3])
def test_frozen_dictionary_stays_frozen_in_the_model_that_is_loaded(
    converged_epoch: int | None, tmp_path: Path
) -> None:
    model = build_model("shufflenet_v2_x0_5", None, 32, len(CLASSES), with_head=True)
    assert model.head
    if converged_epoch:
        model.head.freeze_dictionary()
    save_model(tmp_path / "model", model, description("shufflenet_v2_x0_5", converged_epoch=converged_epoch))
    with safe_open(tmp_path / "model", framework="pt") as file:
        assert set(file.keys()) == {name for name in model.state_dict() if "extra_state" not in name}
    loaded, _ = load_model(tmp_path / "model")
    assert loaded.head
    assert loaded.head.frozen == (converged_epoch is not None)
    assert loaded.head.class_embeddings.requires_grad == (converged_epoch is None)
