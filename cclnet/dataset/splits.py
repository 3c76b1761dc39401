"""The ways of dividing a dataset into training and validation, and what leaks from one into the other.

A table has the columns image, label and lesion, one row for each image; a split has ``subset`` besides, ``train`` or
``validation`` (or ``test``, which neither of the two sees), and is sorted by image. A split depends on the table's
contents and the seed alone, not on the order of its rows.

An image whose lesion nobody knows has its own name as its lesion. It may be of any lesion, so that nothing is said of
its independence: ``leakage`` counts the others.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedShuffleSplit

from cclnet.system.errors import DataError, Problem
from cclnet.system.files import read_csv, read_json
from cclnet.system.names import UNPRINTABLE

SUBSETS = ("train", "validation")
ALL_SUBSETS = (*SUBSETS, "test")
COLUMNS = ("image", "label", "lesion", "subset")


def divide(table: pd.DataFrame, split: str, validation_fraction: float, seed: int) -> pd.DataFrame:
    """Divide a table by ``image`` or by ``lesion``.

    Where the data give a split of their own (a column ``subset``), ``image`` keeps it as it is, and ``lesion`` divides
    all but the test images anew; without validation images among the given ones, training images are divided.

    Raises:
        DataError: as ``image_split`` or ``lesion_split``, or the given split lacks a class in training.
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
    return together.sort_values(by="image", ignore_index=True).reindex(columns=list(COLUMNS))


def image_split(table: pd.DataFrame, validation_fraction: float, seed: int) -> pd.DataFrame:
    """Draw images for validation, in each class as many as its share demands (the paper's split).

    Images of one lesion may end up on both sides: ``leakage`` measures it.

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
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=validation, random_state=seed)
    _, chosen = next(splitter.split(table, table["label"]))
    return _divided(table, np.isin(np.arange(len(table)), chosen))


def lesion_split(table: pd.DataFrame, validation_fraction: float, seed: int) -> pd.DataFrame:
    """Draw whole lesions for validation, in each class as many images as ``image_split`` draws.

    A lesion counts for the class of most of its images. Where whole lesions cannot give the very number of images, the
    nearest that they can give is taken. Each class has images in both subsets.

    Raises:
        DataError: as ``image_split``; no lesion is known; or whole lesions cannot give each subset images of a class.
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
    """How many images of each class a lesion has, those classes first that the table names first."""
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for lesion, label in zip(table["lesion"], table["label"], strict=True):
        classes[lesion][label] += 1
    return classes


def fill(sizes: Sequence[int], wanted: int) -> list[int]:
    """Choose sizes whose sum is ``wanted``, or else the nearest to it, taking each one that still leads there.

    At least one is chosen if any is wanted, and never all of them.

    Args:
        sizes: positive numbers, in the order in which they are offered; two at least.
        wanted: the sum to reach.

    Returns:
        The positions of the chosen sizes.
    """
    # bit s of _reachable(i) says whether some of the sizes from i on add up to s. All of them together would be as
    # large as the square of their number: only those at the ends of blocks are kept, and a block at a time is computed.
    total = sum(sizes)
    mask = (1 << min(total, wanted + max(sizes) + 1)) - 1  # the nearest sum is no farther than the largest size
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
    """What sums some of the sizes from each on give, as bits, together with those that are reached without them."""
    suffixes = [reached]
    for size in reversed(sizes):
        suffixes.append((suffixes[-1] | suffixes[-1] << size) & mask)
    suffixes.reverse()
    return suffixes


def _with_each_class_on_both_sides(classes_of: Mapping[str, Counter[str]], chosen: set[str]) -> set[str]:
    """The lesions for validation, with as few images moved as give each class some in both subsets.

    A lesion with several classes counts for one of them in ``lesion_split``; the others may have no image left in a
    subset, and then a lesion of theirs changes sides.

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
    """Raise if a class has one image (or lesion), which cannot be both trained on and validated on."""
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
    """Whether each image's lesion is known: it has another name than the image, or further images."""
    counts = Counter(lesions)
    known = [image != lesion or counts[lesion] > 1 for image, lesion in zip(images, lesions, strict=True)]
    return np.array(known, dtype=bool)


def read_class_names(path: Path) -> list[str]:
    """Read the names of the classes that the split stage wrote, in their order.

    Raises:
        DataError: it is not there, or is no list of two or more different names.
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
        classes: what its labels must be among, if that is known.

    Raises:
        DataError: it is not there, is no such table, or its rows make no sense; with every fault.
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
    """What is wrong with a split: the image, empty where it is about the table, and the fault."""
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
    """Measure how much of the validation set is of lesions that are trained on too.

    Returns:
        ``leakage``, the share of the validation images of known lesions whose lesion also occurs in training, None
        where no lesion is known; the same in ``leakage_per_class`` (None for a class without such validation images);
        the numbers of ``images`` and ``lesions`` in each subset, by class.
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
    """Why ``leakage`` is None, or of which part of the validation images it is; empty if it is of all of them."""
    validation = (split["subset"] == "validation").to_numpy()
    known = int((_known(list(split["image"]), list(split["lesion"])) & validation).sum())
    if not known:
        return "unknown: no lesion or group of the validation images is named"
    if known < validation.sum():
        return f"of the {known:,} of {validation.sum():,} validation images whose lesion or group is known"
    return ""


def content_leakage(split: pd.DataFrame, copies: Sequence[Sequence[str]]) -> float | None:
    """The share of the validation images of which a copy is trained on; None without validation images.

    Args:
        split: the split.
        copies: groups of images that show the same, as ``images.copies`` finds them, whatever their classes.
    """
    subset_of = dict(zip(split["image"], split["subset"], strict=True))
    leaked = 0
    for group in copies:
        subsets = Counter(subset_of.get(image) for image in group)
        if subsets["train"]:
            leaked += subsets["validation"]
    return _share(leaked, sum(subset == "validation" for subset in subset_of.values()))


def content_leakage_note(split: pd.DataFrame, copies: Sequence[Sequence[str]]) -> str:
    """What ``content_leakage`` finds, in a line; empty if it finds nothing."""
    share = content_leakage(split, copies)
    return f"{share:.1%} of the validation images are copies of training images, or nearly" if share else ""


def _share(part: int, whole: int) -> float | None:
    """The part of the whole, None of nothing."""
    return part / whole if whole else None
