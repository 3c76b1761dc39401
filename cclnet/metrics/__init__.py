"""What predictions and matrices are worth: arrays in, numbers out.

``evaluate`` is loaded when it is first used, so that the modules beside it do not import scikit-learn.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cclnet.metrics.scores import evaluate as evaluate

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cclnet.metrics import scores

    return getattr(scores, name)
