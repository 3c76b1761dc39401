"""The arguments and options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Write the results to FILE as JSON; - writes only them to standard output."
    ),
]


class Device(StrEnum):
    """Where a network computes."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class Runtime(StrEnum):
    """What computes a network."""

    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"


ModelFile = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Model file from training, such as models/model.safetensors.")
]
DeviceOption = Annotated[
    Device,
    typer.Option(help="auto: the CUDA GPU if there is one, otherwise the CPU. mps: the GPU of an Apple computer."),
]
RuntimeOption = Annotated[
    Runtime,
    typer.Option(
        help="What computes the network. onnxruntime is faster on a CPU, after some seconds of conversion; it needs "
        "the packages onnx, onnxruntime and onnxscript."
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Images computed at once; at most 256 by default. Fewer need less memory."),
]
