"""Algorithm 1 on the training images; goes on where an interrupted run was."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from cclnet.dataset.splits import read_split
from cclnet.images.cache import ImageCache
from cclnet.images.subset import Subset
from cclnet.images.transfer import resident_pixels
from cclnet.networks.catalogue import library
from cclnet.networks.model_file import save_model
from cclnet.params import TrainParams
from cclnet.system.errors import errors_in_one_line
from cclnet.system.files import read_json, write_csv, write_json
from cclnet.system.interruption import interruptible
from cclnet.system.locks import only_process
from cclnet.system.machine import conditions, keep_freed_memory, select_device
from cclnet.system.progress import progress, silent
from cclnet.system.workspace import run_key, state_folder
from cclnet.system.writing import require_writable
from cclnet.training.distributed import Processes, joined_processes, processes_to_start, start_processes
from cclnet.training.loop import fit
from cclnet.training.states import StateStore
from cclnet.training.trainer import Trainer
from stages import PARAMS

CLASSES, INDEX, SPLIT = Path("data/classes.json"), Path("data/images.csv"), Path("data/split.csv")
HISTORY, CONDITIONS, MODEL = (
    Path("metrics/history.csv"),
    Path("models/conditions.json"),
    Path("models/model.safetensors"),
)
LOCK = Path(".cclnet/training.lock")


def main() -> None:
    require_writable([HISTORY, CONDITIONS, MODEL], replace_protected=True)
    keep_freed_memory()
    device = select_device(PARAMS.device)
    count = processes_to_start(PARAMS.processes, device)
    if count > 1:
        start_processes(count, "stages.train")
        return
    with joined_processes(device) as processes:
        # one trainer for the place of the results, whatever its params; of several processes the first one
        alone = only_process(LOCK, "is training in this folder") if processes.rank == 0 else nullcontext()
        with alone:
            train(device, processes)


def train(device: torch.device, processes: Processes) -> None:
    params = PARAMS.stage(TrainParams)
    ran_on = conditions(params.processor, device, library(params.backbone), processes.count)
    classes, split = read_json(CLASSES), read_split(SPLIT)
    cache = ImageCache.open(Path("data/images.npy"), INDEX)
    resident = resident_pixels(cache, device)
    subsets = (Subset.of_split(cache, split, subset, classes) for subset in ("train", "validation"))
    training, validation = (replace(subset, resident=resident) for subset in subsets)
    if params.training_labels == "shuffled":
        training = training.with_shuffled_labels(params.seed)
    trainer = Trainer(params, training.class_counts(len(classes)), device, processes)
    states = StateStore(state_folder("training"), run_key(params, CLASSES, INDEX, SPLIT))
    first = processes.rank == 0  # it alone writes and reports
    with (
        states if first else nullcontext() as store,
        progress() if first else nullcontext(silent) as report,
        interruptible(processes.largest, insist=processes.count == 1) as end_if_asked_to,
    ):
        history = fit(trainer, training, validation, store, ran_on, report, end_if_asked_to)
        if not store:
            return
        write_csv(HISTORY, history)
        write_json(CONDITIONS, ran_on)
        save_model(MODEL, trainer.model, trainer.describe(classes, cache.short_side, ran_on))
        store.clear()


if __name__ == "__main__":
    with errors_in_one_line("train"):
        main()
