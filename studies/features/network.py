"""The features of a network in training, after every epoch, on the sample whose similarity is known."""

import hashlib
import json
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
from cclnet.training.trainer import Trainer
from studies.data import prepare_data
from studies.features.data import FixedFeatures
from studies.features.records import Plan, Results, Settings, rounded
from studies.running.grid import base
from studies.running.record import PREPARED
from studies.running.settings import ROOT, data_params, experiment_params, params_with

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
PLAN: Plan = {
    f"network-{method}-{labels}-{imbalance}-{data}-{seed}": {
        "method": method,
        "labels": labels,
        "imbalance": imbalance,
        "data": data,
        "seed": seed,
    }
    for imbalance, data, seed in ((50, 0, 0), (50, 0, 1), (50, 1, 0), (1, 0, 0), (50, 2, 0))
    for method, labels in RUNS
    if labels == "original" or (imbalance, data) == (50, 0)
}


def run(settings: Settings, _: FixedFeatures) -> Results:
    """Train on the sample; after every epoch, compare features and soft labels with the known similarity."""
    chosen = all_settings(settings)
    folder = data_folder(chosen)
    if not (folder / PREPARED).is_file():
        prepare_data(folder, chosen | {"processor": "portable"})
    params = Params.model_validate(params_with(chosen)).stage(TrainParams)
    classes = read_class_names(folder / "data" / "classes.json")
    split = read_split(folder / "data" / "split.csv", classes)
    cache = ImageCache.open(folder / "data" / "images.npy", folder / "data" / "images.csv")
    training, validation = (Subset.of_split(cache, split, subset, classes) for subset in ("train", "validation"))
    learned = training.with_shuffled_labels(params.seed) if settings["labels"] == "shuffled" else training
    lesion_of = dict(zip(split["image"], split["lesion"], strict=True))
    names, lesions = (
        [[read(part, row) for row in range(len(part))] for part in (training, validation)]
        for read in (
            lambda part, row: classes[part.labels[row]],
            lambda part, row: lesion_of[cache.images[part.rows[row]]],
        )
    )
    trainer = Trainer(params, training.class_counts(len(classes)), torch.device("cpu"))
    found: Results = {"accuracy": [], "training_accuracy": [], "soft_labels": [], "distances": []}
    found |= {f"{estimator}_{part}": [] for part, estimators in MEASURED.items() for estimator in estimators}
    for _epoch in range(EPOCHS):
        trainer.train_epoch(learned)
        features, probabilities = zip(
            *(
                features_and_probabilities(trainer.model, part, params.crop, trainer.device, trainer.normalization)
                for part in (training, validation)
            ),
            strict=True,
        )
        found["training_accuracy"].append(_score(evaluate(learned.labels, probabilities[0])["accuracy"]))
        found["accuracy"].append(_score(evaluate(validation.labels, probabilities[1])["accuracy"]))
        labels = trainer.label_matrix().double().numpy() if trainer.head else None
        found["soft_labels"].append(None if labels is None else _score(rank_correlation(labels, PLANTED_SIMILARITY)))
        parts = {
            "validation": (features[1], names[1], lesions[1]),
            "all": (np.concatenate(features), names[0] + names[1], lesions[0] + lesions[1]),
        }
        for part, estimators in MEASURED.items():
            for estimator in estimators:
                similarity = ClassSimilarity(estimator, resamples=0, shuffles=0, classes=CLASSES).fit(*parts[part])
                agreement = rank_correlation(similarity.similarity_, PLANTED_SIMILARITY)
                found[f"{estimator}_{part}"].append(_score(agreement))
                if (estimator, part) == ("predictions", "all"):
                    found["distances"].append(rounded(similarity.distances_))
    return found


def all_settings(settings: Settings) -> dict[str, Any]:
    """The settings of the pipeline for one cell."""
    return (
        base().settings
        | base().datasets["sample"].settings
        | METHODS[settings["method"]]
        | {
            "dataset": "sample",
            "sample.separation": 1.3,
            "sample.imbalance": settings["imbalance"],
            "training_labels": settings["labels"],
            "epochs": EPOCHS,
            "seed": settings["seed"],
            "split_seed": settings["data"],
            "sample.seed": settings["data"],
        }
    )


def data_folder(settings: Settings) -> Path:
    """Where the sample of these settings lies; the same folder as in the other studies."""
    values = data_params(experiment_params(settings))
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    return ROOT / "studies" / "data" / f"{values['dataset']}-{values['split']}-{digest}"


def _score(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
