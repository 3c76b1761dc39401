"""Pretrained weights in a file: safetensors, or a state dict written by ``torch.save``.

A file contains a whole network under the tensor names of its library. Only the backbone's tensors are used, so the
classifier may have other classes, or be missing.
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
from cclnet.system.names import shown


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU; no code in the file is executed.

    Raises:
        CCLNetError: the file is missing, cannot be read, or contains something else.
    """
    if not file.is_file():
        raise CCLNetError(f"weights: there is no file {file}; a relative path is one from the project's folder")
    content: Any
    try:
        if file.suffix == ".safetensors":
            content = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # torch's unpickler raises nearly any exception
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
    """Why weights do not fit, in one line; empty if they fit.

    Args:
        given: the weights.
        backbone: the tensors that they replace; only the shapes matter.
        network: the tensors of the library's whole network, including the classifier.
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
"""A counter of batch normalisation that old files lack; no result depends on it."""

_SHOWN = 3


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single value"


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(shown(textwrap.shorten(name, 100)) for name in names[:_SHOWN]) + more
