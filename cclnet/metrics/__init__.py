"""Metrics of predictions and soft-label matrices, computed from arrays.

The names of ``scores`` and ``calibration`` are loaded when they are first used, so that the other modules do not
import scikit-learn.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cclnet.metrics.scores import evaluate as evaluate

__all__ = ["evaluate"]

_PLACES = ("scores", "calibration", "predictions")


def __getattr__(name: str) -> Any:
    for place in _PLACES:
        if not name.startswith("_") and name not in _PLACES:
            module = import_module(f"cclnet.metrics.{place}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
