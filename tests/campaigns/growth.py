"""The stages from train on with many images and many classes: seconds and memory of each.

    python -m tests.campaigns.growth [IMAGES] [CLASSES]

100,000 images of 12 × 12 random pixels and 1,000 classes by default, a fifth of them for validation. Ends with status 1
if a stage fails. Memory is the peak of resident memory of the stage's process.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from cclnet.system.files import write_csv, write_json
from tests.campaigns.golden import PROJECT, small_params

SIDE = 12  # pixels
BLOCK = {"source": "nowhere", "short_side": SIDE, "crop": SIDE, "epochs": 1, "batch_size": 256, "threads": 2}
STEPS = {
    "train": ["-m", "stages.train"],
    "evaluate": ["-m", "stages.evaluate"],
    "plot": ["-m", "stages.plot"],
    "report": ["-m", "stages.report"],
    "compare": ["-m", "cclnet", "compare", "workspace", "workspace", "--json", "difference.json"],
}


def write_data(folder: Path, images: int, num_classes: int) -> None:
    """What the stages before train leave: every fifth image for validation, three images a lesion."""
    random = np.random.default_rng(0)
    classes = [f"class {number:04}" for number in range(num_classes)]
    names = [f"image_{number:07}" for number in range(images)]
    size = SIDE * SIDE * 3
    (folder / "data").mkdir()
    np.save(folder / "data" / "images.npy", random.integers(0, 256, images * size, dtype=np.uint8))
    index = {"image": names, "height": SIDE, "width": SIDE, "offset": np.arange(images) * size, "sha256": "0" * 64}
    write_csv(folder / "data" / "images.csv", pd.DataFrame(index))
    split = {
        "image": names,
        "label": [classes[(number // 5) % num_classes] for number in range(images)],
        "lesion": [f"lesion_{number // 3}" for number in range(images)],
        "subset": ["train" if number % 5 else "validation" for number in range(images)],
    }
    write_csv(folder / "data" / "split.csv", pd.DataFrame(split))
    write_json(folder / "data" / "classes.json", classes)
    write_json(folder / "data" / "provenance.json", [])
    params: dict[str, Any] = small_params("portable") | {"dataset": "folder", "backbone": "shufflenet_v2_x0_5"}
    params["datasets"]["folder"] |= BLOCK | {"milestones": []}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def run_step(folder: Path, arguments: list[str]) -> tuple[int, float, float]:
    """The exit status, the seconds and the GB of a process in a folder."""
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        os.chdir(folder)
        sink = os.open("output.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.execve(sys.executable, [sys.executable, *arguments], os.environ | {"PYTHONPATH": str(PROJECT)})  # noqa: S606
    _, status, used = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - began, used.ru_maxrss / 1e6


def main(images: int = 100_000, num_classes: int = 1_000) -> int:
    """Run all steps, and print a line for each; gives the exit status."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, images, num_classes)
        print(f"{images:,} images, {num_classes:,} classes")
        for step, arguments in STEPS.items():
            status, seconds, memory = run_step(folder, arguments)
            print(f"{step:8}  {seconds:7.1f} s  {memory:5.2f} GB{f'  status {status}' if status else ''}", flush=True)
            if status:
                print((folder / "output.txt").read_text(encoding="utf-8")[-2000:])
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
