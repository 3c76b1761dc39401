"""The catalogue of questions and their settings; separate from their modules, which load torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cclnet.system.machine import Processor


class Question(NamedTuple):
    """A question that a module measures, and the settings of its process.

    Attributes:
        title: the question in words.
        threads: number of threads, None for one per core.
        repetitions: default number of repetitions.
        processor: the kernels to use.
        own_images: whether it can be measured on the user's own images; otherwise they are generated.
    """

    title: str
    threads: int | None = None
    repetitions: int = 5
    processor: Processor = "native"
    own_images: bool = True


@dataclass(frozen=True)
class Settings:
    """The settings of a measurement.

    Attributes:
        tiny: run every step in seconds on tiny data, to test that it works.
        repetitions: number of repetitions of each measurement.
        images: a folder or a zip of images to measure on, None for generated images.
        device: where networks are trained, ``cpu`` or ``cuda``.
    """

    tiny: bool
    repetitions: int
    images: Path | None
    device: str


QUESTIONS = {
    "training_step": Question("Training beside the fastest bare steps of the same network"),
    "waiting": Question("Training beside busy programs", repetitions=3, own_images=False),
    "input_path": Question("From the cache to the network's input, beside torchvision's path, on one core", threads=1),
    "departures": Question("How far the augmentation is from torchvision's", threads=1),
    "head_cost": Question("CCL-Net beside the baseline"),
    "resize": Question("The resize stage beside plain Pillow, and on two cores", threads=1),
    "memory": Question("Memory with ten times the images", repetitions=3, own_images=False),
    "pipeline": Question("The whole pipeline beside its bare training", 2, 1, "portable", own_images=False),
    "scaling": Question("An epoch with more images"),
    "processes": Question("Two processes that train together, beside one on one core", threads=1),
    "prediction": Question("Predicting beside onnxruntime, on one core", threads=1, own_images=False),
    "peers": Question("Training beside torchvision's and timm's"),
}
