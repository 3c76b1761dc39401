"""Pictures from anywhere: single files, folders, zips."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple, TypeVar

from cclnet.dataset.archives import LARGEST_MEMBER, zip_directory
from cclnet.dataset.folders import visible_files
from cclnet.dataset.tables import IMAGE_SUFFIXES
from cclnet.images.reading import map_files, map_members
from cclnet.system.errors import DataError, Problem

Result = TypeVar("Result")


class Picture(NamedTuple):
    """A picture that can be read.

    Attributes:
        image: its id, the file's name without suffix.
        where: where it is, in the words of a ``Problem``.
        path: its file, or the zip that it is in.
        member: the name of its member of the zip, None outside of one.
    """

    image: str
    where: str
    path: Path
    member: str | None = None


def read_pictures(sources: Sequence[Path]) -> tuple[list[Picture], list[Problem]]:
    """``pictures_in`` for a table in which every picture goes by its id.

    Raises:
        DataError: there is no picture at all, or two have the same id; with all problems of the sources.
    """
    pictures, problems = pictures_in(sources)
    if not pictures:
        raise DataError("there is nothing to predict:", problems)
    if repeated := repeated_images(pictures):
        raise DataError("images go by their files' names; rename or leave out:", [*problems, *repeated])
    return pictures, problems


def pictures_in(sources: Sequence[Path]) -> tuple[list[Picture], list[Problem]]:
    """The pictures of files, folders (with all that is below them) and zips, and what is wrong with these.

    A file that is named is taken for a picture whatever its suffix. In folders and zips everything without the suffix
    of a picture is passed over, and so is what is hidden, which some systems put beside every picture. Nothing is
    decoded.

    Returns:
        The pictures, source by source, those of a source sorted by image, and the problems.
    """
    pictures: list[Picture] = []
    problems: list[Problem] = []
    for source in sources:
        try:
            found, faults = _pictures_of(source)
        except OSError as error:
            found, faults = [], [Problem(str(source), f"cannot be read: {error.strerror}")]
        pictures += sorted(found, key=lambda picture: (picture.image, picture.where))
        problems += faults
        if not found and not faults:
            problems.append(Problem(str(source), f"holds no picture ({', '.join(IMAGE_SUFFIXES)})"))
    return pictures, problems


def repeated_images(pictures: Sequence[Picture]) -> list[Problem]:
    """The pictures with the id of one before them."""
    first: dict[str, Picture] = {}
    return [
        Problem(picture.where, f"is called {picture.image!r} like {other.where}")
        for picture in pictures
        if (other := first.setdefault(picture.image, picture)) is not picture
    ]


def map_pictures(
    pictures: Sequence[Picture], function: Callable[[bytes], Result], threads: int
) -> Iterator[Result | ValueError]:
    """``images.map_members`` of pictures from anywhere."""
    for archive, group in groupby(pictures, lambda picture: picture.path if picture.member else None):
        together = list(group)
        if archive:
            members = [picture.member for picture in together if picture.member]
            yield from map_members(archive, members, function, threads)
        else:
            yield from map_files([picture.path for picture in together], function, threads)


def _pictures_of(source: Path) -> tuple[list[Picture], list[Problem]]:
    if source.is_dir():
        return _from_files(sorted(filter(_looks_like_a_picture, visible_files(source))))
    if source.suffix.lower() == ".zip":
        return _from_zip(source)
    return _from_files([source])


def _looks_like_a_picture(path: PurePath) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _from_files(paths: Sequence[Path]) -> tuple[list[Picture], list[Problem]]:
    faults = {path: _file_fault(path) for path in paths}
    pictures = [Picture(path.stem, str(path), path) for path, fault in faults.items() if not fault]
    return pictures, [Problem(str(path), fault) for path, fault in faults.items() if fault]


def _file_fault(path: Path) -> str:
    """Why a file is not even opened, empty if nothing speaks against it."""
    if not path.is_file():
        return "is no file" if path.exists() else "is missing"
    size = path.stat().st_size
    return f"has {size:,} bytes, more than {LARGEST_MEMBER:,}" if size > LARGEST_MEMBER else ""


def _from_zip(path: Path) -> tuple[list[Picture], list[Problem]]:
    members, problems = zip_directory(path, str(path))
    unsafe = {problem.where for problem in problems}
    pictures = [
        Picture(name.stem, f"{path}: {member.orig_filename!r}", path, member.filename)
        for member in members
        if _looks_like_a_picture(name := PurePosixPath(member.filename))
        and not any(part.startswith(".") for part in name.parts)
    ]
    return [picture for picture in pictures if picture.where not in unsafe], problems
