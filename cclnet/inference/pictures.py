"""Pictures from single files, folders and zips."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from os.path import commonpath
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple, TypeVar

from cclnet.dataset.archives import zip_directory
from cclnet.dataset.layouts import Place, id_of, read_layout
from cclnet.images.finding import IMAGE_SUFFIXES, hidden, visible_files
from cclnet.images.reading import map_places
from cclnet.system.errors import DataError, Problem
from cclnet.system.files import file_fault
from cclnet.system.names import IS_FORMULA, UNPRINTABLE, is_formula, shown

Result = TypeVar("Result")


class Picture(NamedTuple):
    """A picture that can be read.

    Attributes:
        image: its id: in a folder or zip as with ``dataset: folder``, derived from the path unless a known table names
            the images; otherwise the file's name without suffix.
        where: its location for a ``Problem``.
        path: its file, or the zip that contains it.
        member: the name of its member of the zip, None if it is not in a zip.
    """

    image: str
    where: str
    path: Path
    member: str | None = None


def read_pictures(sources: Sequence[Path]) -> tuple[list[Picture], list[Problem]]:
    """Like ``pictures_in``, but requires unique ids.

    Raises:
        DataError: there is no picture at all, or two have the same id; it lists all problems of the sources.
    """
    pictures, problems = pictures_in(sources)
    if not pictures:
        raise DataError("there is nothing to predict:", problems)
    if repeated := repeated_images(pictures):
        raise DataError("images go by their files' names; rename or leave out:", [*problems, *repeated])
    return pictures, problems


def pictures_in(sources: Sequence[Path]) -> tuple[list[Picture], list[Problem]]:
    """The pictures in files, folders (including sub-folders) and zips, and the problems.

    A file that is given directly is treated as a picture, whatever its suffix. In folders and zips, files without the
    suffix of a picture are ignored (``passed_over`` counts them), and so are hidden files, which some systems add. Zips
    in a folder are read if a known table beside them names their images. Nothing is decoded.

    Returns:
        The pictures in the order of the sources, sorted by image within a source, and the problems.
    """
    pictures: list[Picture] = []
    problems: list[Problem] = []
    for source in sources:
        try:
            found, faults = _pictures_of(source)
        except OSError as error:
            found, faults = [], [Problem(shown(source), f"cannot be read: {error.strerror}")]
        pictures += sorted(found, key=lambda picture: (picture.image, picture.where))
        problems += faults
        if not found and not faults:
            problems.append(Problem(str(source), f"holds no picture ({', '.join(IMAGE_SUFFIXES)})"))
    return pictures, problems


def repeated_images(pictures: Sequence[Picture]) -> list[Problem]:
    """The problems of pictures that have the id of an earlier one."""
    first: dict[str, Picture] = {}
    return [
        Problem(picture.where, f"is called {picture.image!r} like {other.where}")
        for picture in pictures
        if (other := first.setdefault(picture.image, picture)) is not picture
    ]


def passed_over(sources: Sequence[Path], pictures: Sequence[Picture] = ()) -> str:
    """The numbers of ignored files in folders and zips, by suffix; empty if there are none.

    Args:
        sources: as for ``pictures_in``.
        pictures: those found there; a zip that contains some of them is not ignored.
    """
    counts: Counter[str] = Counter()
    read = {picture.path for picture in pictures}
    for source in sources:
        ignored = (path for path in _visible_names(source) if not _looks_like_a_picture(path) and path not in read)
        counts.update(map(_suffix, ignored))
    return ", ".join(f"{suffix} {count:,}" for suffix, count in sorted(counts.items()))


def _suffix(path: PurePath) -> str:
    return path.suffix.lower() or "no suffix"


def _visible_names(source: Path) -> list[PurePath]:
    try:
        if source.is_dir():
            return [*visible_files(source)[0]]
    except OSError:
        return []
    if source.suffix.lower() != ".zip" or not source.is_file():
        return []
    members, _ = zip_directory(source, str(source))
    names = [PurePosixPath(member.filename) for member in members]
    return [name for name in names if not any(map(hidden, name.parts))]


def map_pictures(
    pictures: Sequence[Picture], function: Callable[[bytes], Result], threads: int
) -> Iterator[Result | ValueError]:
    """Like ``images.map_members``, for pictures."""
    return map_places([(picture.path, picture.member) for picture in pictures], function, threads)


def _pictures_of(source: Path) -> tuple[list[Picture], list[Problem]]:
    if source.is_dir():
        return _from_folder(source)
    if source.suffix.lower() == ".zip":
        return _from_zip(source)
    return _from_files({source: source.stem})


def _looks_like_a_picture(path: PurePath) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _from_folder(folder: Path) -> tuple[list[Picture], list[Problem]]:
    """All pictures of a folder, with the ids that they have as a dataset, otherwise with those of their paths.

    A known table names its images without their folders, and they may lie in zips beside it: see ``dataset.layouts``.
    """
    files, problems = visible_files(folder)
    names = {place: image for image, place in read_layout(folder).places.items()}
    images = [path for path in files if _looks_like_a_picture(path)]
    pictures, faults = _from_files(
        {path: names.get(Place(path)) or id_of(path.relative_to(folder).as_posix()) for path in images}
    )
    pictures += [
        Picture(image, f"{place.path}: {place.member!r}", place.path, place.member)
        for place, image in names.items()
        if place.member
    ]
    return pictures, problems + faults


def _from_files(images: dict[Path, str]) -> tuple[list[Picture], list[Problem]]:
    """The readable pictures among files, with their ids, and the problems of the others."""
    faults = {path: _name_fault(image) or file_fault(path) for path, image in images.items()}
    pictures = [Picture(images[path], str(path), path) for path, fault in faults.items() if not fault]
    return pictures, [Problem(shown(path), fault) for path, fault in faults.items() if fault]


def _name_fault(image: str) -> str:
    """Why an id cannot be written to a table; empty if it can."""
    if UNPRINTABLE.search(image):
        return "has control characters, or bytes that are no UTF-8, in its name"
    return IS_FORMULA if is_formula(image) else ""


def _from_zip(path: Path) -> tuple[list[Picture], list[Problem]]:
    if path.exists() and not path.is_file():
        return [], [Problem(str(path), file_fault(path))]
    members, problems = zip_directory(path, str(path))
    unsafe = {problem.where for problem in problems}
    found = [
        member
        for member in members
        if _looks_like_a_picture(name := PurePosixPath(member.filename)) and not any(map(hidden, name.parts))
    ]
    safe = [member for member in found if f"{path}: {member.orig_filename!r}" not in unsafe]
    folder = commonpath([str(PurePosixPath(member.filename).parent) for member in safe]) if safe else ""
    pictures = [
        Picture(
            id_of(PurePosixPath(member.filename).relative_to(folder).as_posix()),
            f"{path}: {member.orig_filename!r}",
            path,
            member.filename,
        )
        for member in safe
    ]
    problems += [Problem(picture.where, IS_FORMULA) for picture in pictures if is_formula(picture.image)]
    return [picture for picture in pictures if not is_formula(picture.image)], problems
