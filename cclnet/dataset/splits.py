"""The two ways of dividing a dataset into training and validation, and what leaks from one into the other.

A table has the columns image, label and lesion, one row for each image; a split has ``subset`` besides, ``train`` or
``validation``, and is sorted by image. A split depends on the table's contents and the seed alone, not on the order of
its rows.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedShuffleSplit

from cclnet.system.errors import DataError
from cclnet.system.files import read_csv

SUBSETS = ("train", "validation")


def image_split(table: pd.DataFrame, validation_fraction: float, seed: int) -> pd.DataFrame:
    """Draw images for validation, in each class as many as its share demands (the paper's split).

    Images of one lesion may end up on both sides: ``leakage`` measures it.

    Raises:
        DataError: a class has a single image, or there are fewer images for a subset than classes.
    """
    table = table.sort_values("image", ignore_index=True)
    counts = Counter(table["label"])
    require_two(counts, "image")
    validation = round(validation_fraction * len(table))
    if not len(counts) <= validation <= len(table) - len(counts):
        raise DataError(
            f"{validation} of {len(table)} images for validation leave a subset smaller than the number of classes "
            f"({len(counts)}): set validation_fraction to another value or use more images"
        )
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=validation, random_state=seed)
    _, chosen = next(splitter.split(table, table["label"]))
    return divided(table, np.isin(np.arange(len(table)), chosen))


def lesion_split(table: pd.DataFrame, validation_fraction: float, seed: int) -> pd.DataFrame:
    """Draw whole lesions for validation, in each class as many images as ``image_split`` draws.

    A lesion counts for the class of most of its images. Where whole lesions cannot give the very number of images, the
    nearest that they can give is taken.

    Raises:
        DataError: as ``image_split``, or a class has a single lesion.
    """
    split = image_split(table, validation_fraction, seed)
    wanted = Counter(split.loc[split["subset"] == "validation", "label"])
    sizes = Counter(split["lesion"])
    lesions_of: dict[str, list[str]] = defaultdict(list)
    for lesion, labels in split.groupby("lesion")["label"]:
        lesions_of[Counter(labels).most_common(1)[0][0]].append(str(lesion))
    require_two({label: len(lesions) for label, lesions in lesions_of.items()}, "lesion")
    random = np.random.default_rng(seed)
    chosen: set[str] = set()
    for label, lesions in sorted(lesions_of.items()):
        shuffled = [lesions[position] for position in random.permutation(len(lesions))]
        chosen.update(shuffled[position] for position in fill([sizes[lesion] for lesion in shuffled], wanted[label]))
    return divided(split, np.array([lesion in chosen for lesion in split["lesion"]]))


def fill(sizes: Sequence[int], wanted: int) -> list[int]:
    """Choose sizes whose sum is ``wanted``, or else the nearest to it, taking each one that still leads there.

    At least one is chosen if any is wanted, and never all of them.

    Args:
        sizes: positive numbers, in the order in which they are offered; two at least.
        wanted: the sum to reach.

    Returns:
        The positions of the chosen sizes.
    """
    # bit s of reachable[i] says whether some of the sizes from i on add up to s
    reachable = [1]
    for size in reversed(sizes):
        reachable.append(reachable[-1] | reachable[-1] << size)
    reachable.reverse()
    sums = [total for total in range(min(wanted, 1), sum(sizes)) if reachable[0] >> total & 1]
    left = min(sums, key=lambda total: abs(total - wanted))
    chosen: list[int] = []
    for position, size in enumerate(sizes):
        if size <= left and reachable[position + 1] >> (left - size) & 1:
            chosen.append(position)
            left -= size
    return chosen


def divided(table: pd.DataFrame, validation: NDArray[np.bool_]) -> pd.DataFrame:
    """The split in which the marked rows are for validation."""
    return table[["image", "label", "lesion"]].assign(subset=np.where(validation, "validation", "train"))


def require_two(counts: Mapping[str, int], what: str) -> None:
    """Raise if a class has one image (or lesion), which cannot be both trained on and validated on."""
    single = sorted(label for label, count in counts.items() if count < 2)
    if single:
        raise DataError(
            f"class {', '.join(single)} has a single {what}, and each subset needs one: "
            f"add {what}s of it or take it out of the labels"
        )


def read_split(path: Path) -> pd.DataFrame:
    """Read a split that the split stage wrote."""
    return read_csv(path, ["image", "label", "lesion", "subset"])


def leakage(split: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Measure how much of the validation set is of lesions that are trained on too.

    Returns:
        ``leakage``, the share of the validation images whose lesion also occurs in training; the same in
        ``leakage_per_class`` (None for a class without validation images); the numbers of ``images`` and ``lesions`` in
        each subset, by class.
    """
    rows = list(zip(split["subset"], split["label"], split["lesion"], strict=True))
    trained = {lesion for subset, _, lesion in rows if subset == "train"}
    images = Counter((subset, label) for subset, label, _ in rows)
    lesions = Counter((subset, label) for subset, label, _ in set(rows))
    leaked = Counter(label for subset, label, lesion in rows if subset == "validation" and lesion in trained)
    validated = {label: images["validation", label] for label in classes}
    return {
        "leakage": share(leaked.total(), sum(validated.values())),
        "leakage_per_class": {label: share(leaked[label], count) for label, count in validated.items()},
        "images": {subset: {label: images[subset, label] for label in classes} for subset in SUBSETS},
        "lesions": {subset: {label: lesions[subset, label] for label in classes} for subset in SUBSETS},
    }


def share(part: int, whole: int) -> float | None:
    """The part of the whole, None of nothing."""
    return part / whole if whole else None
