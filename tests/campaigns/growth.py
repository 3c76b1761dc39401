"""Every stage, ``cclnet check`` and ``cclnet compare`` with many images and classes: seconds and memory of each.

    make growth
    python -m tests.campaigns.growth [IMAGES] [CLASSES]

100,000 image files of 12 × 12 random pixels and 1,000 classes by default, a fifth of them for validation. Ends with
status 1 if a step fails. Memory is the peak of resident memory of the step's process. Run it with half as many images,
too: what takes twice the time for twice the images is linear.
"""

import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from cclnet.system.files import write_csv
from tests.campaigns.golden import PROJECT, STAGES, small_params

SIDE = 12  # pixels
OF_A_GROUP = 3
BLOCK = {"source": "images", "short_side": SIDE, "crop": SIDE, "epochs": 1, "batch_size": 256, "threads": 2}
COMPARE = ["compare", "workspace", "workspace", "--json", "difference.json"]
STEPS = {
    "check": ["-m", "cclnet", "check", "images", "--json", "findings.json"],
    **{stage: ["-m", f"stages.{stage}"] for stage in STAGES},
    "compare": ["-m", "cclnet", *COMPARE],
}


def write_data(folder: Path, images: int, num_classes: int) -> None:
    """A folder for each class, a table of labels and groups, and params."""
    random = np.random.default_rng(0)
    names = []
    for label in range(num_classes):
        (folder / "images" / f"class {label:04}").mkdir(parents=True)
    for number in range(images):
        data = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(data, "PNG")
        names.append(f"class {number % num_classes:04}/{number:07}.png")
        (folder / "images" / names[-1]).write_bytes(data.getvalue())
    rows = [
        {
            "image": name,
            "label": name.split("/")[0],
            "group": f"p{number % num_classes}_{number // num_classes // OF_A_GROUP}",
        }
        for number, name in enumerate(names)
    ]
    write_csv(folder / "images" / "labels.csv", rows)
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
