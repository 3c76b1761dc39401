"""The parts of the report that follow a training from epoch to epoch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cclnet.metrics.likeness import rank_correlation
from cclnet.views.figures import in_house_style, save_figure
from studies.features import course, network
from studies.features.records import Matrix, Results, balanced_confusions, soft_labels_of_distances, square
from studies.features.running import results_by
from studies.reporting.tables import markdown_table, spread

HEADS = {
    "none": "the paper's",
    "weights": "weights",
    "logits": "logits",
    "sampling": "sampling",
    "cross_fitted": "weights, cross-fitted",
}
ON_REAL_IMAGES = (
    "On ISIC 2018 (64 pixels, 16 epochs, split by lesion), where the true similarity is unknown: the agreement with "
    "the balanced confusions of the independent network. "
)
NETWORKS = {"baseline": "no head", "weights": "balanced head", "none": "the paper's head"}


def course_sections(folder: Path) -> Iterator[str]:
    """The matrix along the training of the head."""
    found = results_by("course", "balance", "rate", "labels")
    if not found:
        return
    save_figure(course_figure(found), folder / "course.png")
    yield "## Along the training of the head"
    yield (
        f"A head on the fixed features of the training images (80 % of the lesions), {course.EPOCHS} epochs of 62 "
        "minibatches of 128 at a constant rate, without a freeze: the agreement of its soft labels with the balanced "
        "confusions after every epoch. *Cross-fitted*: the dictionary learns from images of other lesions than the "
        "embedding. *Highest*: over the epochs, chosen by the reference, which is unknown in practice; "
        "*at the lowest p̄*: at the epoch that the paper's rule restores. Mean ± standard deviation over n seeds, each "
        "with a split of its own."
    )
    yield "![agreement, softness and accuracy by epoch](course.png)"
    yield markdown_table([course_row(place, cells) for place, cells in found.items()])


def course_row(place: tuple[Any, ...], cells: Sequence[Results]) -> dict[str, str]:
    """A row of the table of the course."""
    balance, rate, labels = place
    courses = [np.array(agreement_by_epoch(cell)) for cell in cells]
    lowest = [int(np.argmin(cell["softness"])) for cell in cells]
    row = {"head": HEADS[balance], "lr_CCL": f"{rate:g}", "labels": labels, "n": str(len(cells))}
    for epoch in (1, 5, 10, 20, course.EPOCHS):
        row[f"epoch {epoch}"] = spread([values[epoch - 1] for values in courses], 2)
    return row | {
        "highest": spread([values.max() for values in courses], 2),
        "its epoch": spread([float(values.argmax() + 1) for values in courses], 0),
        "at the lowest p̄": spread([values[at] for values, at in zip(courses, lowest, strict=True)], 2),
        "lowest p̄": spread([min(cell["softness"]) for cell in cells]),
        "last p̄": spread([cell["softness"][-1] for cell in cells]),
        "training accuracy": spread([cell["accuracy"][-1] for cell in cells]),
    }


def agreement_by_epoch(cell: Results) -> list[float]:
    """The agreement of the soft labels with the balanced confusions after every epoch."""
    labels = (soft_labels_of_distances(distances) for distances in cell["distances"])
    return [rank_correlation(each, balanced_confusions()) or 0.0 for each in labels]


@in_house_style
def course_figure(found: Mapping[tuple[Any, ...], Sequence[Results]]) -> Figure:
    """Agreement, softness and accuracy by epoch: one row for each quantity, one column for each rate."""
    rows: dict[str, Callable[[Results], Sequence[float]]] = {
        "agreement with balanced confusions": agreement_by_epoch,
        "softness": lambda cell: cell["softness"],
        "training accuracy": lambda cell: cell["accuracy"],
    }
    figure = Figure(figsize=(9, 8))
    grid = figure.subplots(len(rows), len(course.RATES), sharex=True, sharey="row", squeeze=False)
    colours = {balance: f"C{number}" for number, balance in enumerate(HEADS)}
    for (title, read), axes_row in zip(rows.items(), grid, strict=True):
        axes_row[0].set_ylabel(title)
        for rate, axes in zip(course.RATES, axes_row, strict=True):
            for (balance, own, labels), cells in found.items():
                if own == rate:
                    name = HEADS[balance] + (", shuffled labels" if labels == "shuffled" else "")
                    style = "--" if labels == "shuffled" else "-"
                    draw_mean(axes, [read(cell) for cell in cells], colours[balance], style, name)
    for rate, axes in zip(course.RATES, grid[0], strict=True):
        axes.set_title(f"lr_CCL {rate:g}")
        axes.axhline(0, color="gray", linewidth=0.8)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    grid[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def draw_mean(axes: Axes, courses: Sequence[Sequence[float]], colour: str, style: str, label: str) -> None:
    """Draw the mean of several curves, and their range as a band."""
    values = np.array(courses, dtype=np.float64)
    epochs = np.arange(1, values.shape[1] + 1)
    axes.plot(epochs, values.mean(axis=0), style, color=colour, label=label)
    if len(values) > 1:
        axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)


def network_sections(folder: Path) -> Iterator[str]:
    """The features of a network in training, after every epoch."""
    found = results_by("network", "imbalance", "method", "labels")
    if not found:
        return
    save_figure(network_figure(found), folder / "network.png")
    yield "## The features of a network in training"
    yield (
        "The embedded sample (separation 1.3, 960 training and 240 validation images), ResNet-18 from scratch, "
        f"{network.EPOCHS} epochs: the agreement with the known similarity after every epoch, of the soft labels and "
        "of the similarity (`ClassSimilarity`) in the features of the validation images alone, and of all images. "
        + (ON_REAL_IMAGES if any(place[0] == network.REAL for place in found) else "")
        + f"Lowest / mean over the epochs from {network.FIRST_EPOCH} to the last; mean ± standard deviation over "
        "n runs. *Between seeds*: the agreement of the similarities of two trainings on the same data, predictions of "
        "all images, lowest over the same epochs."
    )
    yield "![agreement with the known similarity by epoch](network.png)"
    yield markdown_table([network_row(place, cells) for place, cells in found.items()])


def network_row(place: tuple[Any, ...], cells: Sequence[Results]) -> dict[str, str]:
    """A row of the table of networks in training."""
    imbalance, method, labels = place
    row = {"data": data_title(imbalance), "network": NETWORKS[method], "labels": labels, "n": str(len(cells))}
    titles = {
        "predictions_all": "predictions, all images",
        "predictions_validation": "predictions, validation",
        "discriminant_all": "discriminant, all images",
        "class_means_all": "class means, all images",
        "soft_labels": "soft labels",
    }
    for column, title in titles.items():
        courses = [later(cell[column]) for cell in cells if cell[column][-1] is not None]
        lowest, mean = ([float(read(values)) for values in courses] for read in (np.min, np.mean))
        row[title] = f"{spread(lowest, 2)} / {spread(mean, 2)}" if courses else "–"
    return row | {
        "between seeds": between_seeds(imbalance, method, labels),
        "accuracy": spread([cell["accuracy"][-1] for cell in cells]),
    }


def data_title(imbalance: int | str) -> str:
    """The sample's imbalance, or the real images."""
    return "ISIC 2018, 64 pixels" if imbalance == network.REAL else f"sample, {imbalance} : 1"


def later(values: Sequence[float]) -> Matrix:
    """The values from ``FIRST_EPOCH`` on."""
    return np.array(values[network.FIRST_EPOCH - 1 :], dtype=np.float64)


def between_seeds(imbalance: int | str, method: str, labels: str) -> str:
    """The lowest agreement of the similarities of two trainings on the same data at the same epoch."""
    same_data = results_by("network", "imbalance", "method", "labels", "data")
    lowest: list[float] = []
    for place, cells in same_data.items():
        if place[:3] == (imbalance, method, labels):
            for a, b in combinations(cells, 2):
                pairs = zip(a["distances"], b["distances"], strict=True)
                found = [rank_correlation(square(own), square(other)) or 0.0 for own, other in pairs]
                lowest.append(float(later(found).min()))
    return spread(lowest, 2)


@in_house_style
def network_figure(found: Mapping[tuple[Any, ...], Sequence[Results]]) -> Figure:
    """Agreement with the known similarity by epoch: a column for each imbalance, features above, soft labels below."""
    imbalances = list(dict.fromkeys(place[0] for place in found))
    rows = {
        "features of all images": "predictions_all",
        "features of validation images": "predictions_validation",
        "soft labels": "soft_labels",
    }
    figure = Figure(figsize=(2.5 + 3.5 * len(imbalances), 8))
    grid = figure.subplots(len(rows), len(imbalances), sharex="col", sharey=True, squeeze=False)
    for (title, column), axes_row in zip(rows.items(), grid, strict=True):
        axes_row[0].set_ylabel(title)
        for imbalance, axes in zip(imbalances, axes_row, strict=True):
            axes.axhline(0.75, color="gray", linewidth=0.8, linestyle=":")
            for number, (method, name) in enumerate(NETWORKS.items()):
                for labels, style in (("original", "-"), ("shuffled", "--")):
                    cells = [
                        cell for cell in found.get((imbalance, method, labels), []) if cell[column][-1] is not None
                    ]
                    if cells:
                        label = name + (", shuffled labels" if labels == "shuffled" else "")
                        draw_mean(axes, [cell[column] for cell in cells], f"C{number}", style, label)
    for imbalance, axes in zip(imbalances, grid[0], strict=True):
        axes.set_title(data_title(imbalance))
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    lines = {str(line.get_label()): line for axes in grid[0] for line in axes.lines if line.get_label()[0] != "_"}
    grid[0, -1].legend(lines.values(), lines.keys(), loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
