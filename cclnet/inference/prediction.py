"""A trained model on pictures from anywhere."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cclnet.images.decoding import Pixels, central_crop, decode, resize
from cclnet.inference.pictures import Picture, map_pictures
from cclnet.inference.probabilities import class_probabilities, crops_to_network
from cclnet.metrics.predictions import prediction_table
from cclnet.networks.model import CCLNet
from cclnet.networks.model_description import ModelDescription
from cclnet.system.errors import DataError, Problem
from cclnet.system.progress import Report, silent

NO_NUMBERS = "gives the network values too large to compute with"


@dataclass(frozen=True)
class Predictions:
    """What a model says of pictures.

    Attributes:
        classes: K names.
        images: the ids of those that could be predicted, n.
        probabilities: q^cls of each, n × K.
        problems: why the others could not.
    """

    classes: list[str]
    images: list[str]
    probabilities: NDArray[np.float64]
    problems: list[Problem]

    def table(self) -> pd.DataFrame:
        """``metrics.prediction_table``, as the evaluate stage writes it."""
        return prediction_table(self.images, self.probabilities, self.classes)


def predict_pictures(
    model: CCLNet,
    description: ModelDescription,
    pictures: Sequence[Picture],
    device: torch.device,
    report: Report = silent,
) -> Predictions:
    """Predict pictures as the evaluate stage does: resized, cut to their middle, normalised, softmax in float64.

    The same pictures in the same order give the same numbers to the last bit, if the process computes with the same
    kernels; in other batches a network may round otherwise. Pictures are decoded in threads while the network
    computes, and memory does not grow with their number.

    Args:
        model: what ``load_model`` gave, on the device.
        description: what it gave beside it.
        pictures: at least one.
        device: where to compute.
        report: told of the pictures as they are predicted.

    Raises:
        DataError: no picture at all could be predicted; all are named.
    """
    taken: list[Picture] = []
    problems: list[Problem] = []

    def shrink(data: bytes) -> Pixels:
        crop = central_crop(resize(decode(data), description.short_side), description.crop)
        return crop.copy()  # or the whole image would stay in memory behind it

    def crops() -> Iterator[Pixels]:
        results = map_pictures(pictures, shrink, os.cpu_count() or 1)
        for done, (picture, crop) in enumerate(zip(pictures, results, strict=True), start=1):
            if isinstance(crop, ValueError):
                problems.append(Problem(picture.where, str(crop)))
            else:
                taken.append(picture)
                yield crop
            report("images predicted", done, len(pictures))

    model.to(memory_format=description.layout)  # pyright: ignore[reportCallIssue]
    batches = crops_to_network(crops(), device, description.normalization, description.layout)
    probabilities = [class_probabilities(model, inputs) for inputs in batches]
    if not probabilities:
        raise DataError("no image can be predicted; replace them:", problems)
    rows = np.concatenate(probabilities)
    are_numbers = np.isfinite(rows).all(axis=1)
    overflown = [Problem(taken[row].where, NO_NUMBERS) for row in np.flatnonzero(~are_numbers)]
    if len(overflown) == len(taken):
        raise DataError("no image can be predicted; train another model:", [*problems, *overflown])
    images = [taken[row].image for row in np.flatnonzero(are_numbers)]
    return Predictions(description.classes, images, rows[are_numbers], [*problems, *overflown])
