"""The tables of a dataset, and checks of all its files.

A dataset is a folder with three files: a zip of images, a zip with the table of labels, and a table of lesions. The
images stay in their zip: nothing is unpacked to the disk, and no member name is ever used as a path.
"""

import csv
import io
import math
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from cclnet.dataset.archives import damaged_members, zip_directory
from cclnet.dataset.isic import CLASSES, GROUND_TRUTH_ZIP, INPUT_ZIP, LESION_TABLE, class_order
from cclnet.images.finding import IMAGE_SUFFIXES
from cclnet.system.errors import DataError, Problem
from cclnet.system.files import file_fault
from cclnet.system.names import IS_FORMULA, UNPRINTABLE, is_formula, normalised, spelling_notes
from cclnet.system.progress import silent

OWN_LABELS = "own_labels.csv"
"""The name in the zip of a label table with arbitrary classes; tables with other names need the challenge's classes."""
LABEL_COLUMNS = ("image", "label")
"""The first columns of a table that names classes; a table with one-hot columns begins differently."""
SUBSET_COLUMN = "subset"
LESION_COLUMNS = ("image", "lesion_id")
GIVEN_SUBSETS = ("train", "validation", "test")
NOTES = ("ATTRIBUTION", "LICENSE")
COLUMNS = ("image", "label", "lesion")
"""Reserved names, which no class may have: tables of predictions have these columns and one for each class."""
MOST_STRAYS = 100
"""Largest number of unexpected files in a zip that are named; the others are counted."""


class Row(NamedTuple):
    """A row of a table: its location, its image, and the values of its other columns (empty if the row is broken)."""

    where: str
    image: str
    values: Sequence[str]


def read_table(folder: Path) -> pd.DataFrame:
    """Read the labels and the lesions of a dataset.

    Returns:
        The columns image, label (the class's name) and lesion, one row for each labelled image, sorted by image; and
        ``subset`` if the label table has it. The lesion of an image with an unknown lesion is the image's name.

    Raises:
        DataError: lists all problems of both tables.
    """
    _, labels, problems = labels_in(folder / GROUND_TRUTH_ZIP)
    lesions, more = lesions_in(folder / LESION_TABLE)
    require_none([*problems, *more, *without_lesion(labels, lesions)])
    table = frame(labels, "label").merge(frame(lesions, "lesion"), on="image", validate="one_to_one")
    subsets = subsets_in(folder / GROUND_TRUTH_ZIP)
    return table.merge(frame(subsets, SUBSET_COLUMN), on="image", validate="one_to_one") if subsets else table


def read_classes(ground_truth_zip: Path) -> list[str]:
    """Read the names of a dataset's classes, in the order of the label table's header.

    Raises:
        DataError: lists all problems of the table.
    """
    classes, _, problems = labels_in(ground_truth_zip)
    require_none(problems)
    return list(classes)


def image_members(input_zip: Path) -> dict[str, str]:
    """The name of each image's member in the zip, sorted by image.

    Raises:
        DataError: lists all problems of the zip's directory; the images themselves are not read.
    """
    members, problems = images_in(input_zip)
    require_none(problems)
    return members


def dataset_problems(folder: Path) -> list[Problem]:
    """All problems of a dataset's tables and of its zips' directories; no image is decoded.

    A lesion table may name images that are not in the dataset: a subset may be used with the official table.
    """
    members, problems = images_in(folder / INPUT_ZIP)
    _, labels, label_problems = labels_in(folder / GROUND_TRUTH_ZIP)
    lesions, lesion_problems = lesions_in(folder / LESION_TABLE)
    problems += label_problems + lesion_problems
    if members and labels:
        problems += absent(labels, members, INPUT_ZIP, "image")
        problems += absent(members, labels, GROUND_TRUTH_ZIP, "label of image")
    return problems + without_lesion(labels, lesions)


def without_lesion(labels: Mapping[str, str], lesions: Mapping[str, str]) -> list[Problem]:
    """The labelled images that are not in the lesion table; empty if a whole table is missing, which is reported."""
    return absent(labels, lesions, LESION_TABLE, "lesion of image") if labels and lesions else []


def absent(wanted: Iterable[str], present: Iterable[str], where: str, what: str) -> list[Problem]:
    """The images that are missing in ``where``, with a similar one if only the letter case differs."""
    present = set(present)
    in_lower_case = {image.casefold(): image for image in present}
    similar = {image: in_lower_case.get(image.casefold()) for image in wanted if image not in present}
    return [
        Problem(where, f"has no {what} {image!r}" + (f", but one of {other!r}: mind the letter case" if other else ""))
        for image, other in similar.items()
    ]


def images_in(path: Path) -> tuple[dict[str, str], list[Problem]]:
    """The member of each image in a zip, by image name, and the problems of the zip."""
    members, problems = members_in(path, IMAGE_SUFFIXES)
    images: dict[str, str] = {}
    first: dict[str, str] = {}
    for member in members:
        image = normalised(PurePosixPath(member.filename).stem)
        if is_formula(image):
            problems.append(Problem(f"{path.name}: {member.filename!r}", IS_FORMULA))
        other = first.setdefault(image.casefold(), member.filename)
        if other != member.filename:
            problems.append(Problem(f"{path.name}: {member.filename!r}", f"is the same image as {other!r}"))
        images[image] = member.filename
    return dict(sorted(images.items())), problems


def labels_in(path: Path, classes: Sequence[str] | None = None) -> tuple[Sequence[str], dict[str, str], list[Problem]]:
    """The classes, the class of each image (empty if its row has a problem), and the problems of the table or its zip.

    Args:
        path: the table of labels (CSV), or a zip that contains only this table.
        classes: the class columns after ``image``, in this order. None: the challenge's classes, or any classes if the
            table in the zip is called ``OWN_LABELS``.
    """
    name, data, problems = label_table_in(path)
    where = path.name if name == path.name else f"{path.name}: {name!r}"
    own = classes is None and PurePosixPath(name).name == OWN_LABELS
    header = header_in(data)
    if _names_classes(header, own):
        return _named_labels(data, where, None if own else classes or CLASSES)
    if own:
        classes = [normalised(label) for label in header[1:]]
        problems += [Problem(where, fault) for fault in class_faults(header[1:]) if header]
    classes = CLASSES if classes is None else classes
    if problems:
        return classes, {}, problems
    rows, problems = rows_in(data, where, ["image", *classes])
    labels: dict[str, str] = {}
    for row in rows:
        labels[row.image], fault = class_of(classes, row.values) if row.values else ("", "")
        if fault:
            problems.append(Problem(row.where, fault))
    return classes, labels, problems


def _names_classes(header: Sequence[str], own: bool) -> bool:
    """Whether a table has a column of class names; ``own`` tables may have no other columns than those written here."""
    known = tuple(header) in (LABEL_COLUMNS, (*LABEL_COLUMNS, SUBSET_COLUMN))
    return known if own else tuple(header[:2]) == LABEL_COLUMNS


def _named_labels(
    data: bytes, where: str, classes: Sequence[str] | None
) -> tuple[Sequence[str], dict[str, str], list[Problem]]:
    """``labels_in`` for a table with a column of class names, which define the classes if none are given."""
    rows, problems = rows_in(data, where, LABEL_COLUMNS)
    labels = {row.image: normalised("".join(row.values[:1])) for row in rows}
    problems += [Problem(row.where, "names no label") for row in rows if row.values and not labels[row.image]]
    if classes is None:
        classes = class_order(set(labels.values()) - {""})
        return classes, labels, problems + [Problem(where, fault) for fault in class_faults(classes) if labels]
    known = {*classes, ""}
    problems += [
        Problem(row.where, f"has the label {labels[row.image]!r}, which is not among the classes")
        for row in rows
        if labels[row.image] not in known
    ]
    return classes, labels, problems


def subsets_in(path: Path) -> dict[str, str]:
    """The subset of each image if a label table contains a split, otherwise empty; ``labels_in`` checks the rest.

    Raises:
        DataError: rows name a subset other than train, validation or test.
    """
    name, data, _ = label_table_in(path)
    header = header_in(data)
    if tuple(header[:3]) != (*LABEL_COLUMNS, SUBSET_COLUMN):
        return {}
    rows, _ = rows_in(data, name, header[:3])
    require_none(
        [
            Problem(row.where, f"names the subset {row.values[1]!r}, which is not {', '.join(GIVEN_SUBSETS)}")
            for row in rows
            if row.values and row.values[1] not in GIVEN_SUBSETS
        ]
    )
    return {row.image: row.values[1] for row in rows if row.values}


def label_table_in(path: Path) -> tuple[str, bytes, list[Problem]]:
    """The name and the bytes of a table, or of the only table in a zip, and the problems of the zip."""
    if path.suffix.lower() == ".csv":
        fault = file_fault(path)
        return ("", b"", [Problem(path.name, fault)]) if fault else (path.name, path.read_bytes(), [])
    members, problems = members_in(path, (".csv",))
    if not problems:
        problems = damaged_members(path, path.name, silent)
    if not problems and len(members) != 1:
        problems = [Problem(path.name, f"holds {len(members)} tables instead of one")]
    if problems:
        return "", b"", problems
    with zipfile.ZipFile(path) as archive:
        return members[0].filename, archive.read(members[0]), []


def class_faults(classes: Sequence[str]) -> list[str]:
    """The problems of the names of a dataset's classes, as texts for a ``Problem``."""
    faults = ["has fewer than two classes"] if len(classes) < 2 else []
    first: dict[str, str] = {}
    for name in classes:
        if not name or name != normalised(name) or UNPRINTABLE.search(name):
            faults.append(f"has a class {name!r}: no empty name, no space at its ends, no control character")
        elif is_formula(name):
            faults.append(f"has a class {name!r} that {IS_FORMULA}")
        elif name in COLUMNS:
            faults.append(f"has a class {name!r}, which is the name of a column: call it otherwise")
        if first.setdefault(name.casefold(), name) != name:
            faults.append(f"has the classes {first[name.casefold()]!r} and {name!r}: mind the letter case")
    repeated = [name for name, count in Counter(classes).items() if count > 1]
    return faults + [f"has the class {name!r} more than once" for name in repeated]


def class_of(classes: Sequence[str], values: Sequence[str]) -> tuple[str, str]:
    """The class of a one-hot row and the problem of the row; one of the two is empty."""
    named = dict(zip(classes, values, strict=True))
    odd = [f"{name} is {value!r}" for name, value in named.items() if number(value) not in (0, 1)]
    if odd:
        return "", f"{', '.join(odd)} instead of 0 or 1"
    ones = [name for name, value in named.items() if number(value) == 1]
    if len(ones) != 1:
        return "", f"is labelled {' and '.join(ones) or 'with no class'} instead of with one class"
    return ones[0], ""


def one_hot_table(classes: Sequence[str], labels: Mapping[str, str]) -> bytes:
    """A one-hot label table of images and their classes (image → class), in the format of ``labels_in``."""
    rows = ([image, *("1.0" if name == label else "0.0" for name in classes)] for image, label in labels.items())
    return csv_table(["image", *classes], rows)


def csv_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """A CSV table in the format of ``rows_in``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def number(text: str) -> float:
    """Convert a text to a number; NaN if that is not possible."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def label_table(labels: Mapping[str, str], subsets: Mapping[str, str]) -> bytes:
    """A label table with class names (image → class) and, if given, a split (image → subset)."""
    if not subsets:
        return csv_table(LABEL_COLUMNS, labels.items())
    rows = ((image, label, subsets[image]) for image, label in labels.items())
    return csv_table([*LABEL_COLUMNS, SUBSET_COLUMN], rows)


def lesions_in(path: Path) -> tuple[dict[str, str], list[Problem]]:
    """The lesion of each image, and the problems of the table."""
    rows, problems = _lesion_rows(path)
    problems += [Problem(row.where, "names no lesion") for row in rows if row.values and not normalised(row.values[0])]
    problems += [
        Problem(row.where, f"has a lesion that {IS_FORMULA}") for row in rows if any(map(is_formula, row.values))
    ]
    return {row.image: normalised("".join(row.values)) for row in rows}, problems


def lesion_notes(path: Path) -> list[Problem]:
    """Lesions that the table spells in several ways."""
    rows, _ = _lesion_rows(path)
    notes = spelling_notes((row.values[0] for row in rows if row.values), "lesion")
    return [Problem(path.name, note) for note in notes]


def _lesion_rows(path: Path) -> tuple[list[Row], list[Problem]]:
    if fault := file_fault(path):
        return [], [Problem(path.name, fault)]
    return rows_in(path.read_bytes(), path.name, LESION_COLUMNS)


def header_in(data: bytes) -> list[str]:
    """The header of a CSV table; empty if it cannot be read, which ``rows_in`` reports."""
    try:
        return next(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return []


def rows_in(data: bytes, where: str, columns: Sequence[str]) -> tuple[list[Row], list[Problem]]:
    """Read a CSV table whose header begins with the given columns; the first one contains the image's name.

    A byte-order mark and both kinds of line ends are accepted; further columns are ignored. Names of images are
    ``normalised``, other values are not.

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
        row = Row(f"{place}, {values[0]!r}", normalised(values[0]), values[1 : len(columns)])
        if len(values) != len(header):
            problems.append(Problem(row.where, f"has {len(values)} values instead of {len(header)}"))
            row = row._replace(values=[])
        first = rows.setdefault(row.image.casefold(), row)
        if first is not row:
            problems.append(Problem(row.where, f"is there a second time, after {first.where}"))
        if not row.image:
            problems.append(Problem(row.where, "names no image"))
    return list(rows.values()), problems


def members_in(path: Path, suffixes: Sequence[str]) -> tuple[list[zipfile.ZipInfo], list[Problem]]:
    """The zip's members with one of the suffixes (ignoring case), and the problems of its directory."""
    if not path.is_file():
        return [], [Problem(path.name, file_fault(path))]
    files, problems = zip_directory(path, path.name)
    members = [file for file in files if PurePosixPath(file.filename).suffix.lower() in suffixes]
    strays = [
        Problem(f"{path.name}: {file.filename!r}", f"is neither {', '.join(suffixes)} nor a note")
        for file in files
        if PurePosixPath(file.filename).suffix.lower() not in suffixes
        and PurePosixPath(file.filename).stem.upper() not in NOTES
    ]
    problems += strays[:MOST_STRAYS]
    if len(strays) > MOST_STRAYS:
        problems.append(Problem(path.name, f"holds {len(strays) - MOST_STRAYS:,} more files that do not belong there"))
    if files and not members:
        problems.append(Problem(path.name, f"holds no file with the suffix {', '.join(suffixes)}"))
    return members, problems


def frame(values: Mapping[str, str], column: str) -> pd.DataFrame:
    """A table with the columns image and ``column``, sorted by image."""
    return pd.DataFrame(sorted(values.items()), columns=["image", column])


def require_none(problems: Sequence[Problem]) -> None:
    """Raise an error with all problems, if there are any."""
    if problems:
        raise DataError("the dataset cannot be used: fix what follows or name another source", problems)
