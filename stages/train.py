"""Algorithm 1 on the training images; goes on where an interrupted run was."""

from pathlib import Path

import pandas as pd

from cclnet.backbones import library
from cclnet.batches import Subset
from cclnet.checkpoint import StateStore, save_model
from cclnet.engine import Trainer, fit
from cclnet.errors import errors_in_one_line
from cclnet.files import write_csv, write_json
from cclnet.images import ImageCache
from cclnet.interruption import interruptible
from cclnet.isic import CLASSES
from cclnet.params import TrainParams
from cclnet.processor import conditions, select_device
from cclnet.progress import progress
from cclnet.workspace import run_key, state_folder
from stages import PARAMS

INDEX, SPLIT = Path("data/images.csv"), Path("data/split.csv")


def main() -> None:
    params = PARAMS.stage(TrainParams)
    device = select_device(PARAMS.device)
    ran_on = conditions(params.processor, device, library(params.backbone))
    cache, split = ImageCache.open(Path("data/images.npy"), INDEX), pd.read_csv(SPLIT)
    training, validation = (Subset.of_split(cache, split, subset, CLASSES) for subset in ("train", "validation"))
    if params.training_labels == "shuffled":
        training = training.with_shuffled_labels(params.seed)
    trainer = Trainer(params, training.class_counts(len(CLASSES)), device)
    with (
        StateStore(state_folder("training"), run_key(params, INDEX, SPLIT)) as store,
        progress() as report,
        interruptible() as end_if_asked_to,
    ):
        history = fit(trainer, training, validation, store, ran_on, report, end_if_asked_to)
        write_csv(Path("metrics/history.csv"), history)
        write_json(Path("models/conditions.json"), ran_on)
        save_model(Path("models/model.safetensors"), trainer.model, trainer.describe(CLASSES, cache.short_side, ran_on))
        store.clear()


if __name__ == "__main__":
    with errors_in_one_line("train"):
        main()
