"""Evaluate the model on the validation images, and on test images if the data give them."""

if __name__ == "__main__":
    from stages import start

    start("evaluate")

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from cclnet.dataset.sample import PLANTED_SIMILARITY, was_drawn
from cclnet.dataset.splits import content_leakage_note, leakage, leakage_note, read_split
from cclnet.images.cache import ImageCache, read_copies
from cclnet.images.subset import Subset
from cclnet.inference.examples import with_examples
from cclnet.inference.probabilities import features_and_probabilities
from cclnet.metrics.calibration import reliability_table
from cclnet.metrics.matrices import write_confusion, write_soft_labels
from cclnet.metrics.names import OF_TEST_IMAGES
from cclnet.metrics.predictions import prediction_table
from cclnet.metrics.score_table import Score, headline, score_predictions, score_soft_labels, write_scores
from cclnet.metrics.scores import class_table, confusion_counts, confusion_table
from cclnet.metrics.similarity import ClassSimilarity
from cclnet.networks.model import CCLNet, load_model
from cclnet.networks.model_description import ModelDescription
from cclnet.params import EvaluateParams, Params
from cclnet.system.errors import DataError, errors_in_one_line
from cclnet.system.files import write_csv, write_json
from cclnet.system.machine import select_device


def main() -> None:
    everything = Params.load()
    params, device = everything.stage(EvaluateParams), select_device(everything.device)
    model, description = load_model(Path("models/model.safetensors"))
    classes, split = description.classes, read_split(Path("data/split.csv"), description.classes)
    cache = ImageCache.open(Path("data/images.npy"), Path("data/images.csv"))
    training, validation = (Subset.of_split(cache, split, subset, classes) for subset in ("train", "validation"))
    model.to(device=device, memory_format=description.layout)  # pyright: ignore[reportCallIssue]
    normalization, layout = description.normalization, description.layout
    features, probabilities = features_and_probabilities(
        model, validation, description.crop, device, normalization, layout
    )
    labels, predicted = validation.labels, probabilities.argmax(axis=1)
    drawn = params.dataset == "sample" and was_drawn(Path("data/provenance.json"))
    planted = PLANTED_SIMILARITY if drawn else None  # compared by ranks, which do not depend on the separation
    images = [cache.images[row] for row in validation.rows]
    names = [classes[label] for label in labels]
    similarity, why_not = similarity_in(features, names, lesions_of(images, split), classes)
    in_features = similarity.similarity_ if similarity else None
    scores = all_scores(description, training, validation, probabilities, split, planted, in_features)
    scores |= scores_of_test_images(model, description, cache, split, device)

    write_json(Path("metrics/metrics.json"), headline(scores))
    write_scores(Path("metrics/scores.csv"), scores)
    write_soft_labels(Path("metrics/soft_labels.json"), description.label_matrix, classes)
    write_confusion(Path("metrics/confusion.json"), confusion_table(labels, predicted, classes))
    write_csv(Path("metrics/classes.csv"), class_table(labels, probabilities, classes))
    write_csv(Path("metrics/reliability.csv"), reliability_table(labels, probabilities))
    found = with_examples(similarity, features, names, images) if similarity else {"pairs": [], "note": why_not}
    write_json(Path("metrics/similarity.json"), found)
    write_csv(Path("metrics/predictions.csv"), prediction_table(images, probabilities, classes))


def all_scores(
    description: ModelDescription,
    training: Subset,
    validation: Subset,
    probabilities: NDArray[np.floating],
    split: pd.DataFrame,
    planted: ArrayLike | None,
    in_features: ArrayLike | None,
) -> dict[str, Score]:
    """The contents of ``metrics/scores.csv``: scores of predictions, soft labels, training and split."""
    classes, lesions = description.classes, split.loc[split["subset"] == "validation", "lesion"]
    counts = training.class_counts(len(classes)).numpy()
    confusion = confusion_counts(validation.labels, probabilities.argmax(axis=1), len(classes))
    return (
        score_predictions(validation.labels, probabilities, classes, lesions)
        | score_soft_labels(description.label_matrix, classes, counts, confusion, planted, in_features)
        | training_scores(description)
        | {"leakage": leakage_score(split, classes)}
    )


def scores_of_test_images(
    model: CCLNet, description: ModelDescription, cache: ImageCache, split: pd.DataFrame, device: torch.device
) -> dict[str, Score]:
    """The scores of predictions of the test images, ``test_accuracy`` and so on; empty if the data give none."""
    test = Subset.of_split(cache, split, "test", description.classes)
    if not len(test):
        return {}
    _, probabilities = features_and_probabilities(
        model, test, description.crop, device, description.normalization, description.layout
    )
    lesions = split.loc[split["subset"] == "test", "lesion"]
    scores = score_predictions(test.labels, probabilities, description.classes, lesions)
    return {f"{OF_TEST_IMAGES}{name}": score for name, score in scores.items()}


def lesions_of(images: Sequence[str], split: pd.DataFrame) -> list[str]:
    """The lesion of each image."""
    lesion = dict(zip(split["image"], split["lesion"], strict=True))
    return [lesion[image] for image in images]


def similarity_in(
    features: NDArray[np.float64], labels: Sequence[str], lesions: Sequence[str], classes: Sequence[str]
) -> tuple[ClassSimilarity | None, str]:
    """The similarity of the classes in features of images that were not trained on, or why it cannot be measured."""
    try:
        return ClassSimilarity(classes=classes).fit(features, labels, lesions), ""
    except DataError as error:
        return None, str(error)


def leakage_score(split: pd.DataFrame, classes: Sequence[str]) -> Score:
    """The share of validation images whose lesion is also in the training set; the note reports copies."""
    by_content = content_leakage_note(split, read_copies(Path("data/images.npy")).groups())
    notes = filter(None, [leakage_note(split), by_content])
    return Score(leakage(split, classes)["leakage"], note="; ".join(notes))


def training_scores(description: ModelDescription) -> dict[str, Score]:
    """The softness of the labels that trained the classifier, and the epochs of their learning."""
    without = "no CCL head" if description.softness_epoch is None else "the dictionary was never frozen"
    epochs = {
        name: Score(epoch, note=without if epoch is None else "")
        for name, epoch in (
            ("softness_epoch", description.softness_epoch),
            ("lowest_softness_epoch", description.lowest_softness_epoch),
            ("converged_epoch", description.converged_epoch),
        )
    }
    return {"softness": Score(description.softness)} | epochs


if __name__ == "__main__":
    with errors_in_one_line("evaluate"):
        main()
