"""A function of the user that receives every epoch, such as a logger for TensorBoard; no logger is a dependency.

An environment variable names it, because it changes no result: a param would be part of the experiment.
"""

import logging
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from cclnet.system.errors import CCLNetError
from cclnet.training.history import Row

VARIABLE = "CCLNET_CALLBACK"

logger = logging.getLogger(__name__)


def epoch_callback() -> Callable[[Row], None]:
    """The function that ``CCLNET_CALLBACK`` names as ``module:function``; without it, one that does nothing.

    It is called with a copy of each row of the history. If it raises an exception, a warning says so and training goes
    on.

    Raises:
        CCLNetError: there is no such function.
    """
    name = os.environ.get(VARIABLE, "")
    if not name:
        return ignore
    function = _load(name)

    def call(row: Row) -> None:
        try:
            function(dict(row))
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            logger.warning("%s failed after epoch %s (%s); training goes on", name, row["epoch"], reason)

    return call


def ignore(row: Row) -> None:
    """A callback that does nothing."""


def _load(name: str) -> Callable[[Row], Any]:
    module, _, attribute = name.partition(":")
    try:
        function = getattr(import_module(module), attribute)
    except Exception as error:  # anything may happen in the user's module
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CCLNetError(f"{VARIABLE}={name} cannot be loaded ({reason}): {_ADVICE}") from None
    if not callable(function):
        raise CCLNetError(f"{VARIABLE}={name} is no function: {_ADVICE}")
    return function


_ADVICE = "set it to module:function, where the module is a file in this folder or installed, or unset it"
