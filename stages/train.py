"""Algorithm 1 on the training images; goes on where an interrupted run was."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from cclnet.backbones import library
from cclnet.batches import Subset
from cclnet.checkpoint import StateStore, save_model
from cclnet.engine import Trainer, fit
from cclnet.errors import errors_in_one_line
from cclnet.files import read_json, write_csv, write_json
from cclnet.images import ImageCache
from cclnet.interruption import interruptible
from cclnet.params import TrainParams
from cclnet.pretrained import file_digest, weights_file
from cclnet.processes import Processes, joined_processes, processes_to_start, start_processes
from cclnet.processor import conditions, keep_freed_memory, select_device
from cclnet.progress import progress, silent
from cclnet.splits import read_split
from cclnet.transfer import resident_pixels
from cclnet.workspace import run_key, state_folder
from stages import PARAMS

CLASSES, INDEX, SPLIT = Path("data/classes.json"), Path("data/images.csv"), Path("data/split.csv")


def main() -> None:
    keep_freed_memory()
    device = select_device(PARAMS.device)
    count = processes_to_start(PARAMS.processes, device)
    if count > 1:
        start_processes(count, "stages.train")
        return
    with joined_processes(device) as processes:
        train(device, processes)


def train(device: torch.device, processes: Processes) -> None:
    params = PARAMS.stage(TrainParams)
    ran_on = conditions(params.processor, device, library(params.backbone), processes.count)
    weights = weights_file(params.weights)
    if weights:
        ran_on |= {"weights": {"sha256": file_digest(weights)}}
    classes, split = read_json(CLASSES), read_split(SPLIT)
    cache = ImageCache.open(Path("data/images.npy"), INDEX)
    resident = resident_pixels(cache, device)
    subsets = (Subset.of_split(cache, split, subset, classes) for subset in ("train", "validation"))
    training, validation = (replace(subset, resident=resident) for subset in subsets)
    if params.training_labels == "shuffled":
        training = training.with_shuffled_labels(params.seed)
    trainer = Trainer(params, training.class_counts(len(classes)), device, processes)
    states = StateStore(
        state_folder("training"), run_key(params, CLASSES, INDEX, SPLIT, *([weights] if weights else []))
    )
    first = processes.rank == 0  # it alone writes and reports
    with (
        states if first else nullcontext() as store,
        progress() if first else nullcontext(silent) as report,
        interruptible(processes.largest) as end_if_asked_to,
    ):
        history = fit(trainer, training, validation, store, ran_on, report, end_if_asked_to)
        if not store:
            return
        write_csv(Path("metrics/history.csv"), history)
        write_json(Path("models/conditions.json"), ran_on)
        save_model(Path("models/model.safetensors"), trainer.model, trainer.describe(classes, cache.short_side, ran_on))
        store.clear()


if __name__ == "__main__":
    with errors_in_one_line("train"):
        main()
