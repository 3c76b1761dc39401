"""Models, images and tables that commands are given, made up; and what a command shows, read back."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from cclnet.cli import terminal as screen
from tests.images.builders import encoded, noise
from tests.networks.builders import description

PROJECT = Path(__file__).parents[2]
PICTURE = encoded(Image.fromarray(noise(12, 9)), "JPEG")
NO_IMAGE = "cannot be decoded: not in any known image format"
COUNTS = "MEL 1, NV 1, BCC 1, AKIEC 1, BKL 1, DF 1, VASC 1"
MODEL = replace(
    description(),
    backbone="timm/test_vit",  # of those that are exported to ONNX in seconds
    short_side=36,
    params=description().params | {"head_balance": "weights"},
)
CONTENTS = {f"ISIC_{number}": encoded(Image.fromarray(noise(50, 40, number)), "JPEG") for number in range(4)}
LABELS = dict(zip(CONTENTS, ["MEL", "NV", "BCC", "NV"], strict=True))
BALANCED = replace(description(), params={"head_balance": "weights"})
BASELINE = replace(BALANCED, method="baseline", label_matrix=np.eye(3).tolist(), softness=1.0)


def without_notes(out: str) -> str:
    """What ``check`` prints besides its notes."""
    return "".join(line for line in out.splitlines(keepends=True) if not line.startswith("note: "))


def lines_of(show, *arguments: object, terminal: bool = False, width: int = 100) -> list[str]:
    """What is printed, without trailing blanks and empty lines."""
    file = io.StringIO()
    width = width if terminal else screen.UNBOUNDED
    show(Console(file=file, width=width, color_system=None, force_terminal=terminal), *arguments)
    return [line.rstrip() for line in file.getvalue().splitlines() if line.strip()]


def words_of(lines: list[str]) -> list[list[str]]:
    """The cells of each line of a table."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
