"""Conversion of a folder of the user's own images to the layout of the official files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from cclnet.dataset.archives import write_zip
from cclnet.dataset.download import OFFICIAL, Provenance, provenance_of, require_room
from cclnet.dataset.isic import GROUND_TRUTH_ZIP, INPUT_ZIP, LESION_TABLE, OFFICIAL_FILES, OTHER_SETS
from cclnet.dataset.layouts import LabelledFolder, Place, read_layout
from cclnet.dataset.tables import LESION_COLUMNS, OWN_LABELS, csv_table, label_table
from cclnet.images.reading import map_places
from cclnet.system.errors import CCLNetError, DataError, Problem
from cclnet.system.files import write_bytes
from cclnet.system.progress import Report, silent
from cclnet.system.workspace import user_path


def holds_own_images(source: str) -> bool:
    """Whether a source is a folder without the official files of the training set, or with more than these.

    More: the challenge's validation or test set in their zips, or the training images unpacked instead of their zip.
    """
    folder = user_path(source)
    if source == OFFICIAL or "://" in source or not folder.is_dir():
        return False
    if not any((folder / file.name).exists() for file in OFFICIAL_FILES):
        return True
    if any(all((folder / name).exists() for name in names) for names in OTHER_SETS):
        return True
    return not (folder / INPUT_ZIP).exists() and (folder / INPUT_ZIP).with_suffix("").is_dir()


def import_folder(source: str, destination: Path, report: Report = silent) -> tuple[list[Provenance], list[Problem]]:
    """Write the three files of the official layout; the bytes of the images are unchanged.

    Args:
        source: the folder of images, in one of the layouts of ``dataset.layouts``.
        destination: the target folder; created if necessary.
        report: called with the number of images stored.

    Returns:
        The provenance of the three files and of the tables with the labels, and the notes: how the folder was
        interpreted, and what was ignored.

    Raises:
        DataError: lists all problems of the folder; nothing is written then.
        CCLNetError: a file cannot be read or written, or the disk is too small.
    """
    try:
        found = read_layout(user_path(source))
        if found.problems:
            raise DataError(f"source {source!r} cannot be used: fix what follows", found.problems)
        destination.mkdir(parents=True, exist_ok=True)
        require_room(destination, sum(path.stat().st_size for path in {place.path for place in found.places.values()}))
        write_zip(destination / INPUT_ZIP, _contents(source, found, report))
        _write_tables(destination, found)
        written = [destination / file.name for file in OFFICIAL_FILES]
        return [provenance_of(path, source) for path in [*written, *found.tables]], found.notes
    except OSError as error:
        raise CCLNetError(f"{error.filename or source}: {error.strerror}; fix that and run it again") from None


def _write_tables(destination: Path, found: LabelledFolder) -> None:
    labels = {image: kind.label for image, kind in found.kinds.items()}
    subsets = {image: kind.subset for image, kind in found.kinds.items() if kind.subset}
    write_zip(destination / GROUND_TRUTH_ZIP, [(OWN_LABELS, label_table(labels, subsets))])
    groups = ([image, image if kind.group is None else kind.group] for image, kind in found.kinds.items())
    write_bytes(destination / LESION_TABLE, csv_table(LESION_COLUMNS, groups))


def _contents(source: str, found: LabelledFolder, report: Report) -> Iterator[tuple[str, bytes]]:
    """Each image's name in the zip and its bytes.

    Raises:
        DataError: files cannot be read; all of them are named.
    """
    problems: list[Problem] = []
    images = list(found.places.items())
    for done, ((image, place), data) in enumerate(zip(images, _raw([*found.places.values()]), strict=True), start=1):
        if isinstance(data, ValueError):
            problems.append(Problem(place.member or str(place.path), str(data)))
        else:
            yield f"{image}{Path(place.member or place.path).suffix}", data
        report("images stored", done, len(images))
    if problems:
        raise DataError(f"source {source!r} cannot be used: fix what follows", problems)


def _raw(places: Sequence[Place]) -> Iterator[bytes | ValueError]:
    """The bytes of each image, or why they cannot be read."""
    return map_places(places, bytes, 1)
