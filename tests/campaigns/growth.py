"""Every stage, ``cclnet check`` and ``cclnet compare`` with many images and classes: time and memory of each.

    make growth
    python -m tests.campaigns.growth [IMAGES] [CLASSES] [--side PIXELS] [--steps STEP …]

100,000 image files of 12 × 12 random pixels and 1,000 classes by default, a fifth of them for validation. Ends with
status 1 if a step fails. It prints the seconds that pass, those of computing on all cores, which other work changes
less, and the peak of resident memory of the step's process. Run it with a tenth of the images, too: what takes a tenth
of the time is linear.
"""

import argparse
import io
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from cclnet.system.files import write_csv
from tests.campaigns.golden import PROJECT, STAGES, small_params

OF_A_GROUP = 3
BLOCK = {"source": "images", "epochs": 1, "milestones": [], "batch_size": 256, "threads": 2}
COMPARE = ["compare", "workspace", "workspace", "--json", "difference.json"]
STEPS = {
    "check": ["-m", "cclnet", "check", "images", "--json", "findings.json"],
    **{stage: ["-m", f"stages.{stage}"] for stage in STAGES},
    "compare": ["-m", "cclnet", *COMPARE],
}


def write_data(folder: Path, images: int, num_classes: int, side: int) -> None:
    """A folder for each class, a table of labels and groups, and params."""
    random = np.random.default_rng(0)
    names = []
    for label in range(num_classes):
        (folder / "images" / f"class {label:04}").mkdir(parents=True)
    for number in range(images):
        data = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(data, "PNG")
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
    params["datasets"]["folder"] |= BLOCK | {"short_side": side, "crop": side}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def run_step(folder: Path, arguments: list[str]) -> tuple[int, float, float, float]:
    """The exit status, the seconds, those of computing, and the GB of a process in a folder."""
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        os.chdir(folder)
        sink = os.open("output.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.execve(sys.executable, [sys.executable, *arguments], os.environ | {"PYTHONPATH": str(PROJECT)})  # noqa: S606
    _, status, used = os.wait4(pid, 0)
    seconds = time.monotonic() - began
    return os.waitstatus_to_exitcode(status), seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6


def main() -> int:
    """Run the steps, and print a line for each; gives the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=int, nargs="?", default=100_000)
    parser.add_argument("classes", type=int, nargs="?", default=1_000)
    parser.add_argument("--side", type=int, default=12, help="of the square images, in pixels")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="all, or some in their order")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ProcessPoolExecutor(1) as pool:  # its memory would count as that of every step that is forked off
            pool.submit(write_data, folder, options.images, options.classes, options.side).result()
        print(f"{options.images:,} images of {options.side} pixels, {options.classes:,} classes", flush=True)
        for step in options.steps:
            status, seconds, computing, memory = run_step(folder, STEPS[step])
            failed = f"  status {status}" if status else ""
            print(f"{step:8}  {seconds:7.1f} s  {computing:7.1f} s of computing  {memory:5.2f} GB{failed}", flush=True)
            if status:
                print((folder / "output.txt").read_text(encoding="utf-8")[-2000:])
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
