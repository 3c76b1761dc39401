"""Splitting a dataset into training and validation, and measuring the leakage between them.

A table has the columns image, label and lesion, with one row per image. A split has a further column ``subset`` with
``train`` or ``validation`` (or ``test``, which is used for neither), and is sorted by image. A split depends only on
the table's contents and the seed, not on the order of its rows.

An image with an unknown lesion has its own name as its lesion. Since it may show any lesion, its independence is
unknown, and ``leakage`` counts only the other images.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cclnet.system.errors import DataError, Problem
from cclnet.system.files import read_csv, read_json
from cclnet.system.names import UNPRINTABLE

SUBSETS = ("train", "validation")
ALL_SUBSETS = (*SUBSETS, "test")
COLUMNS = ("image", "label", "lesion", "subset")


def divide(table: pd.DataFrame, split: str, validation_fraction: float, seed: int) -> pd.DataFrame:
    """Split a table by ``image`` or by ``lesion``.

    If the data contain a split (a column ``subset``), ``image`` keeps it, and ``lesion`` splits all images except the
    test images again. If the given split has no validation images, the training images are split.

    Raises:
        DataError: as in ``image_split`` or ``lesion_split``, or a class has no training images in the given split.
    """
    method: Callable[..., pd.DataFrame] = {"image": image_split, "lesion": lesion_split}[split]
    if "subset" not in table:
        return method(table, validation_fraction, seed)
    subsets = table["subset"].to_numpy()
    if split == "image" and "validation" in subsets:
        given = table.sort_values("image", ignore_index=True).reindex(columns=list(COLUMNS))
        _require_classes_in_training(given)
        return given
    divided = method(table.loc[subsets != "test"], validation_fraction, seed)
    together = pd.concat([divided, table.loc[subsets == "test"]])
    together = together.sort_values(by="image", ignore_index=True).reindex(columns=list(COLUMNS))
    _require_classes_in_training(together)
    return together


def image_split(table: pd.DataFrame, validation_fraction: float, seed: int) -> pd.DataFrame:
    """Draw validation images at random, stratified by class (the paper's split).

    Images of one lesion may be in both subsets, which ``leakage`` measures.

    Raises:
        DataError: a class has a single image, or there are fewer images for a subset than classes.
    """
    table = table.sort_values("image", ignore_index=True)
    counts = Counter(table["label"])
    _require_two(counts, "image")
    validation = round(validation_fraction * len(table))
    if not len(counts) <= validation <= len(table) - len(counts):
        raise DataError(
            f"{validation} of {len(table)} images for validation leave a subset smaller than the number of classes "
            f"({len(counts)}): set validation_fraction to another value or use more images"
        )
    from sklearn.model_selection import StratifiedShuffleSplit  # takes a second, and other stages only read splits

    splitter = StratifiedShuffleSplit(n_splits=1, test_size=validation, random_state=seed)
    _, chosen = next(splitter.split(table, table["label"]))
    return _divided(table, np.isin(np.arange(len(table)), chosen))


def lesion_split(table: pd.DataFrame, validation_fraction: float, seed: int) -> pd.DataFrame:
    """Draw whole lesions for validation, with the same number of images per class as ``image_split``.

    A lesion belongs to the class of most of its images. If whole lesions cannot give the exact number of images, the
    nearest possible number is used. Each class has images in both subsets.

    Raises:
        DataError: as in ``image_split``; or no lesion is known; or a class cannot be in both subsets with whole
        lesions.
    """
    if not _known(list(table["image"]), list(table["lesion"])).any():
        raise DataError(
            "split: lesion needs to know which images belong together, and no lesion or group is named: "
            "name them (a column group in labels.csv), or set split: image"
        )
    split = image_split(table, validation_fraction, seed)
    wanted = Counter(split.loc[split["subset"] == "validation", "label"])
    classes_of = _classes_by_lesion(split)
    lesions_of: dict[str, list[str]] = defaultdict(list)
    for lesion in sorted(classes_of):
        lesions_of[classes_of[lesion].most_common(1)[0][0]].append(lesion)
    _require_two({label: len(lesions) for label, lesions in lesions_of.items()}, "lesion")
    random = np.random.default_rng(seed)
    chosen: set[str] = set()
    for label, lesions in sorted(lesions_of.items()):
        shuffled = [lesions[position] for position in random.permutation(len(lesions))]
        sizes = [classes_of[lesion].total() for lesion in shuffled]
        chosen.update(shuffled[position] for position in fill(sizes, wanted[label]))
    chosen = _with_each_class_on_both_sides(classes_of, chosen)
    return _divided(split, np.array([lesion in chosen for lesion in split["lesion"]]))


def _classes_by_lesion(table: pd.DataFrame) -> dict[str, Counter[str]]:
    """The number of images of each class per lesion, with the classes in the order of the table."""
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for lesion, label in zip(table["lesion"], table["label"], strict=True):
        classes[lesion][label] += 1
    return classes


def fill(sizes: Sequence[int], wanted: int) -> list[int]:
    """Choose sizes whose sum is ``wanted`` or as near to it as possible, preferring earlier sizes.

    At least one size is chosen if ``wanted`` is positive, and never all of them.

    Args:
        sizes: at least two positive numbers, in order of preference.
        wanted: the target sum.

    Returns:
        The positions of the chosen sizes.
    """
    # Bit s of _reachable(i) is set if some of the sizes from i on add up to s. Storing them for all i would take
    # quadratic memory, so only those at the ends of blocks are kept, and one block at a time is computed.
    total = sum(sizes)
    mask = (1 << min(total, wanted + max(sizes) + 1)) - 1  # the nearest sum differs by at most the largest size
    block = math.isqrt(len(sizes)) + 1
    kept = [1]
    for start in range(len(sizes), 0, -block):
        kept.append(_reachable(sizes[max(0, start - block) : start], kept[-1], mask)[0])
    reached = kept.pop()
    sums = [size for size in range(min(wanted, 1), min(total, mask.bit_length())) if reached >> size & 1]
    left = min(sums, key=lambda size: abs(size - wanted))
    chosen: list[int] = []
    start = 0
    while kept:
        end = len(sizes) - block * (len(kept) - 1)
        after = _reachable(sizes[start:end], kept.pop(), mask)[1:]
        for position, reachable in zip(range(start, end), after, strict=True):
            size = sizes[position]
            if size <= left and reachable >> (left - size) & 1:
                chosen.append(position)
                left -= size
        start = end
    return chosen


def _reachable(sizes: Sequence[int], reached: int, mask: int) -> list[int]:
    """For each position, the reachable sums of the sizes from there on, as bits, including those already reached."""
    suffixes = [reached]
    for size in reversed(sizes):
        suffixes.append((suffixes[-1] | suffixes[-1] << size) & mask)
    suffixes.reverse()
    return suffixes


def _with_each_class_on_both_sides(classes_of: Mapping[str, Counter[str]], chosen: set[str]) -> set[str]:
    """Move lesions with as few images as possible, so that each class has images in both subsets.

    In ``lesion_split``, a lesion with several classes counts for only one of them. The other classes may then have no
    image in a subset, and one of their lesions is moved.

    Raises:
        DataError: no lesion can be moved for a class.
    """
    sides = [set(classes_of) - chosen, set(chosen)]
    counts = [Counter[str]() for _ in sides]
    lesions_of: dict[str, list[str]] = defaultdict(list)
    for lesion, classes in classes_of.items():
        for label in classes:
            lesions_of[label].append(lesion)
            counts[lesion in chosen][label] += 1
    for label in sorted(lesions_of):
        for side, other in ((0, 1), (1, 0)):
            if counts[side][label]:
                continue
            movable = [
                lesion
                for lesion in lesions_of[label]
                if lesion in sides[other] and all(counts[other][name] > 1 for name in classes_of[lesion])
            ]
            if not movable:
                raise DataError(
                    f"the images of class {label} are of lesions or groups that cannot be divided so that each subset "
                    f"has some of every class: add images of it from others, or set split: image"
                )
            lesion = min(movable, key=lambda name: (classes_of[name].total(), name))
            sides[other].remove(lesion)
            sides[side].add(lesion)
            for name in classes_of[lesion]:
                counts[other][name] -= 1
                counts[side][name] += 1
    return sides[1]


def _divided(table: pd.DataFrame, validation: NDArray[np.bool_]) -> pd.DataFrame:
    """The split in which the marked rows are for validation."""
    return table[["image", "label", "lesion"]].assign(subset=np.where(validation, "validation", "train"))


def _require_two(counts: Mapping[str, int], what: str) -> None:
    """Raise if a class has a single image (or lesion), which cannot be in both subsets."""
    single = sorted(label for label, count in counts.items() if count < 2)
    if single:
        raise DataError(
            f"class {', '.join(single)} has a single {what}, and each subset needs one: "
            f"add {what}s of it or take it out of the labels"
        )


def _require_classes_in_training(split: pd.DataFrame) -> None:
    trained = set(split.loc[split["subset"] == "train", "label"])
    if missing := sorted(set(split["label"]) - trained):
        raise DataError(f"the split that the data give has no training image of class {', '.join(missing)}: add some")


def _known(images: Sequence[str], lesions: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each image's lesion is known: its name differs from the image's, or it has several images."""
    counts = Counter(lesions)
    known = [image != lesion or counts[lesion] > 1 for image, lesion in zip(images, lesions, strict=True)]
    return np.array(known, dtype=bool)


def read_class_names(path: Path) -> list[str]:
    """Read the names of the classes that the split stage wrote, in their order.

    Raises:
        DataError: the file is missing, or is not a list of two or more different names.
    """
    try:
        names = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise DataError(f"{path} cannot be read: {reason}; run the split stage again") from None
    usable = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    if not usable or len(set(names)) < max(len(names), 2) or any(UNPRINTABLE.search(name) for name in names):
        raise DataError(f"{path} is no list of two or more different class names: run the split stage again")
    return names


def read_split(path: Path, classes: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a split that the split stage wrote.

    Args:
        path: the file.
        classes: the allowed labels, if known.

    Raises:
        DataError: the file is missing, is not such a table, or has invalid rows; it lists all problems.
    """
    try:
        split = read_csv(path, COLUMNS)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no CSV table"
        raise DataError(f"{path} cannot be read: {reason}; run the split stage again") from None
    if problems := _split_problems(split, classes):
        where = [Problem(f"{path}{f', {image!r}' if image else ''}", what) for image, what in problems]
        raise DataError("the split is not what the split stage wrote: run it again", where)
    return split


def _split_problems(split: pd.DataFrame, classes: Sequence[str] | None) -> list[tuple[str, str]]:
    """The problems of a split, each with the image (empty for problems of the table)."""
    if list(split.columns) != list(COLUMNS):
        return [("", f"has the columns {','.join(map(str, split.columns))[:200]!r} instead of {','.join(COLUMNS)!r}")]
    problems = [("", f"has no {subset} images") for subset in SUBSETS if subset not in set(split["subset"])]
    known = set(split["label"] if classes is None else classes)
    counts = Counter(split["image"])
    for image, label, lesion, subset in split.itertuples(index=False, name=None):
        if counts[image] > 1:
            problems.append((image, f"is there {counts[image]} times"))
        if label not in known or not label:
            problems.append((image, f"has the label {label!r}, which is not among the classes"))
        if subset not in ALL_SUBSETS:
            problems.append((image, f"is in the subset {subset!r}, which is not {', '.join(ALL_SUBSETS)}"))
        if not lesion:
            problems.append((image, "names no lesion"))
    return problems


def leakage(split: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Measure which share of the validation set shows lesions that are also in the training set.

    Returns:
        ``leakage``, the share of the validation images with known lesions whose lesion also occurs in training (None if
        no lesion is known); the same in ``leakage_per_class`` (None for a class without such validation images); the
        numbers of ``images`` and ``lesions`` in each subset, by class.
    """
    rows = list(zip(split["subset"], split["label"], split["lesion"], strict=True))
    trained = {lesion for subset, _, lesion in rows if subset == "train"}
    known = _known(list(split["image"]), list(split["lesion"]))
    images = Counter((subset, label) for subset, label, _ in rows)
    lesions = Counter((subset, label) for subset, label, _ in set(rows))
    held_out = [
        (label, lesion)
        for (subset, label, lesion), told in zip(rows, known, strict=True)
        if told and subset == "validation"
    ]
    leaked = Counter(label for label, lesion in held_out if lesion in trained)
    validated = Counter(label for label, _ in held_out)
    return {
        "leakage": _share(leaked.total(), validated.total()),
        "leakage_per_class": {label: _share(leaked[label], validated[label]) for label in classes},
        "images": {subset: {label: images[subset, label] for label in classes} for subset in SUBSETS},
        "lesions": {subset: {label: lesions[subset, label] for label in classes} for subset in SUBSETS},
    }


def leakage_note(split: pd.DataFrame) -> str:
    """Why ``leakage`` is None, or which part of the validation images it refers to; empty if it refers to all."""
    validation = (split["subset"] == "validation").to_numpy()
    known = int((_known(list(split["image"]), list(split["lesion"])) & validation).sum())
    if not known:
        return "unknown: no lesion or group of the validation images is named"
    if known < validation.sum():
        return f"of the {known:,} of {validation.sum():,} validation images whose lesion or group is known"
    return ""


def content_leakage(split: pd.DataFrame, copies: Sequence[Sequence[str]]) -> float | None:
    """The share of the validation images with a copy in the training set; None without validation images.

    Args:
        split: the split.
        copies: groups of copies, as found by ``images.copies``, independent of their classes.
    """
    subset_of = dict(zip(split["image"], split["subset"], strict=True))
    leaked = 0
    for group in copies:
        subsets = Counter(subset_of.get(image) for image in group)
        if subsets["train"]:
            leaked += subsets["validation"]
    return _share(leaked, sum(subset == "validation" for subset in subset_of.values()))


def content_leakage_note(split: pd.DataFrame, copies: Sequence[Sequence[str]]) -> str:
    """The result of ``content_leakage`` in one line; empty if it is zero."""
    share = content_leakage(split, copies)
    return f"{share:.1%} of the validation images are copies of training images, or nearly" if share else ""


def _share(part: int, whole: int) -> float | None:
    """part / whole, or None if whole is zero."""
    return part / whole if whole else None
