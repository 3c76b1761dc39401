"""The params of an experiment: the project's ``params.yaml`` with some values changed."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cclnet.params import DatasetKeys, Params, ReportParams, SampleKeys, SizeKeys, SplitKeys
from cclnet.system.errors import CCLNetError

ROOT = Path(__file__).parents[2]

RENAMED = {
    "margin": "head.margin",
    "temperature": "head.temperature",
    "dictionary_init": "head.dictionary_init",
    "freeze_patience": "head.freeze_patience",
    "freeze_at": "head.freeze_at",
    "lsr_epsilon": "label_smoothing.epsilon",
    "lsr_prior": "label_smoothing.prior",
    "lr_backbone": "optimizer.lr_backbone",
    "momentum": "optimizer.momentum",
    "weight_decay": "optimizer.weight_decay",
    "clip_norm": "optimizer.clip_norm",
    "loss_factor": "optimizer.loss_factor",
    "brightness": "jitter.brightness",
    "contrast": "jitter.contrast",
    "saturation": "jitter.saturation",
    "hue": "jitter.hue",
    "precision": "computation.precision",
    "compile": "computation.compile",
}
"""Param names in committed cells → current names of the same params."""

DATA_KEYS = {key for group in (DatasetKeys, SplitKeys, SizeKeys, SampleKeys) for key in group.model_fields}
"""The params that the prepared data depend on, except the source of the official files."""


def params_with(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The project's params with some of them changed.

    Args:
        settings: path → value; strings are parsed as YAML, as in ``dvc exp run -S``. A key of the chosen dataset's
            block may be given without its path: ``epochs`` for ``datasets.isic2018.epochs``.

    Raises:
        CCLNetError: there is no such key. The values are not checked here; the stages check them.
    """
    params = deepcopy(_committed_params())
    dataset = settings.get("dataset", params["dataset"])
    block = params["datasets"].get(dataset, {})
    for path, value in settings.items():
        *parents, key = ["datasets", dataset, path] if path in block else path.split(".")
        place = params
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if not isinstance(place, dict) or key not in place:
            raise CCLNetError(f"{path}: params.yaml has no such key, nor has the block of {dataset}")
        place[key] = yaml.safe_load(value) if isinstance(value, str) else value
    return params


@cache
def _committed_params() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def experiment_params(settings: Mapping[str, Any]) -> dict[str, Any]:
    """All params that the result of an experiment depends on, as dotted names → checked values.

    The keys of the chosen dataset's block are on the top level (``epochs``). The source of the images, the device and
    the number of processes are left out.

    Raises:
        CCLNetError: a key does not exist or a value is invalid; it lists all problems in one line.
    """
    try:
        params = Params.model_validate(params_with(settings))
    except ValidationError as error:
        raise CCLNetError("; ".join(problems(error))) from None
    if params.dataset not in params.datasets:
        raise CCLNetError(f"dataset: '{params.dataset}' is not among {', '.join(params.datasets)}")
    return dict(_flat(params.stage(ReportParams).model_dump()))


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def data_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The params of an experiment that its prepared data depend on."""
    drawn = _committed_params()["datasets"][params["dataset"]]["source"] == "drawn"
    keys = DATA_KEYS if drawn else DATA_KEYS - set(SampleKeys.model_fields)
    return {name: value for name, value in params.items() if name.split(".")[0] in keys}


def todays(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded settings of a committed cell, under current names."""
    return {RENAMED.get(name, name): value for name, value in recorded.items()}


def parsed_settings(texts: list[str]) -> dict[str, str]:
    """Parse ``key=value`` texts; if a key is repeated, the last value is used.

    Raises:
        CCLNetError: a text is not such a pair.
    """
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise CCLNetError(f"{', '.join(wrong)}: write settings as key=value")
    return dict(text.split("=", 1) for text in texts)


def as_text(settings: Mapping[str, Any]) -> list[str]:
    """Settings as ``key=value``, in the form that ``parsed_settings`` and ``params_with`` read."""
    return [f"{key}={value if isinstance(value, str) else _yaml_of(value)}" for key, value in settings.items()]


def _yaml_of(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")


def problems(error: ValidationError) -> list[str]:
    """The errors of pydantic as short texts with their location."""
    found = []
    for details in error.errors(include_url=False):
        where = ".".join(str(part) for part in details["loc"]) or "the file"
        message = details["msg"].removeprefix("Value error, ")
        given = "" if isinstance(details["input"], dict | list) else f", not {details['input']!r}"
        found.append(f"{where}: {message[0].lower()}{message[1:]}{given}")
    return found
