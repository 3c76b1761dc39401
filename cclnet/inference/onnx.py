"""Export of a trained model to ONNX, to run it without torch or this package, and prediction with onnxruntime."""

import json
import textwrap
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor, nn

from cclnet.images.augmentation import Normalization, to_network
from cclnet.networks.model import CCLNet
from cclnet.networks.model_description import ModelDescription
from cclnet.system.errors import CCLNetError, MissingPackageError

INPUT = "images"
OUTPUTS = ("logits", "probabilities")
TOLERANCE = 1e-4
"""Largest accepted difference of an output from torch's; rounding causes about 1e-6."""
CHECKED_BATCHES = (1, 2, 5)


class OnnxModel(NamedTuple):
    """An ONNX file's bytes, and the largest difference of its outputs from torch's on random images."""

    content: bytes
    difference: float


def to_onnx(model: CCLNet, description: ModelDescription, with_preprocessing: bool = False) -> OnnxModel:
    """Export a model for any number of images, and check it with onnxruntime; the same model gives the same bytes.

    The file's outputs are ``logits`` and ``probabilities`` (n × K). Its metadata contain all attributes of the
    description, each as JSON under its own name.

    Args:
        model: a model on the CPU in evaluation mode, as returned by ``load_model``; its head is left out.
        description: the description from the model's file.
        with_preprocessing: whether the input ``images`` is n × crop × crop × 3 bytes, RGB. Otherwise it is the input of
            the network: n × 3 × crop × crop values, scaled to [0, 1] and normalised.

    Raises:
        MissingPackageError: a package of the extra ``onnx`` is not installed.
        CCLNetError: torch cannot export this network, or the outputs of onnxruntime differ.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch needs it for the export
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    except ModuleNotFoundError as error:
        raise MissingPackageError("the export to ONNX", error, "onnx onnxruntime onnxscript") from None
    predictor = _Predictor(model, description.normalization if with_preprocessing else None).eval()
    batches = [_random_images(number, description.crop, with_preprocessing) for number in CHECKED_BATCHES]
    try:
        program: Any = torch.onnx.export(  # its type includes None, which dynamo never returns
            predictor,
            (batches[-1],),
            input_names=[INPUT],
            output_names=OUTPUTS,
            dynamic_shapes=({0: torch.export.Dim("n")},),
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        reason = textwrap.shorten(str(error), width=200)
        raise CCLNetError(f"torch cannot export {description.backbone} to ONNX: {reason}") from None
    ClearMetadataAndDocStringPass()(program.model)  # removes stack traces, which contain paths of this machine
    program.model.metadata_props.update(
        {name: json.dumps(value, sort_keys=True) for name, value in asdict(description).items()}
    )
    content = program.model_proto.SerializeToString(deterministic=True)

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    difference = float(np.max([_difference(session, predictor, images) for images in batches]))
    if not difference <= TOLERANCE:  # also refuses NaN
        raise CCLNetError(f"{description.backbone} as ONNX differs from torch by {difference:.2g}; nothing is written")
    return OnnxModel(content, difference)


def onnxruntime_probabilities(
    model: CCLNet, description: ModelDescription
) -> Callable[[Float[Tensor, "n 3 h w"]], NDArray[np.float64]]:
    """``class_probabilities`` of a model, computed by onnxruntime on the CPU with as many threads as torch uses.

    Args:
        model: a model on the CPU in evaluation mode, as returned by ``load_model``.
        description: the description from the model's file.

    Raises:
        MissingPackageError, CCLNetError: as ``to_onnx``.
    """
    content = to_onnx(model, description).content
    import onnxruntime  # to_onnx reports that it is missing

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def probabilities(inputs: Float[Tensor, "n 3 h w"]) -> NDArray[np.float64]:
        (logits,) = session.run(["logits"], {INPUT: inputs.numpy()})
        return torch.from_numpy(logits).double().softmax(dim=1).numpy()

    return probabilities


class _Predictor(nn.Module):
    """The module that is exported."""

    def __init__(self, model: CCLNet, normalization: Normalization | None) -> None:
        super().__init__()
        self.network = nn.Sequential(model.backbone, model.classifier)
        self.normalization = normalization

    def forward(self, images: Shaped[Tensor, "n _ _ _"]) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
        logits = self.network(to_network(images, self.normalization) if self.normalization else images)
        return logits, logits.softmax(dim=1)


@torch.inference_mode()
def _difference(session: Any, predictor: _Predictor, images: Shaped[Tensor, "n _ _ _"]) -> np.floating:
    """The largest difference between onnxruntime's outputs and torch's."""
    outputs = np.stack(session.run(OUTPUTS, {INPUT: images.numpy()}))
    return np.abs(outputs - torch.stack(predictor(images)).numpy()).max()


def _random_images(number: int, crop: int, as_bytes: bool) -> Shaped[Tensor, "n _ _ _"]:
    random = torch.Generator().manual_seed(number)
    if as_bytes:
        return torch.randint(256, (number, crop, crop, 3), dtype=torch.uint8, generator=random)
    return torch.randn(number, 3, crop, crop, generator=random)
