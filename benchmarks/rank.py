"""One of the processes that ``benchmarks.questions.processes`` starts with torchrun, on its own core.

torchrun --standalone --nproc-per-node=2 -m benchmarks.rank FOLDER CASE REPETITIONS
"""

import json
import os
import sys
from pathlib import Path

from cclnet.system.machine import keep_freed_memory, prepare_processor


def main(folder: Path, case: list, repetitions: int) -> None:
    """Measure the images per second of one process, of all together, and of all independently; the first prints them.

    Args:
        folder: the folder with ``images.npy`` and ``images.csv``.
        case: the fields of a ``training.Case``.
        repetitions: number of repetitions of each, measured alternately.
    """
    keep_freed_memory()
    prepare_processor("native", threads=1)  # before NumPy and torch are imported
    import torch

    from benchmarks.measure import in_turn, seconds
    from benchmarks.training import Case, all_of, new_trainer
    from cclnet.images.cache import ImageCache
    from cclnet.training.distributed import joined_processes

    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["LOCAL_RANK"]) % len(cores)]})
    images = all_of(ImageCache.open(folder / "images.npy", folder / "images.csv"))
    whole = Case(*case)
    with joined_processes(torch.device("cpu")) as processes:
        half = whole._replace(batch=whole.batch // processes.count)
        one, apart = (new_trainer(size, "cpu", images) for size in (whole, half))
        together = new_trainer(whole, "cpu", images, processes)

        def slowest(work) -> float:
            processes.wait()
            return processes.largest(round(seconds(work) * 1e9)) / 1e9

        def nothing() -> None: ...

        series = in_turn(
            {
                "one": lambda: len(images) / slowest(nothing if processes.rank else lambda: one.train_epoch(images)),
                "together": lambda: len(images) / slowest(lambda: together.train_epoch(images)),
                "apart": lambda: processes.count * len(images) / slowest(lambda: apart.train_epoch(images)),
            },
            repetitions,
        )
        if processes.rank == 0:
            print(json.dumps({name: one.values for name, one in series.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]))
