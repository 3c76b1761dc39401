"""The names of the networks and weights that torchvision and timm offer; torch is imported only to look one up."""

from types import ModuleType
from typing import Literal

from cclnet.system.errors import MissingPackageError

TIMM = "timm/"
"""What the name of a model of timm begins with; one of torchvision stands alone."""


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
