"""A report of all problems of a dataset, of notes on suspicious data, and of its contents."""

import hashlib
import os
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from cclnet.dataset.folders import holds_own_images
from cclnet.dataset.isic import GROUND_TRUTH_ZIP, INPUT_ZIP, LESION_TABLE, class_order
from cclnet.dataset.layouts import FOLDER, read_layout
from cclnet.dataset.tables import dataset_problems, images_in, labels_in, lesion_notes, lesions_in, members_in
from cclnet.images.copies import Copies, describe, find_copies
from cclnet.images.decoding import decode
from cclnet.images.finding import IMAGE_SUFFIXES
from cclnet.images.reading import map_members, map_places
from cclnet.system.errors import CCLNetError, Problem
from cclnet.system.progress import Report, silent
from cclnet.system.workspace import user_path

FEW_PIXELS = 8
"""Images with a shorter side than this, or than ``FEW_OF_MEDIAN`` times the median of all images, are reported."""
FEW_OF_MEDIAN = 0.1
MOST_NAMED = 20
"""Largest number of notes of one kind that are listed; the others are counted."""
THUMBNAIL_SIDE = 256
"""Longer side in pixels at which copies are searched, so that large images take no more time."""


class UncheckedError(CCLNetError):
    """A dataset could not be examined; the exit status differs from that of a dataset with problems."""

    exit_status = 2


@dataclass(frozen=True)
class Findings:
    """The contents of a dataset, its problems, and notes on suspicious data.

    Attributes:
        source: the folder, as the user wrote it.
        images: number of image files.
        labels: number of images with a label.
        lesions: number of lesions or groups of the labelled images, counted as in a split; None if none is named.
        class_counts: number of labels of each class.
        problems: all problems, those of zips and tables before those of single images.
        notes: findings that may be intended: copies, lesions of several classes, tiny images, the interpretation of
            folders.
    """

    source: str
    images: int
    labels: int
    lesions: int | None
    class_counts: dict[str, int]
    problems: Sequence[Problem]
    notes: Sequence[Problem] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """The findings in a form for JSON: a problem or note is an object with ``where`` and ``what``."""
        return {
            **vars(self),
            "problems": [problem._asdict() for problem in self.problems],
            "notes": [note._asdict() for note in self.notes],
        }

    def summary(self) -> str:
        """Two lines: the number of problems and images, and the number of images of each class."""
        images = counted(self.images, "image")
        if self.problems:
            verdict = f"{counted(len(self.problems), 'problem')} in {images}"
        else:
            lesions = "lesions unknown" if self.lesions is None else counted(self.lesions, "lesion")
            verdict = f"no problem: {images}, {counted(self.labels, 'label')}, {lesions}"
        return f"{verdict}\n{', '.join(f'{name} {count:,}' for name, count in self.class_counts.items())}"


class _Look(NamedTuple):
    """The data that are kept of a decoded image."""

    digest: str
    description: bytes
    size: tuple[int, int]


def counted(number: int, noun: str) -> str:
    """``1 image``, ``1,000 images``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def check_dataset(source: str, report: Report = silent) -> Findings:
    """Find all problems of a dataset: of its zips, its tables and every image. Nothing is written.

    Args:
        source: a folder with the three official files, or with images in any layout that ``dataset.layouts`` knows.
        report: called with the number of images decoded.

    Raises:
        UncheckedError: the folder is missing, or cannot be read.
    """
    folder = user_path(source)
    if "://" in source or not folder.is_dir():
        raise UncheckedError(
            f"{source!r} is no folder: name the one that holds {INPUT_ZIP} and the two files beside it, or images of "
            "your own; from an address, dvc repro download fetches them into data/raw"
        )
    try:
        return (
            _check_own(source, folder, report) if holds_own_images(source) else _check_official(source, folder, report)
        )
    except OSError as error:
        where = error.filename or source
        raise UncheckedError(f"{where}: {error.strerror or error}; fix that and run it again") from None


def _check_own(source: str, folder: Path, report: Report) -> Findings:
    found = read_layout(folder)
    places = [*found.places.values()]
    names = [f"{place.path.relative_to(folder)}{f': {place.member!r}' if place.member else ''}" for place in places]
    results = map_places(places, _look, os.cpu_count() or 1)
    looks, problems = _looked_at(dict(zip(found.places, names, strict=True)), results, report)
    labels = {image: kind.label for image, kind in found.kinds.items()}
    groups = {image: kind.group for image, kind in found.kinds.items() if kind.group is not None}
    notes = [*found.notes, *_notes(labels, groups, looks)]
    counts = Counter(labels.values())
    return Findings(
        source=source,
        images=len(places),
        labels=len(labels),
        lesions=_lesion_count(labels, groups),
        class_counts={name: counts[name] for name in class_order(counts)},
        problems=found.problems + problems,
        notes=notes,
    )


def _check_official(source: str, folder: Path, report: Report) -> Findings:
    images, _ = members_in(folder / INPUT_ZIP, IMAGE_SUFFIXES)
    classes, said, _ = labels_in(folder / GROUND_TRUTH_ZIP)
    lesions, _ = lesions_in(folder / LESION_TABLE)
    looks, problems = _look_at_zip(folder / INPUT_ZIP, report)
    labels = {image: label for image, label in said.items() if label}
    groups = {image: lesion for image, lesion in lesions.items() if lesion and image in said}
    shared = Counter(groups.values())
    known = {image: lesion for image, lesion in groups.items() if lesion != image or shared[lesion] > 1}
    counts = Counter(labels.values())
    return Findings(
        source=source,
        images=len(images),
        labels=len(labels),
        lesions=_lesion_count(groups, known),
        class_counts={name: counts[name] for name in classes},
        problems=dataset_problems(folder) + problems,
        notes=[*lesion_notes(folder / LESION_TABLE), *_notes(labels, known, looks)],
    )


def _lesion_count(images: Iterable[str], groups: Mapping[str, str]) -> int | None:
    """The number of groups, counting an image without a group as its own; None if no image has one."""
    images = list(images)
    if images and not groups:
        return None
    return len(set(groups.values())) + sum(image not in groups for image in images)


# examining images


def _look_at_zip(input_zip: Path, report: Report) -> tuple[dict[str, _Look], list[Problem]]:
    """The looks of the images of a zip, without members that are unsafe to unpack; and the problems."""
    members, faults = members_in(input_zip, IMAGE_SUFFIXES)
    unsafe = {fault.where for fault in faults}
    safe = {member.filename: place for member in members if (place := _place_of(input_zip, member)) not in unsafe}
    if not safe:
        return {}, []
    results = map_members(input_zip, list(safe), _look, os.cpu_count() or 1)
    looks, problems = _looked_at(safe, results, report)
    image_of = {member: image for image, member in images_in(input_zip)[0].items()}
    return {image_of[member]: look for member, look in looks.items() if member in image_of}, problems


def _place_of(path: Path, member: zipfile.ZipInfo) -> str:
    """The location of a problem of a zip's member, in the same words as in the check of the zip's directory."""
    return f"{path.name}: {member.orig_filename!r}"


def _look(data: bytes) -> _Look:
    """Decode a file's bytes and discard the image to save memory.

    Raises:
        ValueError: as ``decode``.
    """
    image = decode(data)
    size = image.size
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return _Look(hashlib.sha256(data).hexdigest(), describe(image), size)


def _looked_at(
    places: Mapping[str, str], results: Iterator[_Look | ValueError], report: Report
) -> tuple[dict[str, _Look], list[Problem]]:
    """The looks of the readable images by name, and the problems of the others; ``places`` maps names to locations."""
    looks: dict[str, _Look] = {}
    problems: list[Problem] = []
    for done, ((name, where), result) in enumerate(zip(places.items(), results, strict=True), start=1):
        report("images decoded", done, len(places))
        if isinstance(result, ValueError):
            problems.append(Problem(where, str(result)))
        else:
            looks[name] = result
    return looks, problems


# notes


def _notes(labels: Mapping[str, str], groups: Mapping[str, str], looks: Mapping[str, _Look]) -> list[Problem]:
    """All findings that may be intended; ``groups`` contains only images with a known lesion or group."""
    copies = find_copies(
        {image: look.digest for image, look in looks.items()},
        {image: look.description for image, look in looks.items()},
    )
    return [
        *_unknown_groups(labels, groups),
        *_small_classes(labels, groups),
        *_several_classes(labels, groups),
        *_tiny(looks),
        *_copies(copies, labels, groups),
    ]


def _limited(notes: list[Problem], what: str) -> list[Problem]:
    """The first notes of a kind, and the number of further ones."""
    if len(notes) <= MOST_NAMED:
        return notes
    return [*notes[:MOST_NAMED], Problem(FOLDER, f"has {len(notes) - MOST_NAMED:,} more {what}")]


def _unknown_groups(labels: Mapping[str, str], groups: Mapping[str, str]) -> list[Problem]:
    unknown = sum(image not in groups for image in labels)
    if not unknown:
        return []
    images = counted(unknown, "image") if groups else "any image"
    return [Problem(FOLDER, f"does not say the lesion or group of {images}: leakage between subsets is unknown there")]


def _small_classes(labels: Mapping[str, str], groups: Mapping[str, str]) -> list[Problem]:
    """Classes that are too small for both subsets."""
    images: dict[str, set[str]] = defaultdict(set)
    lesions: dict[str, set[str]] = defaultdict(set)
    for image, label in labels.items():
        images[label].add(image)
        lesions[label].add(groups.get(image, image))
    notes = []
    for label in class_order(images):
        if len(images[label]) == 1:
            notes.append(Problem(f"class {label}", "has a single image, and each subset needs one"))
        elif len(lesions[label]) == 1:
            notes.append(Problem(f"class {label}", "has a single lesion or group, which split: lesion cannot divide"))
    return _limited(notes, "such classes")


def _several_classes(labels: Mapping[str, str], groups: Mapping[str, str]) -> list[Problem]:
    """Lesions whose images have different classes; this is normal for a patient, but not for a lesion."""
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for image, group in groups.items():
        if image in labels:
            classes[group][labels[image]] += 1
    notes = [
        Problem(
            f"lesion or group {group!r}",
            f"has images of {_and(f'{name} ({count})' for name, count in found.most_common())}",
        )
        for group, found in sorted(classes.items())
        if len(found) > 1
    ]
    return _limited(notes, "lesions or groups of several classes")


def _and(names: Iterable[str]) -> str:
    return " and ".join(names)


def _tiny(looks: Mapping[str, _Look]) -> list[Problem]:
    if not looks:
        return []
    usual = median(min(look.size) for look in looks.values())
    least = max(FEW_PIXELS, FEW_OF_MEDIAN * usual)
    notes = [
        Problem(
            image, f"has {look.size[0]} × {look.size[1]} pixels; half of the images have a shorter side of {usual:g}"
        )
        for image, look in sorted(looks.items())
        if min(look.size) < least
    ]
    return _limited(notes, "images of so few pixels")


def _copies(copies: Copies, labels: Mapping[str, str], groups: Mapping[str, str]) -> list[Problem]:
    """Copies: those that a split can separate are listed by name, those within one lesion or group are counted."""

    def apart(images: Sequence[str]) -> bool:
        return len({groups.get(image, image) for image in images}) > 1

    notes = _of_groups(copies.identical, apart, "are the same file", labels)
    named = {image for group in copies.identical for image in group}
    alike = [group for group in copies.alike if not named.issuperset(group)]
    notes += _of_groups(alike, apart, "hardly differ", labels)
    together = sum(len(group) - 1 for group in copies.groups() if not apart(group))
    if together:
        notes.append(
            Problem(FOLDER, f"has {counted(together, 'image')} that another of the same lesion or group shows too")
        )
    return notes


def _of_groups(
    groups: Sequence[Sequence[str]], apart: Callable[[Sequence[str]], bool], what: str, labels: Mapping[str, str]
) -> list[Problem]:
    notes = []
    for images in groups:
        if not apart(images):
            continue
        classes = class_order({labels[image] for image in images if image in labels})
        more = f", but are labelled {_and(classes)}" if len(classes) > 1 else ""
        shown = ", ".join(images[:3]) + (f" and {len(images) - 3:,} more" if len(images) > 3 else "")
        notes.append(Problem(shown, f"{what}{more}"))
    return _limited(notes, f"groups of images that {what}")
