"""CCL-Net: soft labels learned from interclass visual correlations (Wei et al., MICCAI 2020).

The names below are loaded when they are first used: importing ``cclnet`` must not import torch, because what makes a
run repeatable has to be set before that (``cclnet.system.machine``), and because the light stages do without it.
"""

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cclnet.ccl import CCLHead as CCLHead
    from cclnet.ccl import CCLLoss as CCLLoss
    from cclnet.ccl import Convergence as Convergence
    from cclnet.ccl import classification_loss as classification_loss
    from cclnet.ccl import softness as softness
    from cclnet.networks.backbones import build_backbone as build_backbone
    from cclnet.networks.model import CCLNet as CCLNet

__version__ = "0.1.0"

_MODULE_OF = {
    "CCLHead": "cclnet.ccl",
    "CCLLoss": "cclnet.ccl",
    "CCLNet": "cclnet.networks.model",
    "Convergence": "cclnet.ccl",
    "build_backbone": "cclnet.networks.backbones",
    "classification_loss": "cclnet.ccl",
    "softness": "cclnet.ccl",
}

__all__ = [
    "CCLHead",
    "CCLLoss",
    "CCLNet",
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
    imported = {"Any", "ModuleSpec", "TYPE_CHECKING", "import_module", "sys"}
    return sorted({*globals(), *__all__} - imported)


class _MovedModules:
    """Finds the modules of version 0.1 by their old names."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if not name.startswith("cclnet.") or name.count(".") != 1:
            return None
        return import_module("cclnet.system.moved").find_moved(name)


sys.meta_path.append(_MovedModules)  # the last to be asked
