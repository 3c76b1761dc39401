"""What a model file says about itself, and all that can be wrong with it."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from cclnet.images.augmentation import Normalization, memory_layout
from cclnet.images.colours import Colours
from cclnet.images.decoding import MAX_PIXELS
from cclnet.system.names import IS_FORMULA, UNPRINTABLE, is_formula


@dataclass(frozen=True)
class ModelDescription:
    """The description of a model that its file contains.

    Attributes:
        classes: the classes in the order of the outputs.
        backbone: its name in ``build_backbone``.
        method: the training method; only ``ccl`` with ``soft_label_source: head`` has a head.
        short_side, crop: pixels; images are resized to the first and cropped to the second.
        mean, standard_deviation: normalisation of values in [0, 1], per channel.
        label_matrix: the labels that trained the classifier, with row k for class k: soft or hard labels.
        softness: p̄ of that matrix.
        softness_epoch: the epoch of the dictionary, None without a head.
        lowest_softness_epoch: the epoch of the lowest p̄ before the dictionary was frozen, None without a head or rule.
        converged_epoch: the epoch in which the dictionary was frozen, None if it was not.
        params: all params of the train stage.
        ran_on: what else the result depends on.
        version: version of this package.
        colour_mean, colour_deviation: of the training images, see ``images.colours.Colours``; None in older files.
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
    colour_mean: list[float] | None = None
    colour_deviation: list[float] | None = None

    @property
    def colours(self) -> Colours | None:
        """The colours of the training images, None if they are not recorded."""
        if self.colour_mean is None or self.colour_deviation is None:
            return None
        return Colours(self.colour_mean, self.colour_deviation)

    @property
    def has_head(self) -> bool:
        """Whether the labels were learned by a CCL head, which is part of the model."""
        return self.method == "ccl" and self.params.get("soft_label_source", "head") == "head"

    @property
    def normalization(self) -> Normalization:
        """The normalisation of the training images."""
        return Normalization(tuple(self.mean), tuple(self.standard_deviation))

    @property
    def layout(self) -> torch.memory_format:
        """The memory layout of images and weights in training; another layout may round differently."""
        return memory_layout(self.params.get("memory_format", "contiguous"))

    @property
    def head_settings(self) -> dict[str, Any]:
        """The settings of the head."""
        settings = self.params.get("head", self.params)  # older files have no group `head`
        return {name: settings[name] for name in HEAD_SETTINGS}


HEAD_SETTINGS = ("margin", "temperature")
CHANNELS = 3
LEVELS = 255
LAYOUTS = ("contiguous", "channels_last")
TOLERANCE = 1e-3
"""How far the sum of a row of labels may be from 1, and p̄ from the mean of the diagonal."""
_MOST_TYPE_PROBLEMS = 5
_ADAPTER = TypeAdapter(ModelDescription)


def description_problems(values: Any) -> list[str]:
    """Everything that is wrong with what a model file says, in the words of an error message; its sha256 may be right.

    Args:
        values: as JSON gives them, a value for each attribute of ``ModelDescription``.
    """
    if not isinstance(values, dict):
        return ["the description is no group of values"]
    unknown = [
        f"{name!r} is unknown" for name in sorted(values.keys() - {field.name for field in fields(ModelDescription)})
    ]
    try:
        description = _ADAPTER.validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        problems = [_described(details) for details in error.errors(include_url=False, include_input=False)]
        more = len(problems) - _MOST_TYPE_PROBLEMS
        return unknown + problems[:_MOST_TYPE_PROBLEMS] + ([f"and {more:,} more like these"] if more > 0 else [])
    return [*unknown, *_problems(description)]


def _described(details: ErrorDetails) -> str:
    where, what = ".".join(map(str, details["loc"])), details["msg"]
    return f"{where or 'the description'}: {what[0].lower()}{what[1:]}"


def _problems(description: ModelDescription) -> Iterator[str]:
    yield from _name_problems(description)
    if not 1 <= description.crop <= description.short_side <= math.isqrt(MAX_PIXELS):
        yield (
            f"crop and short_side: 1 ≤ {description.crop} ≤ {description.short_side} ≤ {math.isqrt(MAX_PIXELS)} "
            "is not so"
        )
    for name, values in (("mean", description.mean), ("standard_deviation", description.standard_deviation)):
        if len(values) != CHANNELS or not all(map(math.isfinite, values)):
            yield f"{name} is not {CHANNELS} numbers"
    if any(value <= 0 for value in description.standard_deviation):
        yield "standard_deviation is not positive"
    yield from _colour_problems(description)
    yield from _label_problems(description.label_matrix, len(description.classes), description.softness)
    for name in ("softness_epoch", "lowest_softness_epoch", "converged_epoch"):
        if (epoch := getattr(description, name)) is not None and epoch < 1:
            yield f"{name} is not from 1 on"
    yield from _param_problems(description)


def _colour_problems(description: ModelDescription) -> Iterator[str]:
    names = ("colour_mean", "colour_deviation")
    for name in names:
        values = getattr(description, name)
        if values is not None and (len(values) != CHANNELS or not all(0 <= value <= LEVELS for value in values)):
            yield f"{name} is not {CHANNELS} numbers from 0 to {LEVELS}"
    if len({getattr(description, name) is None for name in names}) > 1:
        yield "colour_mean and colour_deviation must both be there, or neither"


def _name_problems(description: ModelDescription) -> Iterator[str]:
    classes = description.classes
    if len(classes) < 2:
        yield f"classes: {len(classes)} instead of two or more"
    if repeated := [name for name, count in Counter(classes).items() if count > 1]:
        yield f"classes: {repeated[0]!r} is there more than once"
    if "" in classes:
        yield "classes: one has no name"
    names = {"classes": classes, **{name: [getattr(description, name)] for name in ("backbone", "method", "version")}}
    for name, texts in names.items():
        if odd := [text for text in texts if UNPRINTABLE.search(text)]:
            yield f"{name}: {odd[0]!a} has control characters"
        if odd := [text for text in texts if is_formula(text)]:
            yield f"{name}: {odd[0]!r} {IS_FORMULA}"


def _label_problems(matrix: Sequence[Sequence[float]], num_classes: int, softness: float) -> Iterator[str]:
    if len(matrix) != num_classes or any(len(row) != num_classes for row in matrix):
        yield f"label_matrix is not {num_classes} × {num_classes}"
    elif not all(math.isfinite(value) and value >= 0 for row in matrix for value in row):
        yield "label_matrix holds negative values or such that are no numbers"
    elif any(abs(sum(row) - 1) > TOLERANCE for row in matrix):
        yield "label_matrix has rows that do not sum to 1"
    elif num_classes and not abs(sum(row[k] for k, row in enumerate(matrix)) / num_classes - softness) <= TOLERANCE:
        yield "softness is not the mean of the diagonal of label_matrix"


def _param_problems(description: ModelDescription) -> Iterator[str]:
    if description.params.get("memory_format", LAYOUTS[0]) not in LAYOUTS:
        yield f"params.memory_format is not {' or '.join(LAYOUTS)}"
    if not description.has_head:
        return
    try:
        settings = description.head_settings
    except (KeyError, TypeError):
        yield f"params do not say the head's {' and '.join(HEAD_SETTINGS)}"
        return
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in settings.values())
    if not numbers or not 0 <= settings["margin"] < math.inf or not 0 < settings["temperature"] < math.inf:
        yield "params: the head's margin is not from 0 on, or its temperature is not positive"
