"""Run Algorithm 1 on the training images; resumes an interrupted run."""

if __name__ == "__main__":
    from stages import start

    start("train")

import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch

from cclnet.dataset.splits import content_leakage_note, read_class_names, read_split
from cclnet.images.cache import ImageCache, read_copies
from cclnet.images.colours import colours_of
from cclnet.images.decoding import central_crop
from cclnet.images.subset import Subset
from cclnet.images.transfer import resident_pixels
from cclnet.metrics.matrices import read_soft_label_table
from cclnet.networks.catalogue import library, weights_file
from cclnet.networks.model_file import save_model
from cclnet.networks.pretrained import file_digest
from cclnet.params import Params, TrainParams
from cclnet.system.errors import errors_in_one_line
from cclnet.system.files import write_csv, write_json
from cclnet.system.interruption import interruptible
from cclnet.system.locks import only_process
from cclnet.system.machine import conditions, keep_freed_memory, select_device
from cclnet.system.progress import progress, silent
from cclnet.system.workspace import run_key, state_folder
from cclnet.system.writing import require_writable
from cclnet.training.callback import epoch_callback, ignore
from cclnet.training.description import describe
from cclnet.training.distributed import Processes, joined_processes, processes_to_start, start_processes
from cclnet.training.loop import fit
from cclnet.training.states import StateStore
from cclnet.training.trainer import Trainer

CLASSES, SPLIT = Path("data/classes.json"), Path("data/split.csv")
INDEX, PIXELS, RECORD = Path("data/images.csv"), Path("data/images.npy"), Path("data/images.json")
HISTORY, CONDITIONS = Path("metrics/history.csv"), Path("models/conditions.json")
MODEL = Path("models/model.safetensors")
LOCK = Path(".cclnet/training.lock")


def main() -> None:
    require_writable([HISTORY, CONDITIONS, MODEL], replace_protected=True)
    keep_freed_memory()
    params = Params.load()
    device = select_device(params.device)
    count = processes_to_start(params.processes, device)
    if count > 1:
        start_processes(count, "stages.train")
        return
    with joined_processes(device) as processes:
        # one trainer per results folder, whatever its params; with several processes, the first one
        alone = only_process(LOCK, "is training in this folder") if processes.rank == 0 else nullcontext()
        with alone:
            train(params.stage(TrainParams), device, processes)


def train(params: TrainParams, device: torch.device, processes: Processes) -> None:
    ran_on = conditions(params.processor, device, library(params.backbone), processes.count)
    labels_file = params.soft_labels_file
    named = {"weights": weights_file(params.weights), "soft_labels": labels_file}
    files = {name: file for name, file in named.items() if file}
    ran_on |= {name: {"sha256": file_digest(file)} for name, file in files.items()}
    classes = read_class_names(CLASSES)
    split = read_split(SPLIT, classes)
    cache = ImageCache.open(PIXELS, INDEX)
    resident = resident_pixels(cache, device)
    subsets = (Subset.of_split(cache, split, subset, classes) for subset in ("train", "validation"))
    training, validation = (replace(subset, resident=resident) for subset in subsets)
    if params.training_labels == "shuffled":
        training = training.with_shuffled_labels(params.seed)
    labels = None
    if labels_file:
        labels = torch.from_numpy(read_soft_label_table(labels_file, classes)).float()
    trainer = Trainer(params, training.class_counts(len(classes)), device, processes, labels)
    decides = [CLASSES, INDEX, RECORD, SPLIT, *files.values()]
    states = StateStore(state_folder("training"), run_key(params, *decides))
    first = processes.rank == 0  # only the first process writes and reports
    after_epoch = epoch_callback() if first else ignore
    started = time.monotonic()
    if first and (note := content_leakage_note(split, read_copies(PIXELS).groups())):
        print(note)
    with (
        states if first else nullcontext() as store,
        progress() if first else nullcontext(silent) as report,
        interruptible(processes.largest, insist=processes.count == 1) as end_if_asked_to,
    ):
        # after every epoch, so that the curves can be watched
        write_history = partial(write_csv, HISTORY)
        fit(trainer, training, validation, store, ran_on, report, end_if_asked_to, write_history, after_epoch)
        if not store:
            return
        write_json(CONDITIONS, ran_on)
        colours = colours_of(central_crop(cache[row], params.crop) for row in training.rows)
        save_model(MODEL, trainer.model, describe(trainer, classes, cache.short_side, ran_on, colours))
        store.clear()
    print(f"training took {timedelta(seconds=round(time.monotonic() - started))}")


if __name__ == "__main__":
    with errors_in_one_line("train"):
        main()
