"""Params of a pipeline in small."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.campaigns.golden import small_params

Copied = Callable[..., Path]
"""The fixture ``copied``."""


def write_params(folder: Path, block: dict[str, Any] | None = None, **changes: Any) -> None:
    """Small values with some of them changed, also in the block of the sample; the network is a small one."""
    values: dict[str, Any] = small_params("native") | {"backbone": "shufflenet_v2_x0_5"} | changes
    values["datasets"]["sample"] |= {"threads": 1} | (block or {})
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
