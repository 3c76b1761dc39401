"""Any classification model of torchvision or timm as a backbone that returns one feature vector per image."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision import models

from cclnet.networks.catalogue import TIMM, library, model_names, timm_package, weight_names, weights_file
from cclnet.networks.pretrained import misfits, read_weights
from cclnet.system.errors import CCLNetError, exhausted
from cclnet.system.machine import Processor, processor_name

_LARGE = 96
"""Pixels of a large image; below them, ResNet-18 was faster with contiguous memory on an Intel processor."""


def build_backbone(name: str, weights: str | None = None, image_size: int | None = None) -> tuple[nn.Module, int]:
    """Build a network without its last linear layer; return it and its number of features n1.

    Layers between the pooling and the last layer of the original network (for example MobileNetV2's dropout) stay part
    of the backbone.

    Args:
        name: a classification model of torchvision (``resnet18``, ``mobilenet_v2``, ``efficientnet_b0``, …) or, if the
            package is installed, of timm (``timm/convnext_atto``, ``timm/convnext_atto.d2_in1k``, …).
        weights: None to train from scratch, the name of pretrained weights (torchvision's: ``DEFAULT``,
            ``IMAGENET1K_V1``, …; for a model of timm only ``DEFAULT``), or the path of a file that contains them, see
            ``pretrained``. ``pretrained_constants`` returns the normalisation of the images for these weights.
        image_size: side of the square images in pixels. Models that are built for a fixed size (ViT, …) are built for
            this one, or for their default size if it is not given.

    Raises:
        MissingPackageError: timm is not installed.
        CCLNetError: the model or its weights are unknown, the weights cannot be loaded or do not fit, the model does
            not accept images of this size, its classifier is not a single linear layer, or its features are not one
            vector per image.
    """
    if name not in model_names(name):
        raise CCLNetError(f"backbone: {library(name)} has no classification model {name!r}")
    file = weights_file(weights)
    if weights is not None and not file and weights not in weight_names(name):
        raise CCLNetError(f"weights: {library(name)} has no weights {weights!r} for {name}")
    build = _timm_network if library(name) == "timm" else _torchvision_network
    try:
        given = fitting_weights(name, file, image_size) if file else None
        network, own_size = build(name, given or weights, image_size)
    except (OSError, RuntimeError) as error:
        raise _refusal(
            error,
            f"weights: those of {name} cannot be loaded ({_in_short(error)}); connect to the network, or train from "
            "scratch (weights: null)",
        ) from None
    except (AssertionError, ValueError) as error:
        raise _unfit(name, image_size, error) from None
    return network, _num_features(network, name, image_size or own_size)


def fitting_weights(name: str, file: Path, image_size: int | None = None) -> dict[str, Tensor]:
    """Read the tensors of a file and check that they fit a model.

    Args:
        name: a model that ``build_backbone`` knows.
        file: the file with its weights.
        image_size: side of the square images in pixels.

    Raises:
        CCLNetError: the file cannot be read, or tensors are missing, unknown or of another shape. The classifier's
            tensors are not checked.
    """
    tensors = read_weights(file)
    try:
        with torch.device("meta"):  # shapes only, which takes no memory and no time
            backbone, network = _tensors(name, image_size)
    except (NotImplementedError, RuntimeError):  # a model that computes with values while it is built
        backbone, network = _tensors(name, image_size)
    if problem := misfits(tensors, backbone, network):
        raise CCLNetError(f"weights: {file} does not fit {name}; {problem}")
    return tensors


def _tensors(name: str, image_size: int | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of the backbone and those of the whole network, by name."""
    if library(name) == "timm":
        timm, model = timm_package(name), name.removeprefix(TIMM)
        return timm.create_model(model, num_classes=0).state_dict(), timm.create_model(model).state_dict()
    network = models.get_model(name, weights=None, **_torchvision_options(name, image_size))
    whole = network.state_dict()
    return _cut(network, name).state_dict(), whole


def pretrained_constants(name: str, weights: str | None) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation per channel, for values in [0, 1], that pretrained weights expect.

    For weights from a file, the constants of the library's own weights for the model are used: timm's
    ``pretrained_cfg`` or torchvision's ``DEFAULT``. None for training from scratch, and if the library does not specify
    them.
    """
    if weights is None:
        return None
    if library(name) == "timm":
        published = timm_package(name).models.get_pretrained_cfg(name.removeprefix(TIMM))
    elif name in _NORMALISES_ITSELF:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    else:
        known = models.get_model_weights(name).__members__
        chosen = known.get("DEFAULT" if weights_file(weights) else weights)
        published = chosen and chosen.value.transforms()
    return (tuple(published.mean), tuple(published.std)) if published else None


def compile_backbone(backbone: nn.Module, device: torch.device) -> None:
    """Compile a backbone in place on its first use: once per batch size, about 30 seconds each.

    Raises:
        CCLNetError: no compiler for this device is installed.
    """
    try:
        torch.compile(torch.sin)(torch.zeros(1, device=device))
    except RuntimeError as error:  # raised by torch._dynamo
        raise _refusal(
            error,
            f"computation.compile: torch cannot compile here ({_in_short(error)}); install a C++ compiler, "
            "or set it to false",
        ) from None
    backbone.compile(dynamic=False)  # full batches and the last one, independent of their order


def faster_memory_format(
    backbone: nn.Module, image_size: int, device: torch.device, processor: Processor
) -> Literal["contiguous", "channels_last"]:
    """The memory format in which a network was measured to train faster (``docs/evidence/performance.md``).

    It is channels last, except for networks without depthwise convolutions on small images on Intel's processors. For
    ``portable`` arithmetic it does not depend on the machine.

    Args:
        backbone: the network.
        image_size: side of the square images in pixels.
        device: where it will be trained.
        processor: the kernels of the CPU, see ``prepare_processor``.
    """
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    depthwise = any(layer.groups == layer.in_channels > 1 for layer in convolutions)
    intel = processor == "native" and device.type == "cpu" and "Intel" in processor_name()
    return "contiguous" if intel and not depthwise and image_size < _LARGE else "channels_last"


def synchronise_batch_norm(model: nn.Module, name: str) -> None:
    """Synchronise a model's batch normalisation over all processes, which is possible only on GPUs.

    Args:
        model: a network that contains the backbone; its layers are replaced.
        name: the backbone's name; timm has its own batch normalisation layers.
    """
    timm_s = library(name) == "timm"
    convert = timm_package(name).layers.convert_sync_batchnorm if timm_s else nn.SyncBatchNorm.convert_sync_batchnorm
    convert(model)


Weights = str | Mapping[str, Tensor] | None
"""The name of pretrained weights, the tensors of a file, or none."""


def _torchvision_network(name: str, weights: Weights, image_size: int | None) -> tuple[nn.Module, int]:
    """The network and an image size that it accepts."""
    named = weights if isinstance(weights, str) else None
    network = models.get_model(name, weights=named, **_torchvision_options(name, image_size, named))
    if name in _NORMALISES_ITSELF:  # set with pretrained weights only, which a saved model does not record
        setattr(network, "transform_input", False)  # noqa: B010 - as below
    _cut(network, name)
    if isinstance(weights, Mapping):
        network.load_state_dict(weights, strict=False)
    return network, _IMAGENET_SIZE


def _torchvision_options(name: str, image_size: int | None, weights: str | None = None) -> dict[str, Any]:
    options: dict[str, Any] = {"init_weights": True} if weights is None and name in _NORMALISES_ITSELF else {}
    if image_size and name.startswith("vit"):
        options["image_size"] = image_size
    if image_size and name.startswith("maxvit"):
        options["input_size"] = (image_size, image_size)
    return options


def _cut(network: nn.Module, name: str) -> nn.Module:
    """Remove the classifier of a torchvision network, and its auxiliary classifiers."""
    if getattr(network, "aux_logits", False):  # in training, auxiliary classifiers would add their own outputs
        setattr(network, "aux_logits", False)  # noqa: B010 - a plain attribute, unknown to nn.Module's types
        for auxiliary in {"AuxLogits", "aux1", "aux2"} & set(dict(network.named_children())):
            setattr(network, auxiliary, None)
    linear_layers = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear_layers or linear_layers[-1][1].out_features != _IMAGENET_CLASSES:
        raise CCLNetError(f"backbone: {name} does not end in a linear layer, so the head has no features to work on")
    network.set_submodule(linear_layers[-1][0], nn.Identity())
    return network


def _timm_network(name: str, weights: Weights, image_size: int | None) -> tuple[nn.Module, int]:
    """The network and the image size that it was published for."""
    timm, model = timm_package(name), name.removeprefix(TIMM)
    published = timm.models.get_pretrained_cfg(model)
    options: dict[str, Any] = {"img_size": image_size} if image_size and published.fixed_input_size else {}
    if isinstance(weights, Mapping):  # timm adapts position embeddings to the image size
        options["pretrained_cfg_overlay"] = {"state_dict": dict(weights)}
    network = timm.create_model(model, pretrained=weights is not None, num_classes=0, **options)
    for config in (network.pretrained_cfg, network.default_cfg):
        config.pop("state_dict", None)
    return network, published.input_size[-1]


@torch.no_grad()
def _num_features(network: nn.Module, name: str, image_size: int) -> int:
    """n1, taken from the network's output, because its own attribute is not always correct."""
    try:
        features = network.eval()(torch.zeros(1, 3, image_size, image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _unfit(name, image_size, error) from None
    network.train()
    if not isinstance(features, Tensor) or features.ndim != 2:
        given = f"of shape {tuple(features.shape)}" if isinstance(features, Tensor) else f"as {type(features).__name__}"
        raise CCLNetError(
            f"backbone: {name} gives the features of one image {given}, not one vector of shape (1, n1); choose another"
        )
    return features.shape[1]


def _unfit(name: str, image_size: int | None, error: Exception) -> Exception:
    return _refusal(
        error,
        f"backbone: {name} does not take images of {image_size} pixels ({_in_short(error)}); choose another crop or "
        "backbone",
    )


def _refusal(error: Exception, message: str) -> Exception:
    """A user error with this message; out-of-memory errors are returned unchanged, as they have their own."""
    return error if exhausted(error) else CCLNetError(message)


def _in_short(error: Exception) -> str:
    return textwrap.shorten(str(error), width=200) or type(error).__name__


_IMAGENET_CLASSES = 1000
_IMAGENET_SIZE = 224

_NORMALISES_ITSELF = ("googlenet", "inception_v3")
"""With pretrained weights, these networks replace ImageNet's normalisation by (value − .5) / .5. Without, they warn
that the default of ``init_weights`` will change."""
