"""``cclnet export``: export a model to ONNX."""

from pathlib import Path
from typing import Annotated

import typer

from cclnet.cli.options import ModelFile


def export(
    model_file: ModelFile,
    onnx_file: Annotated[Path, typer.Option("--onnx", metavar="FILE", help="The ONNX file to write.")],
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing", help="The model takes bytes, n × crop × crop × 3, RGB, and normalises them."
        ),
    ] = False,
) -> None:
    """Write a model as ONNX, for any number of images, after comparing its outputs with torch's.

    The input `images` is n × 3 × crop × crop float32, scaled to [0, 1] and normalised; the outputs are `logits` and
    `probabilities`, n × classes. The file's metadata contain the classes, the crop, the normalisation and all
    other attributes of the model.

    Not included: before that, each image has to be resized to the metadata's `short_side` (bilinear, antialiased,
    preserving the aspect ratio) and cropped to its central `crop`.
    """
    from cclnet.inference.onnx import to_onnx
    from cclnet.networks.model import load_model
    from cclnet.system.files import write_bytes
    from cclnet.system.writing import is_standard_output, require_writable

    require_writable([onnx_file], [model_file])
    model, description = load_model(model_file)
    exported = to_onnx(model, description, with_preprocessing)
    write_bytes(onnx_file, exported.content)
    line = f"{onnx_file}: {description.backbone}, differs from torch by {exported.difference:.1e} at most"
    typer.echo(line, err=is_standard_output(onnx_file))
