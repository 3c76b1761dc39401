"""Find the files below a folder; each folder is visited once."""

import os
from pathlib import Path

from cclnet.system.errors import Problem
from cclnet.system.names import shown

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp")

_SYSTEM_NAMES = {
    "$recycle.bin",
    "#recycle",
    "@eadir",
    "@recycle",
    "__macosx",
    "desktop.ini",
    "ehthumbs.db",
    "lost+found",
    "system volume information",
    "thumbs.db",
}
"""Names of files that operating systems and network disks add, such as thumbnails; in lower case."""


def hidden(name: str) -> bool:
    """Whether a name is ignored: it begins with a dot, or is used by operating systems."""
    return name.startswith(".") or name.casefold() in _SYSTEM_NAMES


def visible_files(folder: Path) -> tuple[list[Path], list[Problem]]:
    """Find all files below a folder, following links and ignoring ``hidden`` names.

    Returns:
        The sorted files, and the problems: folders that cannot be read, and folders that are reached a second time
        through links. The latter are not visited again, so loops of links end.

    Raises:
        OSError: the folder itself cannot be read.
    """
    with os.scandir(folder):
        pass
    files: list[Path] = []
    problems: list[Problem] = []

    def note(error: OSError) -> None:
        problems.append(Problem(shown(error.filename), f"cannot be read: {error.strerror}"))

    entered = {os.path.realpath(folder): folder}
    for parent, folders, names in os.walk(folder, onerror=note, followlinks=True):
        below = []
        for name in sorted(name for name in folders if not hidden(name)):
            path = Path(parent, name)
            first = entered.setdefault(os.path.realpath(path), path)
            if first is path:
                below.append(name)
            else:
                problems.append(Problem(shown(path), f"is the same folder as {shown(first)}, and is not read again"))
        folders[:] = below
        files += (Path(parent, name) for name in names if not hidden(name))
    return sorted(files), problems
