"""``params.yaml``, which is checked as a whole first; a stage sees only the keys that it depends on.

Each group of the file is a model, and so is the whole file. The model of a stage contains exactly the keys that
``dvc.yaml`` lists for that stage: keys and groups of the file, and keys of the chosen dataset's block.
"""

import math
import re
import reprlib
import textwrap
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from cclnet.system.errors import ParamsError, did_you_mean
from cclnet.system.names import UNPRINTABLE, shown
from cclnet.system.workspace import user_path

PARAMS_FILE = Path("params.yaml")
SOFT_LABEL_SOURCES = ("head", "class_means")
SOFT_LABELS_SUFFIX = ".csv"
"""Of a file of soft labels, which may be named instead."""


def _not_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


def _count_or_auto(value: Any) -> Any:
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError("should be auto or a number from 1")
    return value


def _printable(value: str) -> str:
    if UNPRINTABLE.search(value):
        raise ValueError("should have no control characters")
    return value


def _part_of_the_run(value: float) -> float:
    if not 0 < value < 1:
        raise ValueError("should be a fraction of the run between 0 and 1, such as 0.7")
    return value


def _source_of_soft_labels(value: str) -> str:
    if value not in SOFT_LABEL_SOURCES and not value.endswith(SOFT_LABELS_SUFFIX):
        raise ValueError(f"should be {', '.join(SOFT_LABEL_SOURCES)} or a {SOFT_LABELS_SUFFIX} file")
    return value


Number = Annotated[float, BeforeValidator(_not_boolean), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Whole = Annotated[int, BeforeValidator(_not_boolean)]
Count = Annotated[Whole, Field(gt=0)]
Threads = Annotated[Whole, Field(gt=0, le=1024)]
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]
PartOfTheRun = Annotated[Number, AfterValidator(_part_of_the_run)]
Text = Annotated[str, Field(min_length=1)]
SoftLabelSource = Annotated[Text, AfterValidator(_source_of_soft_labels)]
Place = Annotated[Text, AfterValidator(_printable)]


class Keys(BaseModel):
    """A group of keys: immutable, without unknown keys, with lax types (DVC writes 1 for 1.0 and 1e-05 as text)."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ProcessorKeys(Keys):
    """The settings of the processor, which every stage uses."""

    processor: Literal["portable", "native"]
    threads: Threads | None


class SourceKeys(Keys):
    """Where the images and their labels come from."""

    source: Place


class SizeKeys(Keys):
    """The size of the cached images."""

    short_side: Count


class TrainingKeys(Keys):
    """The settings of training that depend on the dataset: crop, schedule, learning rates."""

    crop: Count
    epochs: Count
    milestones: list[PartOfTheRun]
    batch_size: Annotated[Whole, Field(ge=2)]
    memory_format: Literal["auto", "contiguous", "channels_last"]
    head_balance: Literal["none", "weights", "logits", "sampling"]
    lr_backbone_factor: Positive
    lr_ccl_factor: Positive

    @property
    def milestone_epochs(self) -> list[int]:
        """The epochs after which the learning rates decrease: each fraction of the run, rounded (halves up).

        A milestone at epoch 0 or at the last epoch has no effect and is left out.
        """
        nearest = [math.floor(Fraction(str(part)) * self.epochs + Fraction(1, 2)) for part in self.milestones]
        return [epoch for epoch in nearest if 0 < epoch < self.epochs]


class DatasetBlock(SourceKeys, SizeKeys, TrainingKeys, ProcessorKeys):
    """One block of ``datasets``: all settings that depend on the data."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = []
        if self.crop > self.short_side:
            problems.append(f"crop {self.crop} does not fit into images with a short side of {self.short_side}")
        if self.milestones != sorted(set(self.milestones)):
            problems.append(f"milestones {self.milestones} must rise")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class DrawnSample(Keys):
    """The settings of the generated sample, for ``dataset: sample``."""

    images: Annotated[Whole, Field(ge=100, le=100_000)]
    imbalance: Annotated[Number, Field(ge=1, le=1000)]
    separation: Annotated[Number, Field(gt=0, le=3)]
    seed: Seed


class SampleKeys(Keys):
    """The block of the embedded sample."""

    sample: DrawnSample


class SplitKeys(Keys):
    """The settings of the split."""

    split: Literal["image", "lesion"]
    validation_fraction: Annotated[Number, Field(gt=0, lt=1)]
    split_seed: Seed


class ConfidencePenalty(Keys):
    """See ``objectives.ConfidencePenalty``; the same holds for the other methods."""

    weight: NotNegative


class OnlineSmoothing(Keys):
    """Labels from the network's own predictions."""

    hard_share: Share


class MarginSmoothing(Keys):
    """A penalty on large differences between logits."""

    margin: NotNegative
    weight: NotNegative
    form: Literal["equation", "code"]


class VirtualTeacher(Keys):
    """Distillation from a fixed, hand-made teacher."""

    correct: Annotated[Number, Field(gt=0, lt=1)]
    weight: Share
    temperature: Positive
    form: Literal["equation", "code"]
    multiplier: Positive


class MaxSuppression(Keys):
    """A penalty on the largest logit."""

    weight: NotNegative
    last_weight: NotNegative


class LabelConfusion(Keys):
    """Labels from the similarity of an image to the classes."""

    weight: NotNegative
    embedding_dim: Count


class Peers(Keys):
    """The settings of related methods from other works."""

    confidence_penalty: ConfidencePenalty
    online_smoothing: OnlineSmoothing
    margin_smoothing: MarginSmoothing
    virtual_teacher: VirtualTeacher
    maxsup: MaxSuppression
    label_confusion: LabelConfusion


class Head(Keys):
    """The CCL head, its dictionary, and when the dictionary is frozen."""

    margin: Annotated[Number, Field(ge=0, le=4)]
    temperature: Positive
    dictionary_init: Literal["uniform", "normal", "positive"]
    freeze_patience: Count
    freeze_at: Literal["best", "current", "never"]


class LabelSmoothing(Keys):
    """The labels of ``method: lsr``."""

    epsilon: Share
    prior: Literal["uniform", "frequency"]


class Optimizer(Keys):
    """SGD: the backbone's learning rate, settings of both optimizers, and the factor of the classifier's loss."""

    lr_backbone: NotNegative
    momentum: Annotated[Number, Field(ge=0, lt=1)]
    weight_decay: NotNegative
    clip_norm: Positive
    loss_factor: Positive


class Jitter(Keys):
    """The form and the ranges of the colour jitter of training images, as in torchvision's ``ColorJitter``."""

    form: Literal["affine", "torchvision"]
    brightness: Share
    contrast: Share
    saturation: Share
    hue: Annotated[Number, Field(ge=0, le=0.5)]

    @property
    def ranges(self) -> dict[str, float]:
        """The arguments of torchvision's ``ColorJitter``."""
        return self.model_dump(exclude={"form"})


class Computation(Keys):
    """Precision and compilation of the network."""

    precision: Literal["float32", "bfloat16"]
    compile: Annotated[bool, Field(strict=True)]


class ExperimentKeys(Keys):
    """All settings of the paper's training, and of the methods that it is compared with."""

    backbone: Text
    weights: Place | None
    method: Literal[
        "baseline",
        "lsr",
        "ccl",
        "lsr_kl",
        "confidence_penalty",
        "online_smoothing",
        "margin_smoothing",
        "virtual_teacher",
        "maxsup",
        "label_confusion",
    ]
    soft_label_source: SoftLabelSource
    training_labels: Literal["original", "shuffled"]
    seed: Seed
    lr_ccl: Positive
    alpha_cc: NotNegative
    head: Head
    label_smoothing: LabelSmoothing
    optimizer: Optimizer
    jitter: Jitter
    computation: Computation
    peers: Peers

    @model_validator(mode="after")
    def _only_ccl_has_soft_labels(self) -> Self:
        if self.soft_label_source != "head" and self.method != "ccl":
            raise ValueError(f"soft_label_source must be head with method: {self.method}, which has no such labels")
        return self

    @property
    def has_head(self) -> bool:
        """Whether a CCL head is trained; otherwise the labels do not need one."""
        return self.method == "ccl" and self.soft_label_source == "head"

    @property
    def soft_labels_file(self) -> Path | None:
        """The file of soft labels, None without one."""
        if not self.soft_label_source.endswith(SOFT_LABELS_SUFFIX):
            return None
        return user_path(self.soft_label_source)


class DatasetKeys(Keys):
    """The name of the chosen block."""

    dataset: Text


class DownloadParams(SourceKeys, SampleKeys, ProcessorKeys):
    """What the download stage depends on."""


class SplitParams(SplitKeys, ProcessorKeys):
    """What the split stage depends on."""


class ResizeParams(SizeKeys, ProcessorKeys):
    """What the resize stage depends on."""


class TrainParams(ExperimentKeys, TrainingKeys, ProcessorKeys):
    """What the train stage depends on."""


class EvaluateParams(DatasetKeys, ProcessorKeys):
    """What the evaluate stage depends on."""


class PlotParams(DatasetKeys, ProcessorKeys):
    """What the plot stage depends on."""


class ReportParams(DatasetKeys, SplitKeys, SampleKeys, ExperimentKeys, SizeKeys, TrainingKeys, ProcessorKeys):
    """What the report stage shows: all params of an experiment except the source of its data."""


Stage = TypeVar("Stage", bound=Keys)
NameProblems = Callable[[str, str | None], list[str]]
"""Finds problems of the names of a backbone and its weights, see ``networks.catalogue.name_problems``."""


class Params(DatasetKeys, SplitKeys, SampleKeys, ExperimentKeys):
    """The whole file."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d{1,2})?)$")]  # torch takes 256 for 0
    processes: Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto)]
    datasets: dict[str, DatasetBlock]

    @classmethod
    def load(cls, path: Path = PARAMS_FILE, name_problems: NameProblems | None = None) -> "Params":
        """Read and check the file.

        Args:
            path: the file.
            name_problems: looks up the names of the backbone and its weights, which may import torch. None: the names
                are not looked up, and ``build_backbone`` refuses an unknown name.

        Raises:
            ParamsError: lists all mistakes in the file, one per line.
        """
        values = read_values(path)
        try:
            params, problems = cls.model_validate(values), []
        except ValidationError as error:
            params, problems = None, [_describe(details) for details in error.errors(include_url=False)]
        if isinstance(values, dict):
            problems += _dataset_problems(values) + _backbone_problems(values, name_problems)
        if problems or not params:
            raise ParamsError("\n".join([f"{path} cannot be used:", *(f"  {problem}" for problem in problems)]))
        return params

    def stage(self, model: type[Stage]) -> Stage:
        """The params of one stage."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        values |= {name: getattr(self.block, name) for name in DatasetBlock.model_fields}
        return model.model_validate({name: values[name] for name in model.model_fields})

    @property
    def block(self) -> DatasetBlock:
        """The chosen dataset's block."""
        return self.datasets[self.dataset]


def read_values(path: Path) -> Any:
    """Read a params file without checking its keys and values, such as that of an older version.

    Raises:
        ParamsError: there is no such file, or it is not YAML that every reader understands in the same way.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ParamsError(f"{path} is not a regular file")  # reading a pipe could block forever
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise ParamsError(f"there is no {path} here; run from the folder that holds it") from None
    except RecursionError:
        raise ParamsError(f"{path} cannot be read: groups lie too deep in each other") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:  # such as an impossible date, or a mapping as a key
        raise ParamsError(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def _dataset_problems(values: dict[Any, Any]) -> list[str]:
    dataset, blocks = values.get("dataset"), values.get("datasets")
    if not isinstance(dataset, str) or not isinstance(blocks, dict) or dataset in blocks:
        return []
    names = [shown(str(name)) for name in blocks]
    return [f"dataset: {_shortened(dataset)} is not among {', '.join(names)}{did_you_mean(dataset, names)}"]


def _backbone_problems(values: dict[Any, Any], name_problems: NameProblems | None) -> list[str]:
    backbone, weights = values.get("backbone"), values.get("weights")
    if name_problems is None or not isinstance(backbone, str):
        return []
    return name_problems(backbone, weights if isinstance(weights, str) else None)


def _describe(details: ErrorDetails) -> str:
    *parents, key = [shown(str(part)) for part in details["loc"]] or ["the file"]
    where = ".".join([*parents, key])
    match details["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key{_known_instead(key, parents)}"
        case "missing":
            return f"{where}: missing"
        case "literal_error":
            given, expected = details["input"], details.get("ctx", {})["expected"]
            options = [option.strip("' ") for option in expected.replace(" or ", ", ").split(",")]
            suggestion = did_you_mean(given, options) if isinstance(given, str) else ""
            return f"{where}: {_shortened(given)} is not {expected}{suggestion}"
        case "model_type" | "dict_type":
            return f"{where}: should be a group of keys, not {_shortened(details['input'])}"
        case _:
            message = details["msg"].removeprefix("Value error, ")
            given = "" if isinstance(details["input"], dict) else f", not {_shortened(details['input'])}"
            return f"{where}: {message[0].lower()}{message[1:]}{given}"


_MOVED = {
    "lsr_epsilon": "label_smoothing.epsilon",
    "lsr_prior": "label_smoothing.prior",
    **{key: f"head.{key}" for key in Head.model_fields},
    **{key: f"optimizer.{key}" for key in Optimizer.model_fields},
    **{key: f"jitter.{key}" for key in Jitter.model_fields},
    **{key: f"computation.{key}" for key in Computation.model_fields},
}
"""Keys that were at the top level of the file in older versions, and their new places."""


def _known_instead(key: str, parents: list[str]) -> str:
    """A suggestion for an unknown key."""
    if parents:
        return did_you_mean(key, _keys_of_group(parents))
    if key in _MOVED:
        return f"; it is now {_MOVED[key]}"
    return did_you_mean(key, {name: name for name in Params.model_fields} | _MOVED)


def _keys_of_group(path: list[str]) -> list[str]:
    if path[0] == "datasets":
        return list(DatasetBlock.model_fields)
    model: Any = Params
    for name in path:
        model = model.model_fields[name].annotation
    return list(model.model_fields)


def _shortened(value: Any) -> str:
    """A value in about eighty characters; nested values, which may be recursive, are abbreviated."""
    return textwrap.shorten(reprlib.repr(value), 80)


class _Loader(yaml.SafeLoader):
    """A YAML loader that refuses values that could be misread silently.

    If a key occurs twice, YAML keeps the later value. PyYAML reads YAML 1.1, where ``010`` is 8, ``1:30`` is 90 and
    ``no`` is false; DVC reads YAML 1.2, where these are 10 and two strings.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_unambiguous(self, node: yaml.ScalarNode) -> Any:
        """A number or boolean, if both versions of YAML read it in the same way."""
        kind = node.tag.rpartition(":")[2]
        if not _UNAMBIGUOUS[kind].fullmatch(node.value):
            message = f"'{node.value}' has two meanings, in YAML 1.1 and 1.2: write a plain number, true, or false"
            raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
        return yaml.SafeLoader.yaml_constructors[node.tag](self, node)


_UNAMBIGUOUS = {
    "bool": re.compile("true|True|TRUE|false|False|FALSE"),
    "int": re.compile("[-+]?(0|[1-9][0-9]*)"),
    "float": re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
}
for _kind in _UNAMBIGUOUS:
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_unambiguous)
