"""Report of the experiments on class counts and on fixed features.

python -m studies features
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations, product
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from cclnet.dataset.isic import CLASSES
from cclnet.metrics.likeness import leave_one_class_out, rank_correlation, share_explained_by_counts
from cclnet.metrics.resampling import mean_and_deviation
from cclnet.views.figures import in_house_style, rank_figure, save_figure
from studies.features import course, network, sizes
from studies.features.classifiers import METHODS as CLASSIFIERS
from studies.features.classifiers import SCORES
from studies.features.data import COMMAND, FOLDS
from studies.features.records import soft_labels_of_distances, square
from studies.features.running import finished
from studies.reporting.cells import Groups, load_cells
from studies.reporting.matrices import EXPLANATION as AGREEMENT
from studies.reporting.matrices import agreement, agreement_table, confusions, matrices
from studies.reporting.tables import markdown_table, spread, write_report
from studies.running.settings import ROOT

Matrix = NDArray[np.float64]
Cell = dict[str, Any]
RESAMPLES = 20_000

SOURCES = {"optimum": "minimum of L_CCL", "none": "paper's head on noise", "weights": "balanced head on noise"}
LEARNED = {
    "none-shuffled": "paper's head, ResNet-18, labels shuffled",
    "none-original": "paper's head, ResNet-18",
    "mobilenet_v2-none-original": "paper's head, MobileNetV2",
    "weights-original": "balanced head, ResNet-18",
    "weights-shuffled": "balanced head, ResNet-18, labels shuffled",
}
"""Group of cells of the study of looks → what it learned."""
HEADS = {
    "none": "the paper's",
    "weights": "weights",
    "logits": "logits",
    "sampling": "sampling",
    "cross_fitted": "weights, cross-fitted",
}
ESTIMATORS = {
    "predictions": "`predictions` (default)",
    "discriminant": "`discriminant`",
    "confusions": "`confusions`",
    "class_means": "`class_means`",
    "balanced_head": "`balanced_head`",
    "head": "`head` (the paper's)",
}
NETWORKS = {"baseline": "no head", "weights": "balanced head", "none": "the paper's head"}
CLASSIFIER_TITLES = {
    "baseline": "hard labels",
    "lsr_u1": "LSR, ε = .1",
    "lsr_u5": "LSR, ε = .5228",
    "class_means": "Eq. 3, labels from class means",
    "maxsup": "MaxSup",
    "online_smoothing": "online smoothing",
    "label_confusion": "label confusion",
    "ccl": "CCL-Net, the paper's head",
    "ccl_balanced": "CCL-Net, balanced head",
}


def write(folder: Path) -> None:
    """Write ``report.md`` and the figures beside the cells."""
    parts = (
        counts_sections,
        sizes_sections,
        course_sections,
        estimator_sections,
        network_sections,
        classifier_sections,
    )
    sections = [
        "# What the head learns from counts, and what from features",
        "Written by `python -m studies features` from the cells in `cells/`. Fixed features: EfficientNet-Lite0 with "
        "weights from ImageNet on the central 128 pixels of the 10,015 images of ISIC 2018, 256 principal components "
        f"(`{COMMAND}`). *Fair confusions*: those of an independent network, the ResNet-18 that the "
        "[study of looks](../looks/report.md) trained with balanced sampling (one run, both directions averaged). "
        "Correlations are Spearman's, of the 42 cells off the diagonal.",
    ]
    for part in parts:
        sections += part(folder)
    write_report(folder, sections)


@cache
def looks() -> Groups:
    """The cells of the study of looks."""
    return load_cells(ROOT / "studies" / "looks" / "cells")


@cache
def fair_confusions() -> Matrix:
    """The confusions of the independent network."""
    return confusions(looks(), "balanced_baseline-original")[0]


def cells_by(experiment: str, *keys: str) -> dict[tuple[Any, ...], list[Cell]]:
    """The finished cells, grouped by some of their settings."""
    found: dict[tuple[Any, ...], list[Cell]] = {}
    for _, cell in finished(experiment):
        found.setdefault(tuple(cell["settings"][key] for key in keys), []).append(cell["results"])
    return found


# counts


def counts_sections(folder: Path) -> Iterator[str]:
    """No image: the minimum of the loss and heads on noise, against learned matrices."""
    found = {
        kind: [soft_labels_of_distances(cell["distances"]) for cell in cells]
        for (kind,), cells in cells_by("counts", "kind").items()
    }
    if not found:
        return
    table = {
        (SOURCES[kind], title): agreement(list(product(predicted, matrices(looks(), group))))
        for (kind, predicted), (group, title) in product(found.items(), LEARNED.items())
    }
    yield "## No image at all"
    yield (
        "What the class counts alone give: the *minimum of L_CCL* for a head whose features carry no information "
        "(Adam from five random starts in 512 dimensions, no free parameter), and the project's `CCLHead` trained for "
        "1,008 steps on *Gaussian noise* with as many vectors of each class as ISIC 2018 has training images (five "
        "seeds), in the paper's form and balanced by weights. Both are compared with the matrices that networks have "
        f"learned from images. {AGREEMENT}"
    )
    yield markdown_table(agreement_table(table, ("from counts", "compared with"), CLASSES))
    shown = {
        SOURCES[kind][0].upper() + SOURCES[kind][1:]: np.mean(predicted, axis=0) for kind, predicted in found.items()
    }
    shown |= {
        "Learned, true labels": np.mean(matrices(looks(), "none-original"), axis=0),
        "Learned, shuffled": np.mean(matrices(looks(), "none-shuffled"), axis=0),
        "Fair confusions": fair_confusions(),
    }
    save_figure(rank_figure(shown, CLASSES), folder / "counts.png")
    yield "![matrices from counts alone, learned ones and fair confusions](counts.png)"


# sizes


def sizes_sections(_: Path) -> Iterator[str]:
    """The sizes of the classes exchanged."""
    cells = [cell["results"] for _, cell in finished("sizes")]
    if not cells:
        return
    kinds: dict[str, Callable[[Cell], ArrayLike]] = {}
    for balance, step in product(("none", "weights"), sizes.READ_AT):
        title = f"{'paper' if balance == 'none' else 'balanced'} head after {step:,} steps"
        kinds[title] = lambda cell, balance=balance, step=step: cell[balance][str(step)]
    for estimator in ("class_means", "predictions"):
        kinds[f"`{estimator}`"] = lambda cell, estimator=estimator: cell[estimator]
    yield "## Sizes exchanged"
    yield (
        f"The causal test of *counts*: the real images cut to {', '.join(map(str, sizes.SIZES.tolist()))} a class, in "
        f"{len(cells)} orders of the classes. *By size*: the agreement of the matrices of two orders when the class of "
        "each size is compared with the class of the same size; *by class*: when each class is compared with itself. "
        "The mean over all pairs of orders with the 95 % interval of a bootstrap of the orders. *Counts explain*: the "
        "share of the rank variance, mean over the orders (some 14 % by chance)."
    )
    yield markdown_table([sizes_row(title, cells, read) for title, read in kinds.items()])


def sizes_row(title: str, cells: Sequence[Cell], read: Callable[[Cell], ArrayLike]) -> dict[str, str]:
    """A row of the table of exchanged sizes."""
    by_class = [soft_labels_of_distances(read(cell)) for cell in cells]
    orders = [np.argsort(cell["sizes"]) for cell in cells]
    by_size = [matrix[np.ix_(order, order)] for matrix, order in zip(by_class, orders, strict=True)]
    shares = [share_explained_by_counts(m, cell["sizes"]) for m, cell in zip(by_class, cells, strict=True)]
    return {
        "matrix": title,
        "by size": pair_interval(by_size),
        "by class": pair_interval(by_class),
        "counts explain": spread([None if share is None else share.explained for share in shares], 2),
        "agreement with fair confusions": spread([rank_correlation(m, fair_confusions()) for m in by_class], 2),
    }


def pair_interval(found: Sequence[Matrix]) -> str:
    """The mean agreement of all pairs, with the 95 % interval of a bootstrap of the matrices."""
    table = np.zeros((len(found), len(found)))
    for a, b in combinations(range(len(found)), 2):
        table[a, b] = table[b, a] = rank_correlation(found[a], found[b]) or 0.0
    if len(found) < 3:
        return f"{table[0, -1]:.2f}"
    times = np.random.default_rng(0).multinomial(len(found), [1 / len(found)] * len(found), size=RESAMPLES)
    pairs = times.sum(axis=1) ** 2 - (times**2).sum(axis=1)
    times, pairs = times[pairs > 0], pairs[pairs > 0]  # not the same matrix throughout
    means = np.einsum("ra,ab,rb->r", times, table, times, optimize=True) / pairs
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{table[np.triu_indices(len(found), 1)].mean():.2f} ({low:.2f} to {high:.2f})"


# course


def course_sections(folder: Path) -> Iterator[str]:
    """The matrix along the training of the head."""
    found = cells_by("course", "balance", "rate", "labels")
    if not found:
        return
    save_figure(course_figure(found), folder / "course.png")
    yield "## Along the training of the head"
    yield (
        f"A head on the fixed features of the training images (80 % of the lesions), {course.EPOCHS} epochs of 62 "
        "minibatches of 128 at a constant rate, without a freeze: the agreement of its soft labels with the fair "
        "confusions after every epoch. *Cross-fitted*: the dictionary learns from images of other lesions than the "
        "embedding. *Highest*: over the epochs, chosen with the reference at hand, which nobody has in practice; "
        "*at the lowest p̄*: at the epoch that the paper's rule restores. Mean ± standard deviation over n seeds, each "
        "with a split of its own."
    )
    yield "![agreement, softness and accuracy by epoch](course.png)"
    yield markdown_table([course_row(place, cells) for place, cells in found.items()])


def course_row(place: tuple[Any, ...], cells: Sequence[Cell]) -> dict[str, str]:
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


def agreement_by_epoch(cell: Cell) -> list[float]:
    """The agreement of the soft labels with the fair confusions after every epoch."""
    labels = (soft_labels_of_distances(distances) for distances in cell["distances"])
    return [rank_correlation(each, fair_confusions()) or 0.0 for each in labels]


@in_house_style
def course_figure(found: Mapping[tuple[Any, ...], Sequence[Cell]]) -> Figure:
    """Agreement, softness and accuracy by epoch: one row for each quantity, one column for each rate."""
    rows: dict[str, Callable[[Cell], Sequence[float]]] = {
        "agreement with fair confusions": agreement_by_epoch,
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


# estimators


def estimator_sections(_: Path) -> Iterator[str]:
    """The estimators of ``cclnet similar``."""
    found = cells_by("estimators", "estimator")
    if not found:
        return
    yield "## Which classes look alike: the estimators"
    yield (
        "`ClassSimilarity` on the fixed features of all images, three seeds of folds, shuffles and initial heads "
        "(mean ± standard deviation). *Agreement*: with the fair confusions. *Counts explain*: the share of the rank "
        "variance, with true labels and with labels shuffled among the images; some 14 % by chance."
    )
    rows = []
    for name, title in ESTIMATORS.items():
        if cells := found.get((name,)):
            agreements = [rank_correlation(soft_ranks(cell), fair_confusions()) for cell in cells]
            left_out = [leave_one_class_out(soft_ranks(cell), fair_confusions()) for cell in cells]
            without = np.array(left_out, dtype=np.float64).mean(axis=0)
            lowest = int(np.argmin(without))
            rows.append(
                {
                    "estimator": title,
                    "n": str(len(cells)),
                    "agreement": spread(agreements, 2),
                    "lowest without one class": f"{without[lowest]:.2f} ({CLASSES[lowest]})",
                    "counts explain": spread([cell["explained_by_counts"] for cell in cells], 2),
                    "shuffled labels": spread([cell["shuffled_explained_by_counts"] for cell in cells], 2),
                }
            )
    yield markdown_table(rows)


def soft_ranks(cell: Cell) -> Matrix:
    """The similarities as a square matrix; only their ranks are used."""
    return square(cell["similarity"], diagonal=1.0)


# network


def network_sections(folder: Path) -> Iterator[str]:
    """The features of a network in training, after every epoch."""
    found = cells_by("network", "imbalance", "method", "labels")
    if not found:
        return
    save_figure(network_figure(found), folder / "network.png")
    yield "## The features of a network in training"
    yield (
        "The embedded sample (separation 1.3, 960 training and 240 validation images), ResNet-18 from scratch, "
        f"{network.EPOCHS} epochs: the agreement with the known similarity after every epoch, of the soft labels and "
        "of the similarity (`ClassSimilarity`) in the features of the validation images alone, and of all images. "
        f"*Lowest* and *mean*: over the epochs from {network.FIRST_EPOCH} to the last; mean ± standard deviation over "
        "n runs. *Between seeds*: the agreement of the similarities of two trainings on the same data, predictions of "
        "all images, lowest over the same epochs."
    )
    yield "![agreement with the known similarity by epoch](network.png)"
    yield markdown_table([network_row(place, cells) for place, cells in sorted(found.items())])


def network_row(place: tuple[Any, ...], cells: Sequence[Cell]) -> dict[str, str]:
    """A row of the table of networks in training."""
    imbalance, method, labels = place
    row = {"imbalance": f"{imbalance} : 1", "network": NETWORKS[method], "labels": labels, "n": str(len(cells))}
    titles = {
        "predictions_all": "predictions, all images",
        "predictions_validation": "predictions, validation",
        "discriminant_all": "discriminant, all images",
        "class_means_all": "class means, all images",
        "soft_labels": "soft labels",
    }
    for column, title in titles.items():
        courses = [later(cell[column]) for cell in cells if cell[column][-1] is not None]
        row[f"{title}: lowest"] = spread([values.min() for values in courses], 2)
        row[f"{title}: mean"] = spread([values.mean() for values in courses], 2)
    return row | {
        "between seeds": between_seeds(imbalance, method, labels),
        "accuracy": spread([cell["accuracy"][-1] for cell in cells]),
    }


def later(values: Sequence[float]) -> Matrix:
    """The values from ``FIRST_EPOCH`` on."""
    return np.array(values[network.FIRST_EPOCH - 1 :], dtype=np.float64)


def between_seeds(imbalance: float, method: str, labels: str) -> str:
    """The lowest agreement of the similarities of two trainings on the same data at the same epoch."""
    same_data = cells_by("network", "imbalance", "method", "labels", "data")
    lowest: list[float] = []
    for place, cells in same_data.items():
        if place[:3] == (imbalance, method, labels):
            for a, b in combinations(cells, 2):
                pairs = zip(a["distances"], b["distances"], strict=True)
                found = [rank_correlation(square(own), square(other)) or 0.0 for own, other in pairs]
                lowest.append(float(later(found).min()))
    return spread(lowest, 2)


@in_house_style
def network_figure(found: Mapping[tuple[Any, ...], Sequence[Cell]]) -> Figure:
    """Agreement with the known similarity by epoch: a column for each imbalance, features above, soft labels below."""
    imbalances = sorted({place[0] for place in found})
    rows = {
        "features of all images": "predictions_all",
        "features of validation images": "predictions_validation",
        "soft labels": "soft_labels",
    }
    figure = Figure(figsize=(2.5 + 3.5 * len(imbalances), 8))
    grid = figure.subplots(len(rows), len(imbalances), sharex=True, sharey=True, squeeze=False)
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
        axes.set_title(f"{imbalance} : 1")
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    grid[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


# classifiers


def classifier_sections(_: Path) -> Iterator[str]:
    """The classifier alone at the paper's full length."""
    found = {
        method: {
            cell["settings"]["fold"]: cell["results"]
            for _, cell in finished("classifiers")
            if cell["settings"]["method"] == method
        }
        for method in CLASSIFIERS
    }
    if not found["baseline"]:
        return
    yield "## The classifier alone, at the paper's full length"
    yield (
        "A linear classifier on the fixed features, 200 epochs with the paper's schedule (SGD .1, divided by 10 at "
        "50 % and 75 %, batches of 128; the head at lr_CCL 0.0005 with the paper's rule to freeze), by five-fold "
        "cross-validation over lesions. Mean ± standard deviation over the folds. *Difference*: from hard labels on "
        "the same folds, with the 95 % interval of the corrected resampled t-test (Nadeau & Bengio, 2003), which "
        "allows for the training images that folds share."
    )
    rows = []
    for method, folds in found.items():
        if folds:
            row = {"labels": CLASSIFIER_TITLES[method], "folds": str(len(folds))}
            for score in SCORES:
                row[score.replace("_", " ")] = spread([cell[score] for cell in folds.values()])
            for score in ("accuracy", "balanced_accuracy"):
                title = f"difference in {score.replace('_', ' ')}"
                row[title] = "–" if method == "baseline" else difference(folds, found["baseline"], score)
            rows.append(row)
    yield markdown_table(rows)


def difference(folds: Mapping[int, Cell], reference: Mapping[int, Cell], score: str) -> str:
    """The mean difference on common folds, with the interval of the corrected resampled t-test."""
    common = sorted(folds.keys() & reference.keys())
    values = [folds[fold][score] - reference[fold][score] for fold in common]
    mean, deviation = mean_and_deviation(values)
    if deviation is None:
        return f"{mean:+.3f}"
    half = student.ppf(0.975, len(values) - 1) * deviation * sqrt(1 / len(values) + 1 / (FOLDS - 1))
    return f"{mean:+.3f} ({mean - half:+.3f}, {mean + half:+.3f})"
