"""A trained network as one file: its weights and everything else that prediction needs."""

import hashlib
import json
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cclnet.ccl import CCLHead
from cclnet.images.augmentation import Normalization, memory_layout
from cclnet.networks.backbones import build_backbone
from cclnet.networks.model import CCLNet
from cclnet.system.errors import CCLNetError, MissingPackageError
from cclnet.system.files import write_bytes


@dataclass(frozen=True)
class ModelDescription:
    """The description of a model that its file contains.

    Attributes:
        classes: the classes in the order of the outputs.
        backbone: its name in ``build_backbone``.
        method: the training method; only ``ccl`` has a head.
        short_side, crop: pixels; images are resized to the first and cropped to the second.
        mean, standard_deviation: normalisation of values in [0, 1], per channel.
        label_matrix: the labels that trained the classifier, with row k for class k: soft or hard labels.
        softness: p̄ of that matrix.
        softness_epoch: the epoch of the dictionary, None without a head.
        lowest_softness_epoch: the epoch of the lowest p̄ before the dictionary was frozen, None without a head or rule.
        converged_epoch: the epoch in which the dictionary was frozen, None if it was not.
        params: all params of the train stage.
        ran_on: what else the result depends on.
        version: version of this package.
    """

    classes: list[str]
    backbone: str
    method: str
    short_side: int
    crop: int
    mean: list[float]
    standard_deviation: list[float]
    label_matrix: list[list[float]]
    softness: float
    softness_epoch: int | None
    lowest_softness_epoch: int | None
    converged_epoch: int | None
    params: dict[str, Any]
    ran_on: dict[str, Any]
    version: str

    @property
    def normalization(self) -> Normalization:
        """The normalisation of the training images."""
        return Normalization(tuple(self.mean), tuple(self.standard_deviation))

    @property
    def layout(self) -> torch.memory_format:
        """The memory layout of images and weights in training; another layout may round differently."""
        return memory_layout(self.params.get("memory_format", "contiguous"))


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
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads(file.metadata()[_METADATA_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if values.pop(_DIGEST) != _digest(values, tensors):
            raise CCLNetError("its contents are not those that were saved")
        description = ModelDescription(**values)
        settings = description.params.get("head", description.params)  # older files have no group `head`
        head = {name: settings[name] for name in ("margin", "temperature")}
        num_classes, with_head = len(description.classes), description.method == "ccl"
        model = build_model(description.backbone, None, description.crop, num_classes, with_head, **head)
        model.load_state_dict(tensors)
        if model.head and description.converged_epoch is not None:
            model.head.freeze_dictionary()
    except MissingPackageError:
        raise
    except FileNotFoundError:
        raise CCLNetError(f"there is no model {path}; train one first") from None
    except (CCLNetError, SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = textwrap.shorten(str(error), width=200)
        raise CCLNetError(f"{path} is not a model of this package, or is damaged: {reason}") from None
    return model.eval(), description


def build_model(
    backbone: str, weights: str | None, image_size: int, num_classes: int, with_head: bool, **head: Any
) -> CCLNet:
    """Build a backbone by name with its classifier and, optionally, a CCL head (with the arguments ``head``)."""
    network, num_features = build_backbone(backbone, weights, image_size)
    model = CCLNet(network, num_features, num_classes)
    if with_head:  # initialised last, so that with one seed all methods start from the same backbone and classifier
        model.head = CCLHead(num_features, num_classes, **head)
    return model
