"""Report of the study on Table 1 of the paper, Fig. S1 and the effect of the leakage.

python -m studies table1
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np

from cclnet.metrics.resampling import Difference, repeated_difference
from cclnet.system.files import write_csv
from cclnet.views.figures import save_figure, soft_label_figures
from studies.reporting.calibration import calibration_table
from studies.reporting.cells import Cell, Groups, load_cells, require_same_images
from studies.reporting.differences import (
    EXPLANATION,
    METRICS,
    MethodDifference,
    csv_rows,
    differences_figure,
    mcnemar_table,
    method_differences,
    metric_table,
)
from studies.reporting.matrices import EXPLANATION as AGREEMENT
from studies.reporting.matrices import Agreement, agreement, agreement_table, confusions, counts_table, matrices
from studies.reporting.tables import markdown_table, spread, write_report
from studies.running.grid import dataset_titles

SPLITS = ("image", "lesion")
BACKBONES = {"resnet18": "ResNet-18", "mobilenet_v2": "MobileNetV2", "efficientnet_b0": "EfficientNet-B0"}
METHODS = ("baseline", "lsr-u1", "lsr-u5", "lsr-a1", "lsr-a5", "ccl")
ALSO = {"balanced_accuracy": "balanced accuracy"}

PUBLISHED = {
    "resnet18": {
        "baseline": (0.8347, 0.7073, 0.6775, 0.5655),
        "lsr-u1": (0.8422, 0.7220, 0.6886, 0.5839),
        "lsr-u5": (0.8437, 0.7211, 0.6908, 0.5837),
        "lsr-a1": (0.7883, 0.6046, 0.5016, 0.4547),
        "lsr-a5": (0.7029, 0.2020, 0.1530, 0.1470),
        "ccl": (0.8502, 0.7227, 0.6986, 0.5842),
    },
    "efficientnet_b0": {
        "baseline": (0.8333, 0.7190, 0.6696, 0.5728),
        "lsr-u1": (0.8382, 0.7014, 0.6736, 0.5573),
        "lsr-u5": (0.8432, 0.7262, 0.6884, 0.5852),
        "lsr-a1": (0.8038, 0.6542, 0.5526, 0.5058),
        "lsr-a5": (0.7189, 0.2968, 0.2295, 0.2031),
        "ccl": (0.8482, 0.7390, 0.6969, 0.6006),
    },
    "mobilenet_v2": {
        "baseline": (0.8308, 0.6922, 0.6637, 0.5524),
        "lsr-u1": (0.8248, 0.6791, 0.6547, 0.5400),
        "lsr-u5": (0.8253, 0.6604, 0.6539, 0.5281),
        "lsr-a1": (0.8068, 0.6432, 0.5631, 0.4922),
        "lsr-a5": (0.7114, 0.2306, 0.2037, 0.1655),
        "ccl": (0.8342, 0.7050, 0.6718, 0.5648),
    },
}
"""The paper's Table 1: single runs on ISIC 2018, in the order of ``METRICS``."""


REFERENCES = ("ccl", "baseline")
CLAIMS = (("ccl", "baseline"), ("ccl", "lsr-u5"))
"""The differences on which the paper's conclusion is based."""


def write(folder: Path) -> None:
    """Write ``report.md``, ``table.csv`` and the figures beside the cells."""
    groups = load_cells(folder / "cells")
    sections = [
        "# Table 1: does CCL-Net classify better?",
        "Written by `python -m studies table1` from the cells in `cells/`; the same numbers unrounded are in "
        "`table.csv`. *Paper*: a single run at 224 pixels on the split by image, to be compared with ISIC 2018 only. "
        "*Here*: mean ± standard deviation over n seeds. " + EXPLANATION + " The validation set is the one that the "
        "last epoch is judged on; nothing was chosen on it.",
    ]
    rows: list[dict[str, Any]] = []
    for dataset, title in dataset_titles().items():
        panels: dict[str, list[MethodDifference]] = {}
        for split, backbone in product(SPLITS, BACKBONES):
            runs = runs_of(groups, dataset, split, backbone)
            if len(runs) < 2:  # nothing to compare
                continue
            references = {
                reference: method_differences(runs.get(reference, []), without(runs, reference), [*METRICS, *ALSO])
                for reference in REFERENCES
            }
            sections += [f"## {BACKBONES[backbone]} on {title}, split by {split}", *tables(backbone, runs, references)]
            place = {"dataset": dataset, "split": split, "backbone": backbone}
            rows += csv_rows(place, runs, references, [*METRICS, *ALSO], published(backbone))
            if references["ccl"]:
                panels[f"{BACKBONES[backbone]}\nby {split}"] = references["ccl"]
        if panels:
            save_figure(differences_figure(panels, METRICS, "CCL-Net"), folder / f"differences-{dataset}.png")
            sections += [f"![differences from CCL-Net with intervals, {title}](differences-{dataset}.png)"]
        sections += [*claims(groups, dataset, title), *leakage(groups, dataset, title)]
        sections += soft_labels(groups, dataset, title, folder)
    if rows:
        write_csv(folder / "table.csv", rows)
    write_report(folder, sections)


def runs_of(groups: Groups, dataset: str, split: str, backbone: str) -> Groups:
    """Method → its runs."""
    names = {method: f"{dataset}-{split}-{backbone}-{method}" for method in METHODS}
    return {method: groups[name] for method, name in names.items() if name in groups}


def without(runs: Groups, method: str) -> Groups:
    """All other methods."""
    return {name: cells for name, cells in runs.items() if name != method}


def published(backbone: str) -> dict[str, dict[str, float]]:
    """Method → metric → the paper's value."""
    return {method: dict(zip(METRICS, values, strict=True)) for method, values in PUBLISHED[backbone].items()}


def tables(backbone: str, runs: Groups, references: Mapping[str, Sequence[MethodDifference]]) -> Iterator[str]:
    """One table per metric, one of McNemar's tests and one for the calibration."""
    known = published(backbone)
    for metric, title in (METRICS | ALSO).items():
        yield f"**{title[0].upper()}{title[1:]}**"
        of_metric = {method: known[method][metric] for method in runs if metric in METRICS}
        yield markdown_table(metric_table(runs, metric, references, of_metric))
    if references["ccl"]:
        yield markdown_table(mcnemar_table(references["ccl"], "ccl"))
    yield (
        "**Calibration**, before → after temperature scaling (the temperature of each half of the lesions fitted on "
        "the other half)"
    )
    yield markdown_table(calibration_table(runs))


def claims(groups: Groups, dataset: str, title: str) -> Iterator[str]:
    """The paper's main differences in points of accuracy, and whether the intervals here contain them."""
    if not dataset.startswith("isic2018"):
        return
    rows = []
    for split, backbone, (method, reference) in product(SPLITS, BACKBONES, CLAIMS):
        runs = runs_of(groups, dataset, split, backbone)
        found = method_differences(runs.get(reference, []), {method: runs.get(method, [])}, ["accuracy"])
        difference = found[0].differences["accuracy"] if found else None
        if difference:
            paper = PUBLISHED[backbone][method][0] - PUBLISHED[backbone][reference][0]
            row = {"split": split, "backbone": BACKBONES[backbone], "difference": f"{method} − {reference}"}
            row |= {"n": str(found[0].seeds), "paper": f"{100 * paper:+.2f}"}
            row |= {"here": f"{100 * difference.fixed.estimate:+.2f}"}
            row |= {"these seeds": held(difference.fixed, paper), "other seeds": held(difference.hierarchical, paper)}
            rows.append(row)
    if rows:
        yield f"## The paper's differences in accuracy: {title}"
        yield "In points of accuracy, with 95 % intervals as above, not corrected for their number."
        yield markdown_table(rows)


def held(difference: Difference | None, value: float) -> str:
    """An interval in points, and whether the value is below, inside or above it."""
    if difference is None:
        return "–"
    side = "below" if value < difference.low else "above" if value > difference.high else "within"
    return f"({100 * difference.low:+.2f}, {100 * difference.high:+.2f}); the paper's is {side}"


def leakage(groups: Groups, dataset: str, title: str) -> Iterator[str]:
    """Both splits side by side: the effect of lesions with images in both subsets."""
    rows = []
    for backbone, method in product(BACKBONES, METHODS):
        sides = [groups.get(f"{dataset}-{split}-{backbone}-{method}") for split in SPLITS]
        if all(sides):
            row = {"backbone": BACKBONES[backbone], "method": method}
            for metric in ("accuracy", "kappa", "balanced_accuracy"):
                for split, cells in zip(SPLITS, sides, strict=True):
                    row[f"{metric.replace('_', ' ')}, by {split}"] = with_interval(cells or [], metric)
            rows.append(row)
    if rows:
        yield f"## Effect of the leakage: {title}"
        yield (
            "Split by image, images of one lesion train and validate; split by lesion they do not. Mean ± standard "
            "deviation over the seeds; in brackets the 95 % interval of the mean for these seeds (bootstrap by lesion, "
            "20,000 resamples), and where there are several seeds, that for other seeds. The two splits have different "
            "validation images, so the columns are not paired."
        )
        yield markdown_table(rows)


def with_interval(cells: Sequence[Cell], metric: str) -> str:
    """The mean over the seeds with its interval."""
    require_same_images(cells)
    mean = spread([cell.metrics[metric] for cell in cells])
    found = repeated_difference([cell.resampled[metric] for cell in cells])  # to 0
    intervals = [found.fixed, found.hierarchical] if found else []
    return f"{mean} {' '.join(f'({each.low:.3f}, {each.high:.3f})' for each in intervals if each)}".strip()


def soft_labels(groups: Groups, dataset: str, title: str, folder: Path) -> Iterator[str]:
    """The matrices of Fig. S1: their agreement with each other and with other matrices."""
    names = {backbone: f"{dataset}-image-{backbone}-ccl" for backbone in BACKBONES}
    learned = {backbone: matrices(groups, name) for backbone, name in names.items() if name in groups}
    if not learned:
        return
    classes = groups[names[next(iter(learned))]][0].classes
    yield f"## The soft labels (Fig. S1): {title}"
    yield (
        f"{AGREEMENT} *Confusions*: how often the baseline on the same backbone confuses two classes. "
        "Whether agreement is evidence of visual similarity is the question of [looks](../looks/report.md)."
    )
    yield markdown_table(agreement_table(agreements(groups, dataset, learned), ("backbone", "and"), classes))
    yield "The share of the ranks of the entries (R²) that class counts explain:"
    yield markdown_table(
        counts_table({(BACKBONES[backbone],): groups[names[backbone]] for backbone in learned}, ("backbone",), classes)
    )
    shown = {BACKBONES[backbone]: np.mean(runs, axis=0) for backbone, runs in learned.items()}
    save_figure(soft_label_figures(shown, classes), folder / f"soft-labels-{dataset}.png")
    yield f"![soft labels by backbone, mean over the seeds, {title}](soft-labels-{dataset}.png)"


def agreements(
    groups: Groups, dataset: str, learned: Mapping[str, Sequence[Any]]
) -> dict[tuple[str, str], Agreement | None]:
    """Backbone and reference → agreement of the matrices; each pair of backbones is compared once."""
    found: dict[tuple[str, str], Agreement | None] = {}
    for backbone, runs in learned.items():
        found[BACKBONES[backbone], "another seed"] = agreement(list(combinations(runs, 2)))
    for backbone, other in combinations(BACKBONES, 2):
        pairs = list(product(learned.get(backbone, []), learned.get(other, [])))
        found[BACKBONES[backbone], BACKBONES[other]] = agreement(pairs)
    for backbone, runs in learned.items():
        baseline = confusions(groups, f"{dataset}-image-{backbone}-baseline")
        found[BACKBONES[backbone], "the baseline's confusions"] = agreement(list(product(runs, baseline)))
    return found
