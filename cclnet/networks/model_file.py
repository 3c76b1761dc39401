"""A trained network as one file: its weights and everything else that prediction needs."""

import hashlib
import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cclnet.ccl import CCLHead
from cclnet.networks.backbones import build_backbone
from cclnet.networks.model import CCLNet
from cclnet.networks.model_description import ModelDescription, description_problems
from cclnet.system.errors import CCLNetError, MissingPackageError, exhausted
from cclnet.system.files import write_bytes

_METADATA_KEY = "cclnet"  # a single key: safetensors writes several in random order
_DIGEST = "sha256"  # safetensors itself does not detect a flipped bit


def save_model(path: Path, model: CCLNet, description: ModelDescription) -> None:
    """Write the network and its description to a safetensors file; the same content gives the same bytes."""
    tensors = _own_tensors(model)
    values = asdict(description)
    metadata = json.dumps(values | {_DIGEST: _digest(values, tensors)}, sort_keys=True, allow_nan=False)
    write_bytes(path, save(tensors, metadata={_METADATA_KEY: metadata}))


def _own_tensors(model: CCLNet) -> dict[str, torch.Tensor]:
    """All weights and statistics by name, each with its own memory, because safetensors refuses tied weights.

    Whether the dictionary is frozen is left out; the description's ``converged_epoch`` contains it.
    """
    tensors: dict[str, torch.Tensor] = {}
    memory: set[int] = set()
    for name, tensor in model.state_dict().items():
        if name.endswith("_extra_state"):
            continue
        own = tensor.detach().cpu().contiguous()
        tensors[name] = own.clone() if own.untyped_storage().data_ptr() in memory else own
        memory.add(own.untyped_storage().data_ptr())
    return tensors


def _digest(description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    text = json.dumps(description, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode() + save(tensors)).hexdigest()


def load_model(path: Path) -> tuple[CCLNet, ModelDescription]:
    """Rebuild the network of ``save_model``, on the CPU and ready for prediction.

    Raises:
        MissingPackageError: its backbone needs timm, which is not installed.
        CCLNetError: the file is missing, damaged, or not such a model.
    """
    if path.exists() and not path.is_file():  # opening a pipe could wait for ever
        raise CCLNetError(f"{path} is no file, but a model of this package is one")
    try:
        description, tensors = _read(path)
        num_classes, with_head = len(description.classes), description.has_head
        head = description.head_settings if with_head else {}
        model = build_model(description.backbone, None, description.crop, num_classes, with_head, **head)
        model.load_state_dict(tensors)
        _require_numbers(model)
        if model.head and description.converged_epoch is not None:
            model.head.freeze_dictionary()
    except MissingPackageError:
        raise
    except FileNotFoundError:
        raise CCLNetError(f"there is no model {path}; train one first") from None
    except (CCLNetError, SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if exhausted(error):
            raise
        reason = textwrap.shorten(str(error), width=LONGEST_REASON)
        raise CCLNetError(f"{path} is not a model of this package, or is damaged: {reason}") from None
    return model.eval(), description


LONGEST_REASON = 400
"""Characters of what is said to be wrong with a file."""


def _read(path: Path) -> tuple[ModelDescription, dict[str, torch.Tensor]]:
    """What a file says of its model, once that is known to make sense, and the tensors, once they are those saved.

    Raises:
        CCLNetError: with everything that is wrong with the description, or the digest is another.
        SafetensorError, OSError, KeyError, ValueError, RuntimeError: it is no such file.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if _METADATA_KEY not in metadata:
            raise CCLNetError("it says nothing about the model that it holds")
        values = json.loads(metadata[_METADATA_KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    digest = values.pop(_DIGEST, None) if isinstance(values, dict) else None
    if problems := description_problems(values):
        raise CCLNetError("; ".join(problems))
    if digest != _digest(values, tensors):
        raise CCLNetError("its contents are not those that were saved")
    return ModelDescription(**values), tensors


def _require_numbers(model: CCLNet) -> None:
    """Refuse weights from which nothing can be predicted: every image would be of the first class."""
    weights = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, torch.Tensor)}
    if odd := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        raise CCLNetError(f"{len(odd)} of its tensors are not finite, such as {odd[0]}")


def build_model(
    backbone: str, weights: str | None, image_size: int, num_classes: int, with_head: bool, **head: Any
) -> CCLNet:
    """Build a backbone by name with its classifier and, optionally, a CCL head (with the arguments ``head``)."""
    network, num_features = build_backbone(backbone, weights, image_size)
    model = CCLNet(network, num_features, num_classes)
    if with_head:  # initialised last, so that with one seed all methods start from the same backbone and classifier
        model.head = CCLHead(num_features, num_classes, **head)
    return model
