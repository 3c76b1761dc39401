"""The model on the validation images: every number and table that the metrics and plots show."""

if __name__ == "__main__":
    from stages import start

    start("evaluate")

from pathlib import Path
from typing import Any

import numpy as np

from cclnet.dataset.sample import PLANTED_SIMILARITY, was_drawn
from cclnet.dataset.splits import content_leakage_note, leakage, leakage_note, read_split
from cclnet.images.cache import ImageCache, read_copies
from cclnet.images.subset import Subset
from cclnet.inference.probabilities import predict
from cclnet.metrics.calibration import reliability_table
from cclnet.metrics.likeness import confused_similarity, rank_correlation, share_explained_by_counts
from cclnet.metrics.likeness import notes as likeness_notes
from cclnet.metrics.predictions import prediction_table
from cclnet.metrics.scores import class_table, confusion_table, evaluate
from cclnet.metrics.scores import notes as score_notes
from cclnet.networks.model_file import load_model
from cclnet.params import EvaluateParams, Params
from cclnet.system.errors import errors_in_one_line
from cclnet.system.files import write_csv, write_json
from cclnet.system.machine import select_device


def main() -> None:
    everything = Params.load()
    params = everything.stage(EvaluateParams)
    device = select_device(everything.device)
    model, description = load_model(Path("models/model.safetensors"))
    classes, matrix = description.classes, np.array(description.label_matrix)
    cache = ImageCache.open(Path("data/images.npy"), Path("data/images.csv"))
    split = read_split(Path("data/split.csv"), classes)
    training, validation = (Subset.of_split(cache, split, subset, classes) for subset in ("train", "validation"))
    model.to(device=device, memory_format=description.layout)  # pyright: ignore[reportCallIssue]
    normalization, layout = description.normalization, description.layout
    probabilities = predict(model, validation, description.crop, device, normalization=normalization, layout=layout)

    confusion = confusion_table(validation.labels, probabilities.argmax(axis=1), classes)
    results: dict[str, Any] = {**evaluate(validation.labels, probabilities)}
    results |= {"softness": description.softness, "softness_epoch": description.softness_epoch}
    results |= {"lowest_softness_epoch": description.lowest_softness_epoch}
    results |= {"converged_epoch": description.converged_epoch}
    results |= {"leakage": leakage(split, classes)["leakage"]}
    counts = training.class_counts(len(classes)).numpy()
    explained = share_explained_by_counts(matrix, counts) if counts.all() else None
    results |= {"not_explained_by_counts": explained and explained.beyond}
    similarity = confused_similarity(confusion["count"].to_numpy().reshape(matrix.shape))
    follows = None if similarity is None else rank_correlation(matrix, similarity)
    results |= {"follows_confusion": follows}
    notes = score_notes(validation.labels, probabilities, classes)
    notes |= likeness_notes(matrix, counts, similarity, classes)
    leakage_notes = {
        "leakage": leakage_note(split),
        "leakage_by_content": content_leakage_note(split, read_copies(Path("data/images.npy")).groups()),
    }
    notes |= {name: note for name, note in leakage_notes.items() if note}
    if notes:
        results["notes"] = notes  # why a figure is null
    planted = params.dataset == "sample" and was_drawn(Path("data/provenance.json"))
    results |= {"planted_similarity": rank_correlation(matrix, PLANTED_SIMILARITY) if planted else None}

    cells = [
        {"true_class": true, "soft_class": soft, "value": value}
        for true, row in zip(classes, matrix.tolist(), strict=True)
        for soft, value in zip(classes, row, strict=True)
    ]

    write_json(Path("metrics/metrics.json"), results)
    write_csv(Path("metrics/classes.csv"), class_table(validation.labels, probabilities, classes))
    write_json(
        Path("metrics/confusion.json"), confusion.astype(object).where(confusion.notna(), None).to_dict("records")
    )
    write_csv(Path("metrics/reliability.csv"), reliability_table(validation.labels, probabilities))
    write_json(Path("metrics/soft_labels.json"), cells)
    images = [cache.images[row] for row in validation.rows]
    write_csv(Path("metrics/predictions.csv"), prediction_table(images, probabilities, classes))


if __name__ == "__main__":
    with errors_in_one_line("evaluate"):
        main()
