"""The tables of a dataset, and everything that can be wrong with a copy of it.

A dataset is a folder with three files: a zip of images, a zip with the table of labels, and a table of lesions. The
images stay in their zip: nothing is unpacked to the disk, and no member name is ever used as a path.
"""

import csv
import io
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from cclnet.archives import damaged_members, zip_directory
from cclnet.errors import DataError, Problem
from cclnet.isic import CLASSES, GROUND_TRUTH_ZIP, INPUT_ZIP, LESION_TABLE
from cclnet.progress import silent

LABEL_COLUMNS = ("image", *CLASSES)
LESION_COLUMNS = ("image", "lesion_id")
IMAGE_SUFFIXES = (".jpg", ".jpeg")
NOTES = ("ATTRIBUTION", "LICENSE")


class Row(NamedTuple):
    """A row of a table: where it stands, its image, and the values of its other columns (none if the row is broken)."""

    where: str
    image: str
    values: Sequence[str]


def read_table(folder: Path) -> pd.DataFrame:
    """Read the labels and the lesions of a dataset.

    Returns:
        The columns image, label (the class's name) and lesion, one row for each labelled image, sorted by image.

    Raises:
        DataError: with every fault of both tables.
    """
    labels, problems = labels_in(folder / GROUND_TRUTH_ZIP)
    lesions, more = lesions_in(folder / LESION_TABLE)
    require_none([*problems, *more, *without_lesion(labels, lesions)])
    return frame(labels, "label").merge(frame(lesions, "lesion"), on="image", validate="one_to_one")


def read_labels(ground_truth_zip: Path) -> pd.DataFrame:
    """Read the columns image and label (the class's name), sorted by image.

    Raises:
        DataError: with every fault of the table.
    """
    labels, problems = labels_in(ground_truth_zip)
    require_none(problems)
    return frame(labels, "label")


def read_lesions(lesion_table: Path) -> pd.DataFrame:
    """Read the columns image and lesion, sorted by image.

    Raises:
        DataError: with every fault of the table.
    """
    lesions, problems = lesions_in(lesion_table)
    require_none(problems)
    return frame(lesions, "lesion")


def image_members(input_zip: Path) -> dict[str, zipfile.ZipInfo]:
    """Find the images in their zip: the zip's member of each image, sorted by image.

    Raises:
        DataError: with every fault of the zip's directory; the images themselves are not read.
    """
    members, problems = images_in(input_zip)
    require_none(problems)
    return members


def dataset_problems(folder: Path) -> list[Problem]:
    """Everything that is wrong with a dataset's tables and with its zips' directories; no image is decoded.

    A lesion table may name images that the dataset does not have: a subset may come with the official table.
    """
    members, problems = images_in(folder / INPUT_ZIP)
    labels, label_problems = labels_in(folder / GROUND_TRUTH_ZIP)
    lesions, lesion_problems = lesions_in(folder / LESION_TABLE)
    problems += label_problems + lesion_problems
    if members and labels:
        problems += absent(labels, members, INPUT_ZIP, "image")
        problems += absent(members, labels, GROUND_TRUTH_ZIP, "label of image")
    return problems + without_lesion(labels, lesions)


def without_lesion(labels: Mapping[str, str], lesions: Mapping[str, str]) -> list[Problem]:
    """The labelled images that the lesion table leaves out; none if a whole table is missing, which is said already."""
    return absent(labels, lesions, LESION_TABLE, "lesion of image") if labels and lesions else []


def absent(wanted: Iterable[str], present: Iterable[str], where: str, what: str) -> list[Problem]:
    """The images that ``where`` lacks, with the one it has if only the letter case differs."""
    present = set(present)
    in_lower_case = {image.casefold(): image for image in present}
    similar = {image: in_lower_case.get(image.casefold()) for image in wanted if image not in present}
    return [
        Problem(where, f"has no {what} {image!r}" + (f", but one of {other!r}: mind the letter case" if other else ""))
        for image, other in similar.items()
    ]


def images_in(path: Path) -> tuple[dict[str, zipfile.ZipInfo], list[Problem]]:
    """The members of the images that can be told, and the problems of the zip."""
    members, problems = members_in(path, IMAGE_SUFFIXES)
    images: dict[str, zipfile.ZipInfo] = {}
    first: dict[str, str] = {}
    for member in members:
        image = PurePosixPath(member.filename).stem
        other = first.setdefault(image.casefold(), member.filename)
        if other != member.filename:
            problems.append(Problem(f"{path.name}: {member.filename!r}", f"is the same image as {other!r}"))
        images[image] = member
    return dict(sorted(images.items())), problems


def labels_in(path: Path) -> tuple[dict[str, str], list[Problem]]:
    """The class of each image (empty where its row is at fault), and the problems of the label table and its zip."""
    members, problems = members_in(path, (".csv",))
    if not problems:
        problems = damaged_members(path, path.name, silent)
    if not problems and len(members) != 1:
        problems = [Problem(path.name, f"holds {len(members)} tables instead of one")]
    if problems:
        return {}, problems
    with zipfile.ZipFile(path) as archive:
        rows, problems = rows_in(archive.read(members[0]), f"{path.name}: {members[0].filename!r}", LABEL_COLUMNS)
    labels: dict[str, str] = {}
    for row in rows:
        labels[row.image], fault = class_of(row.values) if row.values else ("", "")
        if fault:
            problems.append(Problem(row.where, fault))
    return labels, problems


def class_of(values: Sequence[str]) -> tuple[str, str]:
    """The class that a one-hot row names, and what is wrong with the row; one of the two is empty."""
    named = dict(zip(CLASSES, values, strict=True))
    odd = [f"{name} is {value!r}" for name, value in named.items() if number(value) not in (0, 1)]
    if odd:
        return "", f"{', '.join(odd)} instead of 0 or 1"
    ones = [name for name, value in named.items() if number(value) == 1]
    if len(ones) != 1:
        return "", f"is labelled {' and '.join(ones) or 'with no class'} instead of with one class"
    return ones[0], ""


def number(text: str) -> float:
    """The number that a text stands for, NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def lesions_in(path: Path) -> tuple[dict[str, str], list[Problem]]:
    """The lesion of each image, and the problems of the table."""
    if not path.is_file():
        return {}, [Problem(path.name, "is missing")]
    rows, problems = rows_in(path.read_bytes(), path.name, LESION_COLUMNS)
    problems += [Problem(row.where, "names no lesion") for row in rows if row.values and not row.values[0].strip()]
    return {row.image: "".join(row.values) for row in rows}, problems


def header_in(data: bytes) -> list[str]:
    """The names in the first line of a CSV table; none if it cannot be read, and ``rows_in`` says why."""
    try:
        return next(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return []


def rows_in(data: bytes, where: str, columns: Sequence[str]) -> tuple[list[Row], list[Problem]]:
    """Read a CSV table whose header begins with the given columns, the first of them the image's name.

    A byte-order mark and either kind of line end are taken; further columns are not read.

    Returns:
        The rows (the first one of each image), and the problems of the table.
    """
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        lines = [(f"{where}, line {reader.line_num}", values) for values in reader if values]
    except (UnicodeDecodeError, csv.Error) as error:
        return [], [Problem(where, f"is no CSV table in UTF-8: {error}")]
    header = lines[0][1] if lines else []
    if header[: len(columns)] != list(columns):
        return [], [Problem(where, f"has the columns {','.join(header)[:200]!r} instead of {','.join(columns)!r}")]
    if len(lines) == 1:
        return [], [Problem(where, "has no rows")]
    rows: dict[str, Row] = {}
    problems: list[Problem] = []
    for place, values in lines[1:]:
        row = Row(f"{place}, {values[0]!r}", values[0], values[1 : len(columns)])
        if len(values) != len(header):
            problems.append(Problem(row.where, f"has {len(values)} values instead of {len(header)}"))
            row = row._replace(values=[])
        first = rows.setdefault(row.image.casefold(), row)
        if first is not row:
            problems.append(Problem(row.where, f"is there a second time, after {first.where}"))
        if not row.image.strip():
            problems.append(Problem(row.where, "names no image"))
    return list(rows.values()), problems


def members_in(path: Path, suffixes: Sequence[str]) -> tuple[list[zipfile.ZipInfo], list[Problem]]:
    """The zip's members with one of the suffixes, in either letter case, and the problems of its directory."""
    if not path.is_file():
        return [], [Problem(path.name, "is missing")]
    files, problems = zip_directory(path, path.name)
    members = [file for file in files if PurePosixPath(file.filename).suffix.lower() in suffixes]
    problems += [
        Problem(f"{path.name}: {file.filename!r}", f"is neither {' nor '.join(suffixes)} nor a note")
        for file in files
        if file not in members and PurePosixPath(file.filename).stem.upper() not in NOTES
    ]
    if files and not members:
        problems.append(Problem(path.name, f"holds no file with the suffix {' or '.join(suffixes)}"))
    return members, problems


def frame(values: Mapping[str, str], column: str) -> pd.DataFrame:
    """A table with the columns image and ``column``, sorted by image."""
    return pd.DataFrame(sorted(values.items()), columns=["image", column])


def require_none(problems: Sequence[Problem]) -> None:
    """Raise what has been found together, if anything has."""
    if problems:
        raise DataError("the dataset cannot be used: mend what follows or name another source", problems)
