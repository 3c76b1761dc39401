"""Prediction of pictures with a trained model."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cclnet.images.colours import LIMIT, mean_colour, unlike
from cclnet.images.decoding import Pixels, central_crop, decode_resized
from cclnet.inference.onnx import onnxruntime_probabilities
from cclnet.inference.pictures import Picture, map_pictures
from cclnet.inference.probabilities import class_probabilities, crops_to_network, prediction_batch
from cclnet.metrics.predictions import prediction_table
from cclnet.networks.model import CCLNet
from cclnet.networks.model_description import ModelDescription
from cclnet.system.errors import CCLNetError, DataError, Problem
from cclnet.system.progress import Report, silent

Runtime = Literal["torch", "onnxruntime"]
"""What computes the network."""

NO_NUMBERS = "gives the network values too large to compute with"


@dataclass(frozen=True)
class Predictions:
    """The predictions of a model for pictures.

    Attributes:
        classes: the K names.
        images: the ids of the n predicted pictures.
        probabilities: q^cls of each, n × K.
        problems: why the other pictures could not be predicted.
        notes: how the pictures differ from those that the model was trained on.
    """

    classes: list[str]
    images: list[str]
    probabilities: NDArray[np.float64]
    problems: list[Problem]
    notes: list[str] = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """The table of predictions, as written by the evaluate stage."""
        return prediction_table(self.images, self.probabilities, self.classes)

    def as_dict(self) -> dict[str, Any]:
        """The predictions for JSON: an object for each image, with its most probable class, and for each problem."""
        images = [
            {
                "image": image,
                "predicted": self.classes[row.argmax()],
                "probabilities": dict(zip(self.classes, row.tolist(), strict=True)),
            }
            for image, row in zip(self.images, self.probabilities, strict=True)
        ]
        return {"images": images, "problems": [problem._asdict() for problem in self.problems], "notes": self.notes}


def predict_pictures(
    model: CCLNet,
    description: ModelDescription,
    pictures: Sequence[Picture],
    device: torch.device,
    report: Report = silent,
    batch_size: int | None = None,
    runtime: Runtime = "torch",
) -> Predictions:
    """Predict pictures as in the evaluate stage: resize, central crop, normalisation, softmax in float64.

    The same pictures in the same order give bitwise identical results if the process uses the same kernels; with other
    batches, a network may round differently. Pictures are decoded in threads while the network computes, and memory
    does not grow with their number.

    Args:
        model: the model from ``load_model``, on the device.
        description: the description from ``load_model``.
        pictures: at least one picture.
        device: where to compute.
        report: called with the number of predicted pictures.
        batch_size: pictures that the network computes at once; None for ``prediction_batch``.
        runtime: what computes the network. ``onnxruntime`` is faster on a CPU, and rounds differently.

    Raises:
        DataError: no picture could be predicted; all are named.
        MissingPackageError: onnxruntime, or a package that exports the network to it, is not installed.
        CCLNetError: the network cannot be exported to onnxruntime, or the device is not the CPU.
    """
    compute, layout = network_function(model, description, device, runtime)
    kept: list[Picture] = []
    problems: list[Problem] = []
    size = description.short_side, description.crop
    sides: list[int] = []
    crops = picture_crops(pictures, *size, kept, problems, "images predicted", report, sides)
    colours: list[NDArray[np.float64]] = []
    watched = _with_colours(crops, colours)
    batch_size = batch_size or prediction_batch(description.crop, device)
    batches = crops_to_network(watched, batch_size, device, description.normalization, layout)
    probabilities = [compute(inputs) for inputs in batches]
    if not probabilities:
        raise DataError("no image can be predicted; replace them:", problems)
    rows = np.concatenate(probabilities)
    are_numbers = np.isfinite(rows).all(axis=1)
    overflown = [Problem(kept[row].where, NO_NUMBERS) for row in np.flatnonzero(~are_numbers)]
    if len(overflown) == len(kept):
        raise DataError("no image can be predicted; train another model:", [*problems, *overflown])
    images = [kept[row].image for row in np.flatnonzero(are_numbers)]
    notes = list(_differences(description, [picture.image for picture in kept], sides, colours))
    return Predictions(description.classes, images, rows[are_numbers], [*problems, *overflown], notes)


def network_function(
    model: CCLNet, description: ModelDescription, device: torch.device, runtime: Runtime
) -> tuple[Callable[[Float[Tensor, "n 3 h w"]], NDArray[np.float64]], torch.memory_format]:
    """The function that computes q^cls of a batch, n × K, and the memory layout of its input."""
    if runtime == "torch":
        model.to(memory_format=description.layout)  # pyright: ignore[reportCallIssue]
        return partial(class_probabilities, model), description.layout
    if device.type != "cpu":
        raise CCLNetError(f"device: {device.type} is set, but onnxruntime computes on the CPU; set device: auto or cpu")
    return onnxruntime_probabilities(model, description), torch.contiguous_format


def _with_colours(crops: Iterable[Pixels], colours: list[NDArray[np.float64]]) -> Iterator[Pixels]:
    """The crops; ``colours`` gets the mean of each."""
    for crop in crops:
        colours.append(mean_colour(crop))
        yield crop


def _differences(
    description: ModelDescription, images: Sequence[str], sides: Sequence[int], colours: Sequence[NDArray[np.float64]]
) -> Iterator[str]:
    """How the pictures differ from the training images, in the words of a note."""
    if small := sum(side < description.short_side for side in sides):
        yield (
            f"{small:,} of {len(images):,} images were enlarged: their shorter side is below the "
            f"{description.short_side} pixels that the model was trained with"
        )
    if description.colours and (places := np.flatnonzero(unlike(description.colours, colours))).size:
        yield (
            f"{len(places):,} of {len(images):,} images have another mean colour than the training images, by more "
            f"than {LIMIT:g} standard deviations, the first of them {images[places[0]]}: do not rely on their "
            "predictions"
        )


def picture_crops(
    pictures: Sequence[Picture],
    short_side: int,
    size: int,
    kept: list[Picture],
    problems: list[Problem],
    name: str,
    report: Report = silent,
    sides: list[int] | None = None,
) -> Iterator[Pixels]:
    """The resized central crops of pictures, in their order; they are decoded in threads, some ahead.

    Args:
        pictures: the pictures.
        short_side: pixels of the shorter side to which a picture is resized.
        size: pixels of a side of its crop.
        kept: gets each picture whose crop is given.
        problems: gets the reason for each other picture.
        name: what is reported.
        report: called with the number of pictures so far.
        sides: gets the pixels of the shorter side of each picture whose crop is given, before it is resized.
    """

    def shrink(data: bytes) -> tuple[int, Pixels]:
        resized = decode_resized(data, short_side)
        crop = central_crop(resized.pixels, size).copy()  # or the whole image would stay in memory
        return min(resized.original_size), crop

    results = map_pictures(pictures, shrink, os.cpu_count() or 1)
    for done, (picture, result) in enumerate(zip(pictures, results, strict=True), start=1):
        if isinstance(result, ValueError):
            problems.append(Problem(picture.where, str(result)))
        else:
            side, crop = result
            kept.append(picture)
            if sides is not None:
                sides.append(side)
            yield crop
        report(name, done, len(pictures))
