"""The pipeline as dvc.yaml declares it."""

from typing import Any

import yaml

from tests.project.modules import PROJECT

PIPELINE: dict[str, Any] = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES: dict[str, dict[str, Any]] = PIPELINE["stages"]


def names_of(items: list[Any] | None) -> dict[str, dict[str, Any]]:
    """dvc.yaml's ``- path`` and ``- path: {options}`` alike, as path → options."""
    return {
        name: options
        for item in items or []
        for name, options in (item.items() if isinstance(item, dict) else [(item, {})])
    }


def outputs(stage: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return names_of(stage.get("outs")) | names_of(stage.get("metrics")) | names_of(stage.get("plots"))
