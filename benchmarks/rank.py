"""One of the processes that ``benchmarks.processes`` has torchrun start; the first one prints its images a second.

torchrun --standalone --nproc-per-node=2 -m benchmarks.rank FOLDER CASE
"""

import json
import os
import sys
from pathlib import Path

from cclnet.processor import keep_freed_memory, prepare_processor


def main(folder: Path, case: list) -> None:
    """Train for an epoch, and for another one that is measured, on a core of this process's own.

    Args:
        folder: holds ``images.npy`` and ``images.csv``.
        case: the fields of a ``training.Case``.
    """
    keep_freed_memory()
    prepare_processor("native", threads=1)  # before what imports NumPy and torch
    import torch

    from benchmarks.training import Case, all_of, new_trainer, speed
    from cclnet.images import ImageCache
    from cclnet.processes import joined_processes

    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["LOCAL_RANK"]) % len(cores)]})
    images = all_of(ImageCache.open(folder / "images.npy", folder / "images.csv"))
    with joined_processes(torch.device("cpu")) as processes:
        trainer = new_trainer(Case(*case), "cpu", images, processes)
        trainer.train_epoch(images)
        measured = speed(len(images), lambda: trainer.train_epoch(images))
        if processes.rank == 0:
            print(measured)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
