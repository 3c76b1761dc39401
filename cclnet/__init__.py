"""CCL-Net: soft labels learned from interclass visual correlations (Wei et al., MICCAI 2020).

The names below are loaded on first use. Importing ``cclnet`` must not import torch, because settings for reproducible
results have to be made before that (``cclnet.system.machine``), and because some stages do not need torch.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cclnet.ccl import CCLHead as CCLHead
    from cclnet.ccl import CCLLoss as CCLLoss
    from cclnet.ccl import Convergence as Convergence
    from cclnet.ccl import classification_loss as classification_loss
    from cclnet.ccl import softness as softness
    from cclnet.metrics.similarity import ClassSimilarity as ClassSimilarity
    from cclnet.networks.backbones import build_backbone as build_backbone
    from cclnet.networks.model import CCLNet as CCLNet

__version__ = "0.1.0"

_MODULE_OF = {
    "CCLHead": "cclnet.ccl",
    "CCLLoss": "cclnet.ccl",
    "CCLNet": "cclnet.networks.model",
    "ClassSimilarity": "cclnet.metrics.similarity",
    "Convergence": "cclnet.ccl",
    "build_backbone": "cclnet.networks.backbones",
    "classification_loss": "cclnet.ccl",
    "softness": "cclnet.ccl",
}

__all__ = [
    "CCLHead",
    "CCLLoss",
    "CCLNet",
    "ClassSimilarity",
    "Convergence",
    "__version__",
    "build_backbone",
    "classification_loss",
    "softness",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    imported = {"Any", "ModuleSpec", "ModuleType", "Sequence", "TYPE_CHECKING", "import_module", "sys", "warnings"}
    return sorted({*globals(), *__all__} - imported)


_MOVED = {
    "archives": ["dataset.archives"],
    "augmentation": ["images.augmentation"],
    "backbones": ["networks.catalogue", "networks.backbones"],
    "batches": ["images.subset", "images.transfer", "inference.probabilities", "training.batches"],
    "charts": ["views.charts"],
    "checkpoint": ["training.states", "networks.model_description", "networks.model", "networks.model_file"],
    "checks": ["dataset.checks"],
    "comparison": ["experiments.comparison"],
    "download": ["dataset.download"],
    "engine": ["inference.probabilities", "training.trainer", "training.loop"],
    "errors": ["system.errors"],
    "evaluation": ["inference.labelled"],
    "export": ["inference.onnx"],
    "figures": ["views.figures"],
    "files": ["system.files"],
    "folders": ["dataset.folders"],
    "interruption": ["system.interruption"],
    "isic": ["dataset.isic"],
    "model": ["networks.model"],
    "objectives": ["training.objectives"],
    "pictures": ["inference.pictures"],
    "prediction": ["inference.prediction"],
    "processes": ["training.distributed"],
    "processor": ["system.machine"],
    "progress": ["system.progress"],
    "report": ["views.page"],
    "revisions": ["experiments.revisions"],
    "sample": ["dataset.sample"],
    "splits": ["dataset.splits"],
    "statistics": ["metrics.resampling", "metrics.likeness", "metrics.calibration"],
    "tables": ["dataset.tables"],
    "transfer": ["images.transfer"],
    "workspace": ["system.workspace"],
}
"""Modules of version 0.1 → modules that contain their names now, in search order."""


class _MovedModule(ModuleType):
    """A module without its own contents: names are looked up in their new place, with a deprecation warning."""

    def __init__(self, name: str, places: Sequence[str]) -> None:
        super().__init__(name, f"Moved to {', '.join(f'cclnet.{place}' for place in places)}.")
        self.__dict__["_places"] = places

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        for place in self.__dict__["_places"]:
            module = import_module(f"cclnet.{place}")
            if hasattr(module, name):
                warnings.warn(f"{self.__name__}.{name} is now cclnet.{place}.{name}", DeprecationWarning, stacklevel=2)
                return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class _MovedLoader:
    """Creates the module of an old name."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _MovedModule(spec.name, _MOVED[spec.name.removeprefix("cclnet.")])

    def exec_module(self, module: ModuleType) -> None:
        pass


class _MovedModules:
    """Finds the modules of version 0.1 by their old names."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if not name.startswith("cclnet.") or name.removeprefix("cclnet.") not in _MOVED:
            return None
        return ModuleSpec(name, _MovedLoader())  # pyright: ignore[reportArgumentType] - importlib.abc.Loader's protocol


sys.meta_path.append(_MovedModules)  # searched last
