"""What outlives a process: the state that an interrupted training goes on from, and the finished model.

The state is kept outside everything that DVC manages, because DVC deletes a stage's outputs before it runs the stage.
"""

import fcntl
import hashlib
import io
import json
import logging
import os
import shutil
import textwrap
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cclnet.augmentation import Normalization, memory_layout
from cclnet.backbones import build_backbone
from cclnet.ccl import CCLHead
from cclnet.errors import CCLNetError, MissingPackageError
from cclnet.files import write_bytes
from cclnet.model import CCLNet

logger = logging.getLogger(__name__)

KEPT_STATES = 2
"""The newest state and, should that turn out damaged, the one before."""


class StateStore:
    """The states of one training run, in a folder that only one process at a time may use.

    Args:
        root: where the folders of all runs are.
        key: names the run: equal for equal code, params and data, so that a state is never taken up by another run.
    """

    def __init__(self, root: Path, key: str) -> None:
        self.folder = root / key
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            owner = self._lock.read().strip()
            self._lock.close()
            raise CCLNetError(
                f"process {owner} is training this very run already; wait for it, or end it with: kill {owner}"
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        for unfinished in self.folder.glob("*.partial"):  # of a process that was killed while it wrote
            unfinished.unlink()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.finish()
        finally:
            self._writer.shutdown()
            self._lock.close()

    def save(self, state: dict[str, Any], images_seen: int) -> None:
        """Keep the state after so many training images, and the one before it.

        A copy of it is written while the caller goes on; ``finish`` waits for that.

        Raises:
            CCLNetError: the state before could not be written.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.finish()
        self._writing = self._writer.submit(self._write, buffer.getbuffer(), images_seen)

    def _write(self, content: memoryview, images_seen: int) -> None:
        write_bytes(self.folder / f"images-{images_seen:012}", hashlib.sha256(content).digest(), content)
        for old in self._files()[:-KEPT_STATES]:
            old.unlink()

    def finish(self) -> None:
        """Wait until the newest state is on the disk.

        Raises:
            CCLNetError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole, None if there is none; a damaged one is passed over and said to be."""
        self.finish()
        for path in reversed(self._files()):
            content = path.read_bytes()
            digest, content = content[:32], content[32:]
            with suppress(UnpicklingError):  # the bytes are whole, and no state: what they ask for is not done
                if hashlib.sha256(content).digest() == digest:
                    return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
            logger.warning("%s is damaged; going on from the state before it", path.name)
        return None

    def clear(self) -> None:
        """Throw the states away: the run is finished and its results are written."""
        self.finish()
        shutil.rmtree(self.folder)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("images-*"))


@dataclass(frozen=True)
class ModelDescription:
    """What a model file says about itself.

    Attributes:
        classes: the classes in the order of the outputs.
        backbone: the name that ``build_backbone`` knows.
        method: what it was trained with; only ``ccl`` has a head.
        short_side, crop: pixels; images are resized to the one and cut to the other.
        mean, standard_deviation: what normalises values in [0, 1], channel by channel.
        label_matrix: the labels that trained the classifier, row k for class k: soft labels, or hard ones.
        softness: p̄ of that matrix.
        softness_epoch: the epoch its dictionary was taken from, None without a head.
        lowest_softness_epoch: the epoch of the lowest p̄ before the dictionary was frozen, None without a head or rule.
        converged_epoch: the epoch the dictionary was frozen in, None if it was not.
        params: everything that the train stage was asked for.
        ran_on: what the result depends on besides.
        version: of this package.
    """

    classes: list[str]
    backbone: str
    method: str
    short_side: int
    crop: int
    mean: list[float]
    standard_deviation: list[float]
    label_matrix: list[list[float]]
    softness: float
    softness_epoch: int | None
    lowest_softness_epoch: int | None
    converged_epoch: int | None
    params: dict[str, Any]
    ran_on: dict[str, Any]
    version: str

    @property
    def normalization(self) -> Normalization:
        """Of the images, as the network was trained with it."""
        return Normalization(tuple(self.mean), tuple(self.standard_deviation))

    @property
    def layout(self) -> torch.memory_format:
        """How images and weights lay in memory in training: another one may round otherwise."""
        return memory_layout(self.params.get("memory_format", "contiguous"))


_METADATA_KEY = "cclnet"  # one key only: safetensors writes several in random order
_DIGEST = "sha256"  # safetensors itself does not notice a flipped bit


def save_model(path: Path, model: CCLNet, description: ModelDescription) -> None:
    """Write the network and what it is as one safetensors file, byte for byte the same for the same content."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    values = asdict(description)
    metadata = json.dumps(values | {_DIGEST: _digest(values, tensors)}, sort_keys=True, allow_nan=False)
    write_bytes(path, save(tensors, metadata={_METADATA_KEY: metadata}))


def _digest(description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    text = json.dumps(description, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode() + save(tensors)).hexdigest()


def load_model(path: Path) -> tuple[CCLNet, ModelDescription]:
    """Rebuild the network of ``save_model``, on the CPU and ready for prediction.

    Raises:
        MissingPackageError: its backbone is one of timm's, which is not installed.
        CCLNetError: the file is not there, is damaged, or is not such a model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads(file.metadata()[_METADATA_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        if values.pop(_DIGEST) != _digest(values, tensors):
            raise CCLNetError("its contents are not those that were saved")
        description = ModelDescription(**values)
        head = {name: description.params[name] for name in ("margin", "temperature")}
        num_classes, with_head = len(description.classes), description.method == "ccl"
        model = build_model(description.backbone, None, description.crop, num_classes, with_head, **head)
        model.load_state_dict(tensors)
    except MissingPackageError:
        raise
    except FileNotFoundError:
        raise CCLNetError(f"there is no model {path}; train one first") from None
    except (CCLNetError, SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = textwrap.shorten(str(error), width=200)
        raise CCLNetError(f"{path} is not a model of this package, or is damaged: {reason}") from None
    return model.eval(), description


def build_model(
    backbone: str, weights: str | None, image_size: int, num_classes: int, with_head: bool, **head: Any
) -> CCLNet:
    """A backbone by name with its classifier and, if wanted, a CCL head (whose further arguments are passed on)."""
    network, num_features = build_backbone(backbone, weights, image_size)
    model = CCLNet(network, num_features, num_classes)
    if with_head:  # drawn last, so that one seed starts all methods from the same backbone and classifier
        model.head = CCLHead(num_features, num_classes, **head)
    return model
