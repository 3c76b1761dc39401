"""A trained network as one file: its weights and everything else that prediction needs."""

import hashlib
import json
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from cclnet.networks.model_description import ModelDescription, description_problems
from cclnet.system.errors import CCLNetError, MissingPackageError, exhausted
from cclnet.system.files import write_bytes

_METADATA_KEY = "cclnet"  # a single key: safetensors writes several in random order
_DIGEST = "sha256"  # safetensors itself does not detect a flipped bit


def save_model(path: Path, model: nn.Module, description: ModelDescription) -> None:
    """Write the network and its description to a safetensors file; the same content gives the same bytes."""
    tensors = _own_tensors(model)
    values = asdict(description)
    metadata = json.dumps(values | {_DIGEST: _digest(values, tensors)}, sort_keys=True, allow_nan=False)
    write_bytes(path, save(tensors, metadata={_METADATA_KEY: metadata}))


def _own_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """All weights and statistics by name, each with its own memory, because safetensors refuses tied weights.

    Whether the dictionary is frozen is left out; the description's ``converged_epoch`` contains it.
    """
    tensors: dict[str, torch.Tensor] = {}
    memory: set[int] = set()
    for name, tensor in model.state_dict().items():
        if name.endswith("_extra_state"):
            continue
        own = tensor.detach().cpu().contiguous()
        tensors[name] = own.clone() if own.untyped_storage().data_ptr() in memory else own
        memory.add(own.untyped_storage().data_ptr())
    return tensors


def _digest(description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    text = json.dumps(description, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode() + save(tensors)).hexdigest()


def find_model(source: str | Path) -> Path:
    """The model file: the source itself, or ``model.safetensors`` or ``models/model.safetensors`` in a folder.

    Raises:
        CCLNetError: the folder has neither.
    """
    path = Path(source)
    if not path.is_dir():
        return path
    for name in MODEL_NAMES:
        if (path / name).is_file():
            return path / name
    raise CCLNetError(f"{path} has no model: {' and '.join(MODEL_NAMES)} are missing; train one first")


MODEL_NAMES = ("model.safetensors", "models/model.safetensors")
"""A model file's place in the folder of a model, and in a project."""


@contextmanager
def model_errors(path: Path) -> Iterator[None]:
    """Report whatever a missing, damaged or foreign file raises in one line.

    Raises:
        MissingPackageError: its backbone needs timm, which is not installed.
        CCLNetError: the file is missing, damaged, or not such a model.
    """
    if path.exists() and not path.is_file():  # opening a pipe could wait for ever
        raise CCLNetError(f"{path} is no file, but a model of this package is one")
    try:
        yield
    except MissingPackageError:
        raise
    except FileNotFoundError:
        raise CCLNetError(f"there is no model {path}; train one first") from None
    except (CCLNetError, SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if exhausted(error):
            raise
        reason = textwrap.shorten(str(error), width=LONGEST_REASON)
        raise CCLNetError(f"{path} is not a model of this package, or is damaged: {reason}") from None


LONGEST_REASON = 400
"""Characters of what is said to be wrong with a file."""


class ModelContents(NamedTuple):
    """The checked contents of a model file.

    Attributes:
        description: what it says about its model.
        tensors: the weights and statistics by name.
        digest: the SHA-256 of both, as 64 hexadecimal digits.
    """

    description: ModelDescription
    tensors: dict[str, torch.Tensor]
    digest: str


def read_model_file(path: Path) -> ModelContents:
    """Read the file of ``save_model``; to be called in ``model_errors``.

    Raises:
        CCLNetError: with everything that is wrong with the description, or the digest is another.
        SafetensorError, OSError, KeyError, ValueError, RuntimeError: it is no such file.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if _METADATA_KEY not in metadata:
            raise CCLNetError("it says nothing about the model that it holds")
        values = json.loads(metadata[_METADATA_KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    digest = str(values.pop(_DIGEST, None)) if isinstance(values, dict) else ""
    if problems := description_problems(values):
        raise CCLNetError("; ".join(problems))
    if digest != _digest(values, tensors):
        raise CCLNetError("its contents are not those that were saved")
    _require_numbers(tensors)
    return ModelContents(ModelDescription(**values), tensors, digest)


def _require_numbers(tensors: dict[str, torch.Tensor]) -> None:
    """Refuse weights from which nothing can be predicted: every image would be of the first class."""
    if odd := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise CCLNetError(f"{len(odd)} of its tensors are not finite, such as {odd[0]}")
