"""Pretrained weights in a file: safetensors, or a state dict that ``torch.save`` wrote.

A file holds a whole network under the names that its library gives to the tensors. Only the backbone's are taken, so
the classifier may be of other classes, or not there.
"""

import hashlib
import textwrap
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from cclnet.system.errors import CCLNetError, exhausted


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names, on the CPU; no code in the file is run.

    Raises:
        CCLNetError: it is not there, cannot be read, or holds something else.
    """
    if not file.is_file():
        raise CCLNetError(f"weights: there is no file {file}; a relative path is one from the project's folder")
    content: Any
    try:
        if file.suffix == ".safetensors":
            content = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # of torch's unpickler, nearly any
        if exhausted(error):
            raise
        reason = textwrap.shorten(str(error), width=200) or type(error).__name__
        raise CCLNetError(f"weights: {file} is damaged, or holds no weights ({reason})") from None
    if not isinstance(content, Mapping) or not content:
        raise CCLNetError(f"weights: {file} holds no table of tensors; save a model's state_dict()")
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise CCLNetError(f"weights: {file} holds what are no tensors ({_shortened(others)}); save a state_dict()")
    return dict(content)


def misfits(given: Mapping[str, Tensor], backbone: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> str:
    """What keeps weights from fitting, in one line; empty if they fit.

    Args:
        given: the weights.
        backbone: the tensors that they are to replace; only the shapes count.
        network: those and the classifier's, as the library has them.
    """
    not_needed = tuple({f"{name.rpartition('.')[0]}." for name in network.keys() - backbone.keys()})
    missing = [name for name in backbone if name not in given and not name.endswith(_COUNTER)]
    unknown = [name for name in given if name not in network and not name.startswith(not_needed)]
    reshaped = [
        f"{name} ({_shape(given[name])}, not {_shape(tensor)})"
        for name, tensor in backbone.items()
        if name in given and given[name].shape != tensor.shape
    ]
    found = {"missing": missing, "unknown": unknown, "of another shape": reshaped}
    return "; ".join(f"{len(names)} {what}: {_shortened(names)}" for what, names in found.items() if names)


_COUNTER = "num_batches_tracked"
"""Batch normalisation's, younger than some files; nothing depends on it."""

_SHOWN = 3


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single value"


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
