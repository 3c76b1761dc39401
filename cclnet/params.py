"""``params.yaml``, checked as a whole before anything is done; a stage sees only the keys that it depends on.

The keys come in groups. The whole file is made of them, and so is each stage's model, which holds exactly what
``dvc.yaml`` lists for that stage: top-level keys and those of the chosen dataset's block, side by side.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from cclnet.system.errors import CCLNetError, MissingPackageError, ParamsError

PARAMS_FILE = Path("params.yaml")


def _not_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


def _count_or_auto(value: Any) -> Any:
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError("should be auto or a number from 1")
    return value


Number = Annotated[float, BeforeValidator(_not_boolean), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Whole = Annotated[int, BeforeValidator(_not_boolean)]
Count = Annotated[Whole, Field(gt=0)]
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1)]


class Keys(BaseModel):
    """A group of keys: lax types (DVC writes 1 for 1.0 and 1e-05 as text), no unknown key, no later change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ProcessorKeys(Keys):
    """What every stage's process is started with."""

    processor: Literal["portable", "native"]
    threads: Count | None


class SourceKeys(Keys):
    """Where the images and their labels come from."""

    source: Text


class SizeKeys(Keys):
    """The size of the cached images."""

    short_side: Count


class CropKeys(Keys):
    """The part of an image that the network sees."""

    crop: Count


class ScheduleKeys(Keys):
    """How long and in what portions training goes on."""

    epochs: Count
    milestones: list[Count]
    batch_size: Annotated[Whole, Field(ge=2)]


class LayoutKeys(Keys):
    """How images and weights lie in memory, by which convolutions are faster or slower."""

    memory_format: Literal["contiguous", "channels_last"]


class HeadKeys(Keys):
    """How the CCL head is fitted to the data's class sizes and to the length of the schedule."""

    head_balance: Literal["none", "weights", "logits", "sampling"]
    lr_ccl_factor: Positive


class DatasetBlock(SourceKeys, SizeKeys, CropKeys, ScheduleKeys, LayoutKeys, HeadKeys, ProcessorKeys):
    """One block of ``datasets``: everything that depends on the data."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = []
        if self.crop > self.short_side:
            problems.append(f"crop {self.crop} does not fit into images with a short side of {self.short_side}")
        if self.milestones != sorted(set(self.milestones)) or max(self.milestones, default=0) >= self.epochs:
            problems.append(f"milestones {self.milestones} must rise and lie before the last of {self.epochs} epochs")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class DrawnSample(Keys):
    """What is drawn for ``dataset: sample``."""

    images: Annotated[Whole, Field(ge=100, le=100_000)]
    imbalance: Annotated[Number, Field(ge=1, le=1000)]
    seed: Seed


class SampleKeys(Keys):
    """The block of the embedded sample."""

    sample: DrawnSample


class SplitKeys(Keys):
    """Which images are held out."""

    split: Literal["image", "lesion"]
    validation_fraction: Annotated[Number, Field(gt=0, lt=1)]
    split_seed: Seed


class ConfidencePenalty(Keys):
    """See ``objectives.ConfidencePenalty``, as of the others of the same name."""

    weight: NotNegative


class OnlineSmoothing(Keys):
    """Labels that the network made itself."""

    hard_share: Share


class MarginSmoothing(Keys):
    """A penalty on logits too far apart."""

    margin: NotNegative
    weight: NotNegative
    form: Literal["equation", "code"]


class VirtualTeacher(Keys):
    """Distillation from a teacher made by hand."""

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
    """Labels from how an image resembles the classes."""

    weight: NotNegative
    embedding_dim: Count


class Peers(Keys):
    """The settings of the methods that are not the paper's."""

    confidence_penalty: ConfidencePenalty
    online_smoothing: OnlineSmoothing
    margin_smoothing: MarginSmoothing
    virtual_teacher: VirtualTeacher
    maxsup: MaxSuppression
    label_confusion: LabelConfusion


class ExperimentKeys(Keys):
    """Everything that the paper varies or fixes in training, and what it is compared with."""

    backbone: Text
    weights: Text | None
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
        "class_means",
    ]
    loss_factor: Positive
    training_labels: Literal["original", "shuffled"]
    seed: Seed
    lr_ccl: Positive
    alpha_cc: NotNegative
    margin: Annotated[Number, Field(ge=0, le=4)]
    temperature: Positive
    dictionary_init: Literal["uniform", "normal", "positive"]
    freeze_patience: Count
    freeze_at: Literal["best", "current", "never"]
    lsr_epsilon: Share
    lsr_prior: Literal["uniform", "frequency"]
    peers: Peers
    lr_backbone: NotNegative
    momentum: Annotated[Number, Field(ge=0, lt=1)]
    weight_decay: NotNegative
    clip_norm: Positive
    precision: Literal["float32", "bfloat16"]
    compile: Annotated[bool, Field(strict=True)]
    brightness: Share
    contrast: Share
    saturation: Share
    hue: Annotated[Number, Field(ge=0, le=0.5)]


class DatasetKeys(Keys):
    """The name of the chosen block."""

    dataset: Text


class DownloadParams(SourceKeys, SampleKeys, ProcessorKeys):
    """What the download stage depends on."""


class SplitParams(SplitKeys, ProcessorKeys):
    """What the split stage depends on."""


class ResizeParams(SizeKeys, ProcessorKeys):
    """What the resize stage depends on."""


class TrainParams(ExperimentKeys, CropKeys, ScheduleKeys, LayoutKeys, HeadKeys, ProcessorKeys):
    """What the train stage depends on."""


class EvaluateParams(DatasetKeys, ProcessorKeys):
    """What the evaluate stage depends on."""


class PlotParams(DatasetKeys, ProcessorKeys):
    """What the plot stage depends on."""


class ReportParams(
    DatasetKeys,
    SplitKeys,
    SampleKeys,
    ExperimentKeys,
    SizeKeys,
    CropKeys,
    ScheduleKeys,
    LayoutKeys,
    HeadKeys,
    ProcessorKeys,
):
    """What the report stage shows: all that an experiment depends on but the folder or address of its data."""


Stage = TypeVar("Stage", bound=Keys)


class Params(DatasetKeys, SplitKeys, SampleKeys, ExperimentKeys):
    """The whole file."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
    processes: Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto)]
    datasets: dict[str, DatasetBlock]

    @classmethod
    def load(cls, path: Path = PARAMS_FILE) -> "Params":
        """Read and check the file.

        Raises:
            ParamsError: with every mistake in the file, a line each.
        """
        try:
            values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
        except FileNotFoundError:
            raise ParamsError(f"there is no {path} here; run from the folder that holds it") from None
        except (yaml.YAMLError, ValueError, TypeError) as error:  # an impossible date, a key that is a table
            raise ParamsError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
        try:
            params = cls.model_validate(values)
        except ValidationError as error:
            problems = [_describe(details) for details in error.errors(include_url=False)]
            raise _refusal(path, problems + _problems_with_names(values)) from None
        if params.dataset not in params.datasets:
            raise _refusal(path, _problems_with_names(values))
        return params

    def check_backbone(self) -> None:
        """Ask torchvision or timm whether it has the backbone, and whether a weights' file is one of it.

        Apart from ``load`` because it imports torch.

        Raises:
            ParamsError: it has not, or the file is not.
        """
        if self.weights is None and self.backbone in _PAPER_BACKBONES:
            return
        problems = _backbone_problems(self.backbone, self.weights)
        for problem in problems or _file_problems(self.backbone, self.weights, self.block.crop):
            raise ParamsError(f"{PARAMS_FILE} cannot be used: {problem}")

    def stage(self, model: type[Stage]) -> Stage:
        """What one stage depends on."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        values |= {name: getattr(self.block, name) for name in DatasetBlock.model_fields}
        return model.model_validate({name: values[name] for name in model.model_fields})

    @property
    def block(self) -> DatasetBlock:
        """The chosen dataset's block."""
        return self.datasets[self.dataset]


_PAPER_BACKBONES = ("resnet18", "mobilenet_v2", "efficientnet_b0")


def _refusal(path: Path, problems: list[str]) -> ParamsError:
    return ParamsError("\n".join([f"{path} cannot be used:", *(f"  {problem}" for problem in problems)]))


def _problems_with_names(values: Any) -> list[str]:
    """The names of a file, wrong otherwise perhaps, that neither it nor the backbone's library knows."""
    if not isinstance(values, dict):
        return []
    problems = []
    dataset, blocks = values.get("dataset"), values.get("datasets")
    if isinstance(dataset, str) and isinstance(blocks, dict) and dataset not in blocks:
        names = [str(name) for name in blocks]
        problems.append(f"dataset: '{dataset}' is not among {', '.join(names)}{_did_you_mean(dataset, names)}")
    backbone, weights = values.get("backbone"), values.get("weights")
    if isinstance(backbone, str):
        problems += _backbone_problems(backbone, weights if isinstance(weights, str) else None)
    return problems


def _backbone_problems(backbone: str, weights: str | None) -> list[str]:
    from cclnet.networks.catalogue import library, model_names, weight_names
    from cclnet.networks.pretrained import weights_file

    try:
        names = model_names(backbone)
    except MissingPackageError as error:
        return [str(error)]
    if backbone not in names:
        return [f"backbone: {library(backbone)} has no '{backbone}'{_did_you_mean(backbone, names)}"]
    if weights is not None and not weights_file(weights) and weights not in weight_names(backbone):
        known = weight_names(backbone) or ["null"]
        return [f"weights: {backbone} has no '{weights}', only {', '.join(known)}{_did_you_mean(weights, known)}"]
    return []


def _file_problems(backbone: str, weights: str | None, crop: int) -> list[str]:
    from cclnet.networks.backbones import fitting_weights
    from cclnet.networks.pretrained import weights_file

    if not (file := weights_file(weights)):
        return []
    try:
        fitting_weights(backbone, file, crop)
    except CCLNetError as error:
        return [str(error)]
    return []


def _describe(details: ErrorDetails) -> str:
    *parents, key = [str(part) for part in details["loc"]] or ["the file"]
    where = ".".join([*parents, key])
    match details["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key{_did_you_mean(key, _keys_beside(parents))}"
        case "missing":
            return f"{where}: missing"
        case "literal_error":
            given, expected = details["input"], details.get("ctx", {})["expected"]
            options = [option.strip("' ") for option in expected.replace(" or ", ", ").split(",")]
            return f"{where}: '{given}' is not {expected}{_did_you_mean(str(given), options)}"
        case _:
            message = details["msg"].removeprefix("Value error, ")
            given = "" if isinstance(details["input"], dict) else f", not {details['input']!r}"
            return f"{where}: {message[0].lower()}{message[1:]}{given}"


def _keys_beside(parents: list[str]) -> list[str]:
    match parents:
        case []:
            return list(Params.model_fields)
        case ["datasets", _]:
            return list(DatasetBlock.model_fields)
        case ["peers"]:
            return list(Peers.model_fields)
        case ["peers", peer]:
            return list(getattr(Peers.model_fields[peer].annotation, "model_fields", []))
        case _:
            return list(DrawnSample.model_fields)


def _did_you_mean(given: str, options: Any) -> str:
    close = difflib.get_close_matches(given, list(options), n=1)
    return f"; did you mean {close[0]}?" if close else ""


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets a later key overwrite an earlier one silently; here that is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
