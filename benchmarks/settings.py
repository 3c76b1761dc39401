"""What a benchmark is told on its command line."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        tiny: every step in seconds, on next to nothing: that it runs, not how fast.
        repetitions: of each thing measured.
        images: a folder or a zip of images to measure on, None to have some drawn.
        device: where networks are trained, ``cpu`` or ``cuda``.
    """

    tiny: bool
    repetitions: int
    images: Path | None
    device: str
