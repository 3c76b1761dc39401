"""Report of the experiments on class counts and on fixed features.

python -m studies features
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product
from math import sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from cclnet.dataset.isic import CLASSES
from cclnet.metrics.likeness import leave_one_class_out, rank_correlation, share_explained_by_counts
from cclnet.metrics.resampling import mean_and_deviation
from cclnet.views.figures import rank_figure, save_figure
from studies.features import sizes
from studies.features.classifiers import METHODS as CLASSIFIERS
from studies.features.classifiers import SCORES
from studies.features.curves import course_sections, network_sections
from studies.features.data import COMMAND, FOLDS
from studies.features.records import Matrix, Results, balanced_confusions, looks, soft_labels_of_distances, square
from studies.features.running import finished, results_by
from studies.reporting.matrices import EXPLANATION as AGREEMENT
from studies.reporting.matrices import agreement, agreement_table, matrices
from studies.reporting.p_values import PValue, adjusted
from studies.reporting.tables import markdown_table, spread, write_report

RESAMPLES = 20_000
Folds = Mapping[int, Results]
"""Number of a fold → its results."""

SOURCES = {"optimum": "minimum of L_CCL", "none": "paper's head on noise", "weights": "balanced head on noise"}
LEARNED = {
    "none-shuffled": "paper's head, ResNet-18, labels shuffled",
    "none-original": "paper's head, ResNet-18",
    "mobilenet_v2-none-original": "paper's head, MobileNetV2",
    "weights-original": "balanced head, ResNet-18",
    "weights-shuffled": "balanced head, ResNet-18, labels shuffled",
}
"""Group of cells of the study of looks → what it learned."""
ESTIMATORS = {
    "predictions": "`predictions` (default)",
    "discriminant": "`discriminant`",
    "confusions": "`confusions`",
    "class_means": "`class_means`",
    "balanced_head": "`balanced_head`",
    "head": "`head` (the paper's)",
}
OVERLAPS = {
    "discriminant": "cleanlab's overlapping classes, probabilities of `predictions`",
    "logistic": "cleanlab's overlapping classes, logistic regression",
}
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
        "# Class counts and fixed features: what determines the soft labels",
        "Written by `python -m studies features` from the cells in `cells/`. Fixed features: EfficientNet-Lite0 with "
        "weights from ImageNet on the central 128 pixels of the 10,015 images of ISIC 2018, 256 principal components "
        f"(`{COMMAND}`). *Balanced confusions*: those of an independent network, the ResNet-18 that the "
        "[study of looks](../looks/report.md) trained with balanced sampling (one run, both directions averaged). "
        "Correlations are Spearman's, of the 42 entries off the diagonal.",
    ]
    for part in parts:
        sections += part(folder)
    write_report(folder, sections)


def counts_sections(folder: Path) -> Iterator[str]:
    """No image: the minimum of the loss and heads on noise, against learned matrices."""
    found = {
        kind: [soft_labels_of_distances(cell["distances"]) for cell in cells]
        for (kind,), cells in results_by("counts", "kind").items()
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
        "Balanced confusions": balanced_confusions(),
    }
    save_figure(rank_figure(shown, CLASSES), folder / "counts.png")
    yield "![matrices from counts alone, learned ones and balanced confusions](counts.png)"


def sizes_sections(_: Path) -> Iterator[str]:
    """The sizes of the classes exchanged."""
    cells = [cell["results"] for _, cell in finished("sizes")]
    if not cells:
        return
    kinds: dict[str, Callable[[Results], ArrayLike]] = {}
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
        "share of the rank variance, mean over the orders (about 14 % by chance)."
    )
    yield markdown_table([sizes_row(title, cells, read) for title, read in kinds.items()])


def sizes_row(title: str, cells: Sequence[Results], read: Callable[[Results], ArrayLike]) -> dict[str, str]:
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
        "agreement with balanced confusions": spread([rank_correlation(m, balanced_confusions()) for m in by_class], 2),
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


def estimator_sections(_: Path) -> Iterator[str]:
    """The estimators of ``cclnet similar``."""
    found = {ESTIMATORS[name]: cells for (name,), cells in results_by("estimators", "estimator").items()}
    if not found:
        return
    found |= {OVERLAPS[name]: cells for (name,), cells in results_by("overlaps", "probabilities").items()}
    yield "## Which classes look alike: the estimators"
    yield (
        "`ClassSimilarity` on the fixed features of all images, three seeds of folds, shuffles and initial heads "
        "(mean ± standard deviation). *Agreement*: with the balanced confusions. *Counts explain*: the share of the "
        "rank variance, with true labels and with labels shuffled among the images; about 14 % by chance. Beside it, "
        "the overlapping classes of cleanlab from out-of-fold probabilities (joint probability of the two labels), "
        "which is made to find wrong labels and counts images."
    )
    titles = [*ESTIMATORS.values(), *OVERLAPS.values()]
    yield markdown_table([estimator_row(title, found[title]) for title in titles if title in found])


def estimator_row(title: str, cells: Sequence[Results]) -> dict[str, str]:
    """A row of the table of estimators."""
    agreements = [rank_correlation(soft_ranks(cell), balanced_confusions()) for cell in cells]
    left_out = [leave_one_class_out(soft_ranks(cell), balanced_confusions()) for cell in cells]
    without = np.array(left_out, dtype=np.float64).mean(axis=0)
    lowest = int(np.argmin(without))
    shuffled = [cell.get("shuffled_explained_by_counts") for cell in cells]
    return {
        "estimator": title,
        "n": str(len(cells)),
        "agreement": spread(agreements, 2),
        "lowest without one class": f"{without[lowest]:.2f} ({CLASSES[lowest]})",
        "counts explain": spread([cell["explained_by_counts"] for cell in cells], 2),
        "shuffled labels": spread(shuffled, 2),
    }


def soft_ranks(cell: Results) -> Matrix:
    """The similarities as a square matrix; only their ranks are used."""
    return square(cell["similarity"], diagonal=1.0)


def classifier_sections(_: Path) -> Iterator[str]:
    """The classifier alone at the paper's full length."""
    found = folds_by_method()
    if not found["baseline"]:
        return
    yield "## The classifier alone, at the paper's full length"
    yield (
        "A linear classifier on the fixed features, 200 epochs with the paper's schedule (SGD .1, divided by 10 at "
        "50 % and 75 %, batches of 128; the head at lr_CCL 0.0005 with the paper's rule to freeze), by five-fold "
        "cross-validation over lesions, repeated with other divisions. Mean ± standard deviation over the folds. "
        "*Difference*: from hard labels on the same folds, with the 95 % interval of the corrected resampled t-test "
        "(Nadeau & Bengio, 2003), which allows for the training images that folds share; p after Holm over the methods."
    )
    methods = [method for method, folds in found.items() if folds]
    differences = {
        score: dict(zip(methods[1:], difference_column(found, methods[1:], score), strict=True))
        for score in ("accuracy", "balanced_accuracy")
    }
    rows = []
    for method in methods:
        row = {"labels": CLASSIFIER_TITLES[method], "folds": str(len(found[method]))}
        for score in SCORES:
            row[score.replace("_", " ")] = spread([cell[score] for cell in found[method].values()])
        for score, column in differences.items():
            row[f"difference in {score.replace('_', ' ')}"] = column.get(method, "–")
        rows.append(row)
    yield markdown_table(rows)


def folds_by_method() -> dict[str, dict[int, Results]]:
    """The finished folds of every method."""
    found: dict[str, dict[int, Results]] = {method: {} for method in CLASSIFIERS}
    for _, cell in finished("classifiers"):
        found[cell["settings"]["method"]][cell["settings"]["fold"]] = cell["results"]
    return found


def difference_column(found: Mapping[str, Folds], methods: Sequence[str], score: str) -> list[str]:
    """The differences of these methods from hard labels, with p-values after Holm."""
    differences = [difference(found[method], found["baseline"], score) for method in methods]
    corrected = adjusted([None if each.p is None else PValue(each.p, at_most=False) for each in differences])
    texts = []
    for each, p in zip(differences, corrected, strict=True):
        interval = "" if each.half is None else f" ({each.mean - each.half:+.3f}, {each.mean + each.half:+.3f})"
        texts.append(f"{each.mean:+.3f}{interval}" + ("" if p is None else f", p {p}"))
    return texts


class Difference(NamedTuple):
    """A mean difference, half the width of its 95 % interval, and p; None with one fold, or equal differences."""

    mean: float
    half: float | None
    p: float | None


def difference(folds: Folds, reference: Folds, score: str) -> Difference:
    """The corrected resampled t-test on common folds (Nadeau & Bengio, 2003), repeated (Bouckaert & Frank, 2004)."""
    common = sorted(folds.keys() & reference.keys())
    values = [folds[fold][score] - reference[fold][score] for fold in common]
    mean, deviation = mean_and_deviation(values)
    if not deviation:
        return Difference(mean, None, None)
    error = deviation * sqrt(1 / len(values) + 1 / (FOLDS - 1))
    freedom = len(values) - 1
    half = float(student.ppf(0.975, freedom)) * error
    return Difference(mean, half, p=float(2 * student.sf(abs(mean) / error, freedom)))
