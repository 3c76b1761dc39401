"""From the bytes of image files to batches for a network."""

from typing import Any

_PLACES = ("decoding", "reading", "cache")


def __getattr__(name: str) -> Any:
    """Resolve the names of the module ``cclnet.images`` of version 0.1, which are now in this package's modules."""
    from importlib import import_module

    for place in _PLACES:
        if not name.startswith("_") and name not in _PLACES:
            module = import_module(f"cclnet.images.{place}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
