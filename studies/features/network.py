"""The features of a network in training, after every epoch, against a known similarity or an independent network's."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cclnet.dataset.isic import CLASSES
from cclnet.dataset.sample import PLANTED_SIMILARITY
from cclnet.dataset.splits import read_class_names, read_split
from cclnet.images.cache import ImageCache
from cclnet.images.subset import Subset
from cclnet.inference.probabilities import features_and_probabilities
from cclnet.metrics.likeness import rank_correlation
from cclnet.metrics.scores import evaluate
from cclnet.metrics.similarity import ClassSimilarity
from cclnet.params import Params, TrainParams
from cclnet.system.errors import CCLNetError
from cclnet.training.trainer import Trainer
from studies.data import prepare_data
from studies.features.data import FixedFeatures
from studies.features.records import Matrix, Plan, Results, Settings, balanced_confusions, rounded
from studies.running.grid import base
from studies.running.record import PREPARED
from studies.running.settings import ROOT, as_text, data_params, experiment_params, params_with

EPOCHS = 48  # three times the studies' usual length
FIRST_EPOCH = 10
"""From this epoch on, the report looks at every epoch."""
METHODS = {
    "baseline": {"method": "baseline"},
    "none": {"method": "ccl"},
    "weights": {"method": "ccl", "head_balance": "weights"},
}
MEASURED = {
    "validation": ("predictions",),
    "all": ("predictions", "discriminant", "class_means"),
}
"""Part of the images → estimators."""

RUNS = (("baseline", "original"), ("none", "original"), ("weights", "original"), ("baseline", "shuffled"))
ON_THE_SAMPLE: Plan = {
    f"network-{method}-{labels}-{imbalance}-{data}-{seed}": {
        "method": method,
        "labels": labels,
        "imbalance": imbalance,
        "data": data,
        "seed": seed,
    }
    for imbalance, data, seed in ((50, 0, 0), (50, 0, 1), (50, 1, 0), (1, 0, 0))
    for method, labels in RUNS
    if labels == "original" or (imbalance, data) == (50, 0)
}
REAL = "isic2018_64"
ON_REAL_IMAGES: Plan = {
    f"network-{method}-original-{REAL}-0-0": {
        "method": method,
        "labels": "original",
        "imbalance": REAL,
        "data": 0,
        "seed": 0,
    }
    for method in METHODS
}
PLAN: Plan = ON_THE_SAMPLE | ON_REAL_IMAGES


@dataclass(frozen=True)
class Part:
    """The training or the validation images, with the class and the lesion of each."""

    images: Subset
    names: list[str]
    lesions: list[str]


def run(settings: Settings, _: FixedFeatures) -> Results:
    """Train a network; after every epoch, compare its features and soft labels with the known similarity."""
    chosen = all_settings(settings)
    params = Params.model_validate(params_with(chosen)).stage(TrainParams)
    training, validation = opened(prepared(chosen))
    reference = balanced_confusions() if settings["imbalance"] == REAL else np.array(PLANTED_SIMILARITY)
    shuffled = settings["labels"] == "shuffled"
    learned = training.images.with_shuffled_labels(params.seed) if shuffled else training.images
    trainer = Trainer(params, training.images.class_counts(len(CLASSES)), torch.device("cpu"))
    found: Results = {}
    for _epoch in range(params.epochs):
        trainer.train_epoch(learned)
        for name, value in measured(trainer, training, learned, validation, reference).items():
            found.setdefault(name, []).append(value)
    return found


def measured(trainer: Trainer, training: Part, learned: Subset, validation: Part, reference: Matrix) -> Results:
    """What is recorded after an epoch: accuracies, agreement with the reference, distances of the classes."""
    (features, probabilities), (others, others_probabilities) = (
        features_and_probabilities(
            trainer.model, part.images, trainer.params.crop, trainer.device, trainer.normalization
        )
        for part in (training, validation)
    )
    labels = trainer.label_matrix().double().numpy() if trainer.head else None
    found: Results = {
        "training_accuracy": _rounded(evaluate(learned.labels, probabilities)["accuracy"]),
        "accuracy": _rounded(evaluate(validation.images.labels, others_probabilities)["accuracy"]),
        "soft_labels": None if labels is None else _rounded(rank_correlation(labels, reference)),
    }
    parts = {
        "validation": (others, validation.names, validation.lesions),
        "all": (
            np.concatenate([features, others]),
            training.names + validation.names,
            training.lesions + validation.lesions,
        ),
    }
    for part, estimators in MEASURED.items():
        for estimator in estimators:
            similarity = ClassSimilarity(estimator, resamples=0, shuffles=0, classes=CLASSES).fit(*parts[part])
            found[f"{estimator}_{part}"] = _rounded(rank_correlation(similarity.similarity_, reference))
            if (estimator, part) == ("predictions", "all"):
                found["distances"] = rounded(similarity.distances_)
    return found


def all_settings(settings: Settings) -> dict[str, Any]:
    """The settings of the pipeline for one cell."""
    shared = {"seed": settings["seed"], "split_seed": settings["data"], "training_labels": settings["labels"]}
    if settings["imbalance"] == REAL:
        own = {"dataset": REAL, "split": "lesion"}
    else:
        own = {
            "dataset": "sample",
            "sample.separation": 1.3,
            "sample.imbalance": settings["imbalance"],
            "sample.seed": settings["data"],
            "epochs": EPOCHS,
        }
    return base().settings | base().datasets[own["dataset"]].settings | METHODS[settings["method"]] | shared | own


def prepared(settings: Settings) -> Path:
    """The folder of the data, drawn on the way if they are a sample; the same folder as in the other studies.

    Raises:
        CCLNetError: real images are missing.
    """
    values = data_params(experiment_params(settings))
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    folder = ROOT / "studies" / "data" / f"{values['dataset']}-{values['split']}-{digest}"
    if not (folder / PREPARED).is_file():
        if settings["dataset"] == REAL:
            chosen = " ".join(as_text({name: settings[name] for name in ("dataset", "split", "split_seed")}))
            place = folder.relative_to(ROOT)
            raise CCLNetError(f"{place} holds no data: python -m studies.data {place} {chosen} source=FOLDER")
        prepare_data(folder, {**settings, "processor": "portable"})
    return folder / "data"


def opened(data: Path) -> tuple[Part, Part]:
    """The training and the validation images."""
    classes = read_class_names(data / "classes.json")
    split = read_split(data / "split.csv", classes)
    cache = ImageCache.open(data / "images.npy", data / "images.csv")
    lesion = dict(zip(split["image"], split["lesion"], strict=True))

    def part(name: str) -> Part:
        images = Subset.of_split(cache, split, name, classes)
        lesions = [lesion[cache.images[row]] for row in images.rows]
        return Part(images, [classes[label] for label in images.labels], lesions)

    return part("train"), part("validation")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
