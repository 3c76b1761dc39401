"""What a model file keeps besides plain weights; damaged files are in ``tests/training/test_states.py``."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from cclnet.networks.model import CCLNet, build_model, load_model
from cclnet.networks.model_file import save_model
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


# CCLNet.from_pretrained


@pytest.mark.parametrize("name", ["model.safetensors", "models/model.safetensors"])
def test_a_network_loads_from_its_file_and_from_its_folder(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model(BACKBONE, None, 32, len(CLASSES), with_head=True).eval()
    save_model(tmp_path / name, model, description())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = nn.functional.linear(model.backbone(images), model.classifier.weight, model.classifier.bias)
    for source in (tmp_path / name, str(tmp_path), tmp_path):
        loaded = CCLNet.from_pretrained(source)
        assert not loaded.training
        assert loaded.description == description()
        with torch.no_grad():
            assert torch.equal(loaded(images), expected)


def test_the_folder_s_own_model_comes_before_that_of_models(tmp_path: Path) -> None:
    model = build_model(BACKBONE, None, 32, len(CLASSES), with_head=True)
    for name, version in (("model.safetensors", "1"), ("models/model.safetensors", "2")):
        save_model(tmp_path / name, model, replace(description(), version=version))
    described = CCLNet.from_pretrained(tmp_path).description
    assert described and described.version == "1"


def test_what_cannot_be_loaded_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no model", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("none", f"there is no model {tmp_path / 'none'}; train one first"),
        ("text", f"{tmp_path / 'text'} is not a model of this package, or is damaged: "),
        (
            "empty",
            f"{tmp_path / 'empty'} has no model: model.safetensors and models/model.safetensors are missing; "
            "train one first",
        ),
    ):
        with pytest.raises(CCLNetError) as caught:
            CCLNet.from_pretrained(tmp_path / name)
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)


def test_a_network_of_the_user_s_own_has_no_description() -> None:
    assert CCLNet(nn.Flatten(), 12, 3).description is None
