"""The contents of a folder of images: each image's file, class, group and subset, for several common layouts.

The layouts are detected in this order:

- ``labels.csv`` beside or above the images, with the columns image (the file's path relative to the table, with its
  suffix), label and optionally group. A group, such as a patient, is treated like a lesion of the official files;
- a known table: HAM10000's metadata, the ISIC archive's ``metadata.csv``, or a challenge's ground truth with its
  metadata or lesions, in any folder near the top, with images in any folders or in zips beside it;
- ``train``, ``val`` or ``test`` with the classes' folders below them: a given split;
- a folder for each class, optionally with a folder for each group below it, or a folder for each group with the
  classes' folders below it.

Ambiguous folders are refused; then ``labels.csv`` has to specify the labels.

An image's id is its path relative to the folder without the suffix, with ``_`` instead of ``/``, ``\\`` and ``:``,
which names in a zip may not contain: ``cat/1.png`` is ``cat_1``. If a known table names the images, its names are the
ids. Names that begin with a dot are hidden and ignored.
"""

import csv
import hashlib
import io
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TextIO

from cclnet.dataset.archives import zip_directory
from cclnet.dataset.isic import CHALLENGE_ORDER
from cclnet.dataset.tables import NOTES, absent, class_faults, header_in, label_table_in, number, rows_in
from cclnet.images.finding import IMAGE_SUFFIXES, hidden, visible_files
from cclnet.system.errors import Problem
from cclnet.system.files import file_fault
from cclnet.system.names import IS_FORMULA, UNPRINTABLE, connected, is_formula, normalised, spelling_notes

LABELS = "labels.csv"
FOLDER = "the folder"
"""Location of problems that do not belong to a single file."""
DECIDE = f"write {LABELS} (image,label,group) beside them"

UNREAD_IMAGES = frozenset(
    (
        ".arw", ".avif", ".cr2", ".cr3", ".dcm", ".dicom", ".dng", ".heic", ".heif", ".ico", ".j2k", ".jfif", ".jp2",
        ".jpe", ".jxl", ".nef", ".orf", ".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".raw", ".svg", ".svs", ".tga",
    )
)  # fmt: skip
"""Suffixes of unsupported image formats; such files are refused, because ignoring them would lose images."""
TABLE_SUFFIXES = ("", ".csv", ".tab", ".tsv", ".txt")
DEEPEST_TABLE = 2
"""Largest depth below the folder at which known tables are searched."""
IMAGE_COLUMNS = ("image", "image_id", "isic_id", "image_name", "img_id", "filename", "file_name")
LABEL_NAMES = (
    "label", "dx", "diagnosis", "diagnostic", "diagnosis_3", "diagnosis_2", "class", "benign_malignant", "target",
)  # fmt: skip
GROUP_COLUMNS = ("group", "patient_id", "lesion_id")
LONGEST_HEADER = 2**16
SUBSETS_BY_NAME = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
PART = re.compile(r"(.*[\W_])?(part|batch|chunk|fold|split|set|images?|imgs?|photos?|pictures?|data)[\W_]*\d*")
"""Names of folders that are parts of a download, not classes."""


class Place(NamedTuple):
    """The location of an image: its file, or a zip and the name of its member."""

    path: Path
    member: str | None = None


class Kind(NamedTuple):
    """The labels of an image: its class, its group if one is named, its subset if the data contain a split."""

    label: str
    group: str | None = None
    subset: str | None = None


@dataclass
class LabelledFolder:
    """The contents of a folder.

    Attributes:
        places: the location of each image, by id, sorted.
        kinds: the labels of each image, by id, sorted.
        tables: the tables from which labels and groups were read.
        problems: all problems; if there are any, the folder cannot be used.
        notes: how the folder was interpreted, what was ignored, and suspicious data.
    """

    places: dict[str, Place] = field(default_factory=dict)
    kinds: dict[str, Kind] = field(default_factory=dict)
    tables: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)


def read_layout(folder: Path) -> LabelledFolder:
    """Find the images of a folder and their labels; no image is read.

    Raises:
        OSError: the folder itself cannot be read.
    """
    files, others, problems = _files_in(folder)
    if any(what.startswith("cannot be read") for _, what in problems):
        return LabelledFolder(problems=problems)
    found = _of_own_table(folder, files) or _of_tables_or_folders(folder, files, others)
    found.problems = problems + found.problems
    classes = sorted({kind.label for kind in found.kinds.values()})
    where = LABELS if found.tables == [folder / LABELS] else FOLDER
    found.problems += [Problem(where, fault) for fault in class_faults(classes) if found.kinds]
    found.notes += _subset_notes(found.kinds)
    used = {*found.tables, *(place.path for place in found.places.values())}
    found.notes += _passed_over(path for path in others if path not in used)
    return found


# files


def _files_in(folder: Path) -> tuple[dict[str, Path], list[Path], list[Problem]]:
    """The images below the folder by their relative path, sorted; the other files; and the problems."""
    files: dict[str, Path] = {}
    others: list[Path] = []
    paths, problems = visible_files(folder)
    for path in paths:
        name = normalised(path.relative_to(folder).as_posix())
        suffix = path.suffix.lower()
        if path == folder / LABELS:
            continue
        if UNPRINTABLE.search(name):
            problems.append(Problem(ascii(name), "has control characters, or bytes that are no UTF-8, in its name"))
        elif suffix in IMAGE_SUFFIXES and is_formula(id_of(name)):
            problems.append(Problem(name, IS_FORMULA))
        elif suffix in UNREAD_IMAGES:
            problems.append(Problem(name, f"is an image that is not read: convert it to one of {_suffixes()}"))
        elif suffix not in IMAGE_SUFFIXES:
            others.append(path)
        elif fault := file_fault(path):
            problems.append(Problem(name, fault))
        elif name in files:
            problems.append(Problem(name, "is there twice, in two spellings that read the same: rename one of them"))
        else:
            files[name] = path
    return files, others, problems


def _suffixes() -> str:
    return ", ".join(IMAGE_SUFFIXES)


def _passed_over(paths: Iterable[Path]) -> list[Problem]:
    """The number of files that are neither images nor tables nor notes, by suffix."""
    counts = Counter(path.suffix.lower() or "no suffix" for path in paths if path.stem.upper() not in NOTES)
    if not counts:
        return []
    listed = ", ".join(f"{suffix} {count:,}" for suffix, count in sorted(counts.items()))
    return [Problem(FOLDER, f"holds other files, which are passed over: {listed}")]


def _subset_notes(kinds: Mapping[str, Kind]) -> list[Problem]:
    counts = Counter(kind.subset for kind in kinds.values() if kind.subset)
    if not counts:
        return []
    listed = ", ".join(f"{subset} {count:,}" for subset, count in counts.items())
    return [Problem(FOLDER, f"gives a split, which is kept: {listed}")]


def id_of(name: str) -> str:
    """The id of the image at a path relative to the folder."""
    return normalised(re.sub(r"[/\\:]", "_", name.removesuffix(PurePosixPath(name).suffix)))


def _by_id(files: Mapping[str, Path], kinds: Mapping[str, Kind]) -> LabelledFolder:
    """Files and kinds by id, and the problems with ids that two files would share."""
    problems = []
    first: dict[str, str] = {}
    for name in files:
        image = id_of(name)
        other = first.setdefault(image.casefold(), name)
        if other != name:
            problems.append(Problem(name, f"would have the id {image!r}, as {other!r} has: rename one of them"))
    known = sorted(files.keys() & kinds.keys(), key=id_of)
    places = {id_of(name): Place(files[name]) for name in known}
    return LabelledFolder(places, {id_of(name): kinds[name] for name in known}, problems=problems)


# labels.csv


def _of_own_table(folder: Path, files: Mapping[str, Path]) -> LabelledFolder | None:
    table = folder / LABELS
    if not (table.exists() or table.is_symlink()):
        return None
    if fault := file_fault(table):
        return LabelledFolder(problems=[Problem(LABELS, fault)])
    kinds, problems, notes = _said_by_own_table(table.read_bytes(), files)
    found = _by_id(files, kinds)
    found.tables, found.notes = [table], notes
    found.problems = problems + found.problems
    return found


def _said_by_own_table(data: bytes, files: Mapping[str, Path]) -> tuple[dict[str, Kind], list[Problem], list[Problem]]:
    """The class and the group of each image from ``labels.csv``, the problems and the notes."""
    header = header_in(data)
    columns = ["image", "label", "group"] if "group" in header else ["image", "label"]
    rows, problems = rows_in(data, LABELS, columns)
    if rows and (unknown := header[len(columns) :]):
        problems.append(Problem(LABELS, f"has the unknown columns {unknown}: image, label and group are read"))
    kinds: dict[str, Kind] = {}
    spelt: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        values = dict(zip(columns[1:], row.values, strict=False))  # a broken row has no values, and is reported
        for column, value in values.items():
            spelt[column].append(value)
        said = {column: normalised(value) for column, value in values.items()}
        problems += [Problem(row.where, f"names no {column}") for column, value in said.items() if not value]
        if UNPRINTABLE.search(said.get("group", "")):
            problems.append(Problem(row.where, "has control characters in its group"))
        if is_formula(said.get("group", "")):
            problems.append(Problem(row.where, f"has a group that {IS_FORMULA}"))
        kinds[row.image] = Kind(said.get("label", ""), said.get("group"))
    if kinds:
        problems += absent(kinds, files, FOLDER, "image") + absent(files, kinds, LABELS, "label of image")
    notes = [Problem(LABELS, note) for column in columns[1:] for note in spelling_notes(spelt[column], column)]
    return {name: kind for name, kind in kinds.items() if kind.label}, problems, notes


# folders


def _of_folders(folder: Path, files: Mapping[str, Path]) -> LabelledFolder:
    children = sorted(
        unicodedata.normalize("NFC", path.name) for path in folder.iterdir() if path.is_dir() and not hidden(path.name)
    )
    if not children:
        return _refused(f"holds neither the official files nor {LABELS} nor a folder for each class")
    parts = {name: PurePosixPath(name).parts for name in files}
    kinds, problems, notes = _said_by_folders(parts)
    filled = {path[0] for path in parts.values()}
    problems += [Problem(name, "is a class's folder without an image") for name in children if name not in filled]
    found = _by_id(files, kinds)
    found.problems = problems + found.problems
    found.notes = notes + [Problem(FOLDER, note) for note in spelling_notes(filled, "class")]
    return found


def _refused(what: str) -> LabelledFolder:
    return LabelledFolder(problems=[Problem(FOLDER, what)])


def _said_by_folders(
    parts: Mapping[str, tuple[str, ...]],
) -> tuple[dict[str, Kind], list[Problem], list[Problem]]:
    """The labels of each image (given its path in parts) from the names of folders, the problems and the notes."""
    problems = [Problem(name, "lies in no class's folder") for name, path in parts.items() if len(path) == 1]
    deeper = {name: path for name, path in parts.items() if len(path) > 1}
    notes: list[Problem] = []
    while len({path[0] for path in deeper.values()}) == 1 and all(len(path) > 2 for path in deeper.values()):
        wrapper = next(iter(deeper.values()))[0]
        notes.append(Problem(wrapper, "is the only folder, and taken for no class: what it holds is read"))
        deeper = {name: path[1:] for name, path in deeper.items()}
    tops = {path[0] for path in deeper.values()}
    subsets = {top: SUBSETS_BY_NAME.get(top.casefold()) for top in tops}
    given = len(tops) > 1 and all(subsets.values())
    if given and any(len(path) == 2 for path in deeper.values()):
        return {}, [*problems, _undecided(f"holds images in {_some(tops)}, in no class's folder")], notes
    below = {name: path[1:] for name, path in deeper.items()} if given else deeper
    kinds, fault = _classes_and_groups(below, notes)
    if fault:
        problems.append(_undecided(fault))
    if given:
        kinds = {name: kind._replace(subset=subsets[deeper[name][0]]) for name, kind in kinds.items()}
    return kinds, problems, notes


def _undecided(what: str) -> Problem:
    return Problem(FOLDER, f"{what}: {DECIDE}")


def _classes_and_groups(parts: Mapping[str, tuple[str, ...]], notes: list[Problem]) -> tuple[dict[str, Kind], str]:
    """The class and the group of each image from one or two levels of folders, or why they are ambiguous."""
    tops = {path[0] for path in parts.values()}
    if len(tops) > 1 and all(PART.fullmatch(top.casefold()) for top in tops):
        return {}, f"holds {_some(tops)}, which look like parts of one download rather than classes"
    depths = {len(path) for path in parts.values()}
    if depths <= {2}:
        return {name: Kind(normalised(path[0])) for name, path in parts.items()}, ""
    subs = {path[1] for path in parts.values() if len(path) > 2}
    shown = "/".join(next(path for path in parts.values() if len(path) > 2)[:-1])
    if depths != {3} or any(PART.fullmatch(sub.casefold()) for sub in subs):
        return {}, f"holds folders within folders, such as {shown!r}, of which neither is surely the class"
    if len(subs) >= 2 * len(tops):
        notes.append(Problem(FOLDER, f"holds {len(subs):,} folders within {len(tops)} classes, taken for groups"))
        return {name: Kind(normalised(path[0]), normalised(path[1])) for name, path in parts.items()}, ""
    if len(tops) >= 2 * len(subs) and len(subs) > 1:
        notes.append(Problem(FOLDER, f"holds {len(subs)} classes within {len(tops):,} folders, taken for groups"))
        return {name: Kind(normalised(path[1]), normalised(path[0])) for name, path in parts.items()}, ""
    return {}, f"holds folders within folders, such as {shown!r}, of which neither is surely the class"


def _some(names: Iterable[str]) -> str:
    """Up to three names and an ellipsis."""
    ordered = sorted(names)
    return ", ".join(map(repr, ordered[:3])) + (" …" if len(ordered) > 3 else "")


# known tables


def _of_tables_or_folders(folder: Path, files: Mapping[str, Path], others: Sequence[Path]) -> LabelledFolder:
    """Labels from tables if they name most of the images, otherwise from folders, otherwise from tables again."""
    by_tables = _of_known_tables(folder, files, others)
    if by_tables and 2 * len(by_tables.places) >= len(files):
        return by_tables
    by_folders = _of_folders(folder, files)
    return by_tables if by_tables and by_folders.problems else by_folders


class _Table(NamedTuple):
    """A table that names images.

    Attributes:
        path: its file.
        image: the column with the images' names.
        labels: the columns that may contain the class, in order of preference.
        one_hot: the one-hot columns, by the name of the class.
        groups: the columns of groups.
        rows: the rows, by the image's name without suffix.
        contradicted: the images of several rows that differ.
    """

    path: Path
    image: str
    labels: list[str]
    one_hot: dict[str, str]
    groups: list[str]
    rows: dict[str, dict[str, str]]
    contradicted: list[str]


def _of_known_tables(folder: Path, files: Mapping[str, Path], others: Sequence[Path]) -> LabelledFolder | None:
    """The labels of the images from known tables; None if there is no such table or it names other images."""
    near = [path for path in others if len(path.relative_to(folder).parts) <= DEEPEST_TABLE + 1]
    tables = [table for path in near if (table := _known_table(path))]
    if not any(table.labels or table.one_hot for table in tables):
        return None
    places, problems, notes = _places_by_stem(files, others)
    labelled = [
        table
        for table in tables
        if (table.labels or table.one_hot) and any(_find(image, places) for image in table.rows)
    ]
    named = {stem for table in labelled for image in table.rows if (stem := _find(image, places))}
    if not named:
        return None
    labels, subset_of, faults, more = _labels_by_stem(labelled, places)
    groups, by = _groups_by_stem(tables, places)
    used = sorted(labels)
    if len(used) < len(places):
        unused = len(places) - len(used)
        more.append(Problem(FOLDER, f"holds {unused:,} images without a label, which are passed over"))
    return LabelledFolder(
        places={stem: places[stem] for stem in used},
        kinds={stem: Kind(labels[stem], groups.get(stem), subset_of.get(stem)) for stem in used},
        tables=[table.path for table in tables if table in labelled or table.groups],
        problems=problems + faults,
        notes=more + by + notes,
    )


def _labels_by_stem(
    tables: Sequence["_Table"], places: Mapping[str, Place]
) -> tuple[dict[str, str], dict[str, str], list[Problem], list[Problem]]:
    """The class and the given subset of each labelled image, the problems and the notes."""
    labels: dict[str, str] = {}
    subset_of: dict[str, str] = {}
    problems: list[Problem] = []
    notes: list[Problem] = []
    subsets = _subsets_of(tables)
    for table in tables:
        said, column = _labels_of(table)
        where = table.path.name
        notes.append(Problem(where, f"gives the labels (image: {table.image}, label: {column})"))
        stems = {image: _find(image, places) for image in table.rows}
        gone = [image for image, stem in stems.items() if not stem]
        if gone:
            problems.append(Problem(where, f"names {len(gone):,} images that are not here, such as {gone[0]!r}"))
        problems += [Problem(where, f"has several rows of {image!r} that differ") for image in table.contradicted]
        problems += [Problem(where, f"does not give {image!r} one class") for image in _ambiguous(table)]
        for image, label in said.items():
            stem = stems[image]
            if stem and labels.setdefault(stem, label) != label:
                problems.append(Problem(where, f"gives {image!r} another label than the table before it"))
            if stem and subsets:
                subset_of[stem] = subsets[table.path]
    return labels, subset_of, problems, notes


def _find(image: str, places: Mapping[str, Place]) -> str:
    """The stem of an image that a table names; ISIC 2019 has downsampled files with a suffix in their name."""
    candidates = (image, f"{image}_downsampled", image.removesuffix("_downsampled"))
    return next((stem for stem in candidates if stem in places), "")


def _places_by_stem(
    files: Mapping[str, Path], others: Sequence[Path]
) -> tuple[dict[str, Place], list[Problem], list[Problem]]:
    """The location of each image by its stem, in files or otherwise in zips; the problems and the notes."""
    places: dict[str, Place] = {}
    problems: list[Problem] = []
    copies = 0
    for name, path in files.items():
        stem = normalised(PurePosixPath(name).stem)
        first = places.setdefault(stem, Place(path))
        if first.path == path:
            continue
        if _same_bytes(first.path, path):
            copies += 1
        else:
            problems.append(Problem(name, f"is another image than {first.path.name!r} of the same name"))
    for path in others:
        if path.suffix.lower() != ".zip":
            continue
        members, faults = zip_directory(path, path.name)
        images = [
            (normalised(name.stem), member)
            for member in members
            if (name := PurePosixPath(member.filename)).suffix.lower() in IMAGE_SUFFIXES and not hidden(name.name)
        ]
        new = [(stem, member) for stem, member in images if stem not in places]
        places |= {stem: Place(path, member.filename) for stem, member in new}
        problems += faults if new else []
    notes = [Problem(FOLDER, f"holds {copies:,} images a second time, byte for byte, which are passed over")]
    return places, problems, notes if copies else []


def _same_bytes(first: Path, second: Path) -> bool:
    if first.stat().st_size != second.stat().st_size:
        return False
    return _digest(first) == _digest(second)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _known_table(path: Path) -> _Table | None:
    """Read a file as a table of images; None if it is not one, or has neither classes nor groups."""
    try:
        with _table_text(path) as text:
            return _table_in(path, text)
    except (OSError, UnicodeDecodeError, csv.Error):
        return None


def _table_in(path: Path, text: TextIO) -> _Table | None:
    first_line = text.readline(LONGEST_HEADER)
    delimiter = max(",\t;", key=first_line.count)
    header = [normalised(column).casefold() for column in next(csv.reader([first_line], delimiter=delimiter), [])]
    image = next((column for column in IMAGE_COLUMNS if column in header), None)
    if image is None or len(set(header)) < len(header):
        return None
    one_hot = {column.upper(): column for column in header if column.upper() in CHALLENGE_ORDER}
    columns = {image, *LABEL_NAMES, *GROUP_COLUMNS, *one_hot.values()}
    rows: dict[str, dict[str, str]] = {}
    contradicted: dict[str, None] = {}
    for values in csv.reader(text, delimiter=delimiter, strict=True):
        named = zip(header, values, strict=False)
        row = {column: normalised(value) for column, value in named if column in columns}
        name = _stem(row.get(image, ""))
        if name and rows.setdefault(name, row) != row:
            contradicted[name] = None
    labels = [column for column in LABEL_NAMES if any(row.get(column) for row in rows.values())]
    groups = [column for column in GROUP_COLUMNS if column in header]
    if not rows or not (labels or groups or len(one_hot) > 1):
        return None
    return _Table(path, image, labels, one_hot if len(one_hot) > 1 else {}, groups, rows, list(contradicted))


def _table_text(path: Path) -> TextIO:
    """The contents of a table, also from a ground truth zip; empty for files that are not tables."""
    if path.suffix.lower() == ".zip" and "groundtruth" in path.name.casefold():
        return io.StringIO(label_table_in(path)[1].decode("utf-8-sig"), newline="")
    if path.suffix.lower() not in TABLE_SUFFIXES or file_fault(path):
        return io.StringIO()
    return path.open(encoding="utf-8-sig", newline="")


def _stem(name: str) -> str:
    """The name of an image without folders and suffix."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def _labels_of(table: _Table) -> tuple[dict[str, str], str]:
    """The class of each labelled image in a table, and a description of the column or columns used."""
    if table.one_hot:
        said = {
            image: [label for label, column in table.one_hot.items() if number(row.get(column, "")) == 1]
            for image, row in table.rows.items()
        }
        return {image: ones[0] for image, ones in said.items() if len(ones) == 1}, "a column for each class"
    column = table.labels[0]
    labels = {image: row[column] for image, row in table.rows.items() if row.get(column)}
    if {label.upper() for label in labels.values()} <= set(CHALLENGE_ORDER):
        labels = {image: label.upper() for image, label in labels.items()}
    return labels, column


def _ambiguous(table: _Table) -> list[str]:
    """The images whose one-hot columns hold several ones, or anything but 0, 1 and nothing."""
    values = {
        image: [number(row.get(column) or "0") for column in table.one_hot.values()]
        for image, row in table.rows.items()
    }
    return [image for image, found in values.items() if not set(found) <= {0, 1} or sum(found) > 1]


def _subsets_of(tables: Sequence[_Table]) -> dict[Path, str]:
    """The subset of each table from its file name; empty if all tables have the same subset."""
    words = {table.path: re.split(r"[\W_\d]+", table.path.stem.casefold()) for table in tables}
    subsets = {
        path: next((SUBSETS_BY_NAME[word] for word in found if word in SUBSETS_BY_NAME), "train")
        for path, found in words.items()
    }
    return subsets if len(set(subsets.values())) > 1 else {}


def _groups_by_stem(tables: Sequence[_Table], places: Mapping[str, Place]) -> tuple[dict[str, str], list[Problem]]:
    """The group of each image, if a table names one (images are connected by patient or lesion); and a note."""
    keys: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for table in tables:
        for image, row in table.rows.items():
            if stem := _find(image, places):
                keys[stem] += [(column, row[column]) for column in table.groups if row.get(column)]
    columns = sorted({column for found in keys.values() for column, _ in found})
    if not columns:
        return {}, []
    least = connected(keys.values())
    plain = len(columns) == 1  # otherwise a patient and a lesion could have the same name
    groups = {}
    for stem, found in keys.items():
        if found:
            column, value = least[found[0]]
            groups[stem] = value if plain else f"{column} {value}"
    return groups, [Problem(FOLDER, f"is grouped by {' and '.join(columns)}")]
