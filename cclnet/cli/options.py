"""The arguments and options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write the findings to FILE as JSON; - prints nothing but them."),
]


class Device(StrEnum):
    """Where a network computes."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="What training wrote: models/model.safetensors.")]
DeviceOption = Annotated[Device, typer.Option(help="auto: the GPU if there is one.")]
