"""The names of the networks and weights that torchvision and timm offer; torch is imported only to look one up."""

from pathlib import Path
from types import ModuleType
from typing import Literal

from cclnet.system.errors import MissingPackageError, did_you_mean
from cclnet.system.workspace import user_path

TIMM = "timm/"
"""What the name of a model of timm begins with; one of torchvision stands alone."""

PAPER_BACKBONES = ("resnet18", "mobilenet_v2", "efficientnet_b0")
"""Those of the paper's Table 1, all of torchvision."""


WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
"""What the name of a weights' file ends with; everything but the first is read as a state dict of torch."""


def weights_file(weights: str | None) -> Path | None:
    """The file that the key ``weights`` names, None if it is a name of the backbone's library.

    A relative path is one from the project's folder, as ``user_path`` has it.
    """
    if weights is None or not weights.endswith(WEIGHTS_SUFFIXES):
        return None
    return user_path(weights)


def name_problems(backbone: str, weights: str | None) -> list[str]:
    """Why the library does not know a backbone or its weights; empty if it knows them, or nothing has to be looked up.

    Args:
        backbone: a name for ``build_backbone``.
        weights: the name of its pretrained weights or a file of them, None for none.
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
    """The names that ``build_backbone`` knows of the library that this name belongs to, sorted."""
    if library(name) == "torchvision":
        from torchvision import models

        return models.list_models(module=models)
    timm = timm_package(name)
    return sorted(f"{TIMM}{model}" for model in [*timm.list_models(), *timm.list_pretrained()])


def weight_names(name: str) -> list[str]:
    """The pretrained weights that there are for a model, ``DEFAULT`` among them if any."""
    if library(name) == "torchvision":
        from torchvision import models

        return list(models.get_model_weights(name).__members__)
    return ["DEFAULT"] if timm_package(name).models.is_model_pretrained(name.removeprefix(TIMM)) else []


def timm_package(name: str) -> ModuleType:
    """The package timm, for the model of this name.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"backbone: {name}", error, "timm") from None
    return timm
