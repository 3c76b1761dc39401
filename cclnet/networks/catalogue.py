"""The names of the networks and weights of torchvision and timm; torch is imported only when one is looked up."""

from pathlib import Path
from types import ModuleType
from typing import Literal

from cclnet.system.errors import MissingPackageError, did_you_mean
from cclnet.system.workspace import user_path

TIMM = "timm/"
"""Prefix of the names of timm's models; torchvision's have none."""

PAPER_BACKBONES = ("resnet18", "mobilenet_v2", "efficientnet_b0")
"""The backbones of the paper's Table 1, all from torchvision."""


WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
"""Suffixes of files of weights; all but the first are read as a state dict of torch."""


def weights_file(weights: str | None) -> Path | None:
    """The file that the key ``weights`` refers to, None if it is the name of a library's weights.

    A relative path starts at the project's folder, see ``user_path``.
    """
    if weights is None or not weights.endswith(WEIGHTS_SUFFIXES):
        return None
    return user_path(weights)


def name_problems(backbone: str, weights: str | None) -> list[str]:
    """The problems with the names of a backbone and its weights; empty if the library knows both.

    Args:
        backbone: a name for ``build_backbone``.
        weights: the name of pretrained weights, or a file of weights, or None.
    """
    if backbone in PAPER_BACKBONES and weights is None:
        return []
    try:
        names = model_names(backbone)
    except MissingPackageError as error:
        return [str(error)]
    if backbone not in names:
        return [f"backbone: {library(backbone)} has no {backbone!r}{did_you_mean(backbone, names)}"]
    if weights is not None and not weights_file(weights) and weights not in weight_names(backbone):
        known = weight_names(backbone) or ["null"]
        return [f"weights: {backbone} has no {weights!r}, only {', '.join(known)}{did_you_mean(weights, known)}"]
    return []


def library(name: str) -> Literal["torchvision", "timm"]:
    """The package that a model's name belongs to."""
    return "timm" if name.startswith(TIMM) else "torchvision"


def model_names(name: str) -> list[str]:
    """The sorted names of all models in the library that this name belongs to."""
    if library(name) == "torchvision":
        from torchvision import models

        return models.list_models(module=models)
    timm = timm_package(name)
    return sorted(f"{TIMM}{model}" for model in [*timm.list_models(), *timm.list_pretrained()])


def weight_names(name: str) -> list[str]:
    """The names of the pretrained weights of a model; if there are any, ``DEFAULT`` is one of them."""
    if library(name) == "torchvision":
        from torchvision import models

        return list(models.get_model_weights(name).__members__)
    return ["DEFAULT"] if timm_package(name).models.is_model_pretrained(name.removeprefix(TIMM)) else []


def timm_package(name: str) -> ModuleType:
    """Import the package timm, which the model of this name needs.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"backbone: {name}", error, "timm") from None
    return timm
