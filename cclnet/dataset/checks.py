"""One report of everything that is wrong with a dataset, and of what is in it."""

import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cclnet.dataset.isic import GROUND_TRUTH_ZIP, INPUT_ZIP, LESION_TABLE
from cclnet.dataset.tables import IMAGE_SUFFIXES, dataset_problems, labels_in, lesions_in, members_in
from cclnet.images.decoding import decode
from cclnet.images.reading import map_members
from cclnet.system.errors import CCLNetError, Problem
from cclnet.system.progress import Report, silent


class UncheckedError(CCLNetError):
    """A dataset could not be looked at; another exit status than that of a dataset with problems says so."""

    exit_status = 2


@dataclass(frozen=True)
class Findings:
    """What is in a dataset, and what is wrong with it.

    Attributes:
        source: the folder, as the user wrote it.
        images: files of images in their zip.
        labels: images that the label table gives a class.
        lesions: different lesions of the images in the label table.
        class_counts: labels of each class.
        problems: every fault, those of zips and tables before those of single images.
    """

    source: str
    images: int
    labels: int
    lesions: int
    class_counts: dict[str, int]
    problems: Sequence[Problem]

    def as_dict(self) -> dict[str, Any]:
        """The findings as JSON takes them: a problem is an object of ``where`` and ``what``."""
        return {**vars(self), "problems": [problem._asdict() for problem in self.problems]}

    def summary(self) -> str:
        """How many problems in how much, and the images of each class: two lines."""
        images = counted(self.images, "image")
        if self.problems:
            verdict = f"{counted(len(self.problems), 'problem')} in {images}"
        else:
            verdict = f"no problem: {images}, {counted(self.labels, 'label')}, {counted(self.lesions, 'lesion')}"
        return f"{verdict}\n{', '.join(f'{name} {count:,}' for name, count in self.class_counts.items())}"


def counted(number: int, noun: str) -> str:
    """``1 image``, ``1,000 images``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def check_dataset(source: str, report: Report = silent) -> Findings:
    """Find everything that is wrong with a dataset: its zips, its tables and every image. Nothing is written.

    Args:
        source: the folder with the three official files.
        report: told of the images as they are decoded.

    Raises:
        UncheckedError: the folder is not there, or cannot be read.
    """
    folder = Path(source).expanduser()
    if "://" in source or not folder.is_dir():
        raise UncheckedError(
            f"{source!r} is no folder: name the one that holds {INPUT_ZIP} and the two files beside it; "
            "from an address, dvc repro download fetches them into data/raw"
        )
    try:
        images, _ = members_in(folder / INPUT_ZIP, IMAGE_SUFFIXES)
        classes, labels, _ = labels_in(folder / GROUND_TRUTH_ZIP)
        lesions, _ = lesions_in(folder / LESION_TABLE)
        problems = dataset_problems(folder) + image_problems(folder / INPUT_ZIP, report)
    except OSError as error:
        where = error.filename or source
        raise UncheckedError(f"{where}: {error.strerror or error}: mend that and run again") from None
    counts = Counter(labels.values())
    class_counts = {name: counts[name] for name in classes}
    named = {lesions.get(image, "").strip() for image in labels} - {""}
    return Findings(source, len(images), sum(class_counts.values()), len(named), class_counts, problems)


def image_problems(input_zip: Path, report: Report = silent) -> list[Problem]:
    """The images that cannot be decoded, apart from those that the zip's directory makes unsafe to unpack."""
    members, faults = members_in(input_zip, IMAGE_SUFFIXES)
    unsafe = {fault.where for fault in faults}
    safe = [(place, member) for member in members if (place := place_of(input_zip, member)) not in unsafe]
    if not safe:
        return []
    problems: list[Problem] = []
    results = map_members(input_zip, [member.filename for _, member in safe], require_picture, os.cpu_count() or 1)
    for done, ((place, _), fault) in enumerate(zip(safe, results, strict=True), start=1):
        report("images decoded", done, len(safe))
        if fault:
            problems.append(Problem(place, str(fault)))
    return problems


def place_of(path: Path, member: zipfile.ZipInfo) -> str:
    """Where a problem of a zip's member is, in the words that the zip's directory is checked with."""
    return f"{path.name}: {member.orig_filename!r}"


def require_picture(data: bytes) -> None:
    """Decode a file's bytes and drop the picture, which would only fill the memory.

    Raises:
        ValueError: as ``decode``.
    """
    decode(data)
