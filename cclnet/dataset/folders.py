"""A folder of one's own images, brought into the layout of the official files.

The images lie in a sub-folder for each class, or anywhere beneath a table ``labels.csv``. Its columns are image (the
file's path from the table's folder, with its suffix), label and, where there is one, group: images of one group, such
as a patient, are what images of one lesion are to the official files. Classes come in the order of their names.

An image's id is its path from the folder without the suffix, with ``_`` in place of ``/``, ``\\`` and ``:``, which no
name in a zip may have: ``cat/1.png`` is ``cat_1``. Names are compared and kept in Unicode's composed form (NFC), so
that they are the same ones on every system. What begins with a dot is hidden, and passed over.
"""

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple, NoReturn

from cclnet.dataset.archives import write_zip
from cclnet.dataset.download import OFFICIAL, Provenance, provenance_of, require_room
from cclnet.dataset.isic import GROUND_TRUTH_ZIP, INPUT_ZIP, LESION_TABLE, OFFICIAL_FILES
from cclnet.dataset.tables import (
    IMAGE_SUFFIXES,
    LESION_COLUMNS,
    NOTES,
    OWN_LABELS,
    UNPRINTABLE,
    absent,
    class_faults,
    csv_table,
    header_in,
    one_hot_table,
    rows_in,
)
from cclnet.system.errors import CCLNetError, DataError, Problem
from cclnet.system.files import write_bytes
from cclnet.system.progress import Report, silent

LABELS = "labels.csv"
FOLDER = "the folder"
"""Where a problem is that no single file has."""


class Kind(NamedTuple):
    """What is said of an image: its class, and its group if a table names groups."""

    label: str
    group: str | None


def holds_own_images(source: str) -> bool:
    """Whether a dataset's source is a folder, and none with official files in it."""
    folder = Path(source).expanduser()
    named = source != OFFICIAL and "://" not in source and folder.is_dir()
    return named and not any((folder / file.name).exists() for file in OFFICIAL_FILES)


def import_folder(source: str, destination: Path, report: Report = silent) -> list[Provenance]:
    """Write the three files of the official layout; the images' bytes stay what they are.

    Args:
        source: the folder of images.
        destination: where the files go; made if it is not there.
        report: told how many images are stored.

    Returns:
        The three files and, where there is one, the table of labels: all that was read is in them.

    Raises:
        DataError: with every fault of the folder; nothing is written then.
        CCLNetError: the system does not give a file, or the disk is too small.
    """
    folder = Path(source).expanduser()
    try:
        paths, kinds, problems = images_in_folder(folder)
        if problems:
            raise DataError(f"source {source!r} cannot be used: mend what follows", problems)
        destination.mkdir(parents=True, exist_ok=True)
        require_room(destination, sum(path.stat().st_size for path in paths.values()))
        write_zip(destination / INPUT_ZIP, contents(paths, report))
        labels = {image: kind.label for image, kind in kinds.items()}
        write_zip(destination / GROUND_TRUTH_ZIP, [(OWN_LABELS, one_hot_table(sorted(set(labels.values())), labels))])
        groups = ([image, image if kind.group is None else kind.group] for image, kind in kinds.items())
        write_bytes(destination / LESION_TABLE, csv_table(LESION_COLUMNS, groups))
        written = [destination / file.name for file in OFFICIAL_FILES]
        return [provenance_of(path, source) for path in [*written, *folder.glob(LABELS)]]
    except OSError as error:
        raise CCLNetError(f"{error.filename or source}: {error.strerror}: mend that and run again") from None


def images_in_folder(folder: Path) -> tuple[dict[str, Path], dict[str, Kind], list[Problem]]:
    """The file of each image and what is said of it (both by id, sorted), and every fault of the folder."""
    files, problems = files_in(folder)
    table = folder / LABELS
    if table.is_file():
        said, faults = said_by_table(table.read_bytes(), files)
    else:
        said, faults = said_by_folders(folder, files)
    problems += faults
    classes = sorted({kind.label for kind in said.values()})
    problems += [Problem(LABELS if table.is_file() else FOLDER, fault) for fault in class_faults(classes) if said]
    first: dict[str, str] = {}
    for name in files:
        image = id_of(name)
        other = first.setdefault(image.casefold(), name)
        if other != name:
            problems.append(Problem(name, f"would have the id {image!r}, as {other!r} has: rename one of them"))
    known = sorted(files.keys() & said.keys(), key=id_of)
    return {id_of(name): files[name] for name in known}, {id_of(name): said[name] for name in known}, problems


def files_in(folder: Path) -> tuple[dict[str, Path], list[Problem]]:
    """The images beneath the folder by their path from it, sorted, and the files that are none."""
    files: dict[str, Path] = {}
    problems: list[Problem] = []
    for path in sorted(visible_files(folder)):
        name = unicodedata.normalize("NFC", path.relative_to(folder).as_posix())
        is_image = path.suffix.lower() in IMAGE_SUFFIXES
        if path == folder / LABELS or (not is_image and path.stem.upper() in NOTES):
            continue
        if UNPRINTABLE.search(name):
            problems.append(Problem(repr(name), "has control characters, or bytes that are no UTF-8, in its name"))
        elif not is_image:
            problems.append(Problem(name, f"is neither {', '.join(IMAGE_SUFFIXES)} nor a note: take it out"))
        elif name in files:
            problems.append(Problem(name, "is there twice, in two spellings of Unicode: rename one of them"))
        else:
            files[name] = path
    return files, problems


def visible_files(folder: Path) -> Iterator[Path]:
    """All files beneath a folder, links followed, without what is hidden."""

    def refuse(error: OSError) -> NoReturn:
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def said_by_folders(folder: Path, files: Mapping[str, Path]) -> tuple[dict[str, Kind], list[Problem]]:
    """The class of each image by the sub-folder that it lies in, and the problems."""
    children = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    classes = sorted(unicodedata.normalize("NFC", path.name) for path in children)
    if not classes:
        return {}, [Problem(FOLDER, f"holds neither the official files nor {LABELS} nor a folder for each class")]
    said: dict[str, Kind] = {}
    problems: list[Problem] = []
    for name in files:
        match PurePosixPath(name).parts:
            case [_]:
                problems.append(Problem(name, "lies in no class's folder"))
            case [label, _]:
                said[name] = Kind(label, None)
            case [label, *_]:
                problems.append(Problem(name, f"lies in a folder within the class's: move it into {label!r} itself"))
    filled = {PurePosixPath(name).parts[0] for name in files}
    return said, problems + [
        Problem(label, "is a class's folder without an image") for label in classes if label not in filled
    ]


def said_by_table(data: bytes, files: Mapping[str, Path]) -> tuple[dict[str, Kind], list[Problem]]:
    """The class and the group of each image by the table of labels, and the problems."""
    header = header_in(data)
    columns = ["image", "label", "group"] if "group" in header else ["image", "label"]
    rows, problems = rows_in(data, LABELS, columns)
    if rows and (unknown := header[len(columns) :]):
        problems.append(Problem(LABELS, f"has the unknown columns {unknown}: image, label and group are read"))
    said: dict[str, Kind] = {}
    for row in rows:
        values = dict(zip(columns[1:], row.values, strict=False))  # none of a row that is said to be broken
        problems += [Problem(row.where, f"names no {column}") for column, value in values.items() if not value.strip()]
        label = unicodedata.normalize("NFC", values.get("label", ""))
        said[unicodedata.normalize("NFC", row.image)] = Kind(label, values.get("group"))
    if said:
        problems += absent(said, files, FOLDER, "image") + absent(files, said, LABELS, "label of image")
    return {name: kind for name, kind in said.items() if kind.label.strip()}, problems


def id_of(name: str) -> str:
    """The id of the image at a path from the folder."""
    return re.sub(r"[/\\:]", "_", name.removesuffix(PurePosixPath(name).suffix))


def contents(paths: Mapping[str, Path], report: Report) -> Iterator[tuple[str, bytes]]:
    """Each image's name in the zip and its bytes.

    Raises:
        DataError: the system does not give a file.
    """
    for done, (image, path) in enumerate(paths.items(), start=1):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}: mend that and run again") from None
        yield f"{image}{path.suffix}", data
        report("images stored", done, len(paths))
