"""A new DVC project that trains on the user's own images, made of this package's pipeline."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cclnet import __version__
from cclnet.dataset.download import OFFICIAL
from cclnet.dataset.layouts import LabelledFolder, read_layout
from cclnet.dataset.sample import DRAWN
from cclnet.dataset.sources import source_problems
from cclnet.system.errors import CCLNetError, DataError, Problem
from cclnet.system.names import UNPRINTABLE, shown

PACKAGE = Path(__file__).resolve().parents[1]
REQUIREMENTS = "requirements.txt"
WRITTEN_BY_STAGES = ("data", "metrics", "models", "dvc.lock", ".cclnet")
IGNORED_BY_GIT = ("/data/", "/models/", "/.cclnet/", "/dvc_plots/", "__pycache__/")
IGNORED_BY_DVC = (".cclnet", ".venv", "__pycache__")
HEADER = f"""\
# The pipeline: params → download → split, resize → train → evaluate → plot, report. A stage runs again when one of its
# deps or params has changed. The installed version of cclnet is one of them: after an upgrade, write it into
# {REQUIREMENTS}.

"""


@dataclass(frozen=True)
class NewProject:
    """What was made.

    Attributes:
        folder: the project.
        class_counts: the images of each class, sorted by name.
        by_group: whether the images of one group are kept together in the split, because some groups have several.
        has_git: whether the project is in a git repository.
        notes: how the images were interpreted, what was ignored, and suspicious data.
    """

    folder: Path
    class_counts: dict[str, int]
    by_group: bool
    has_git: bool
    notes: list[Problem]


def create_project(folder: Path, images: Path) -> NewProject:
    """Make a project whose ``dvc repro`` trains on the images: stages, params, pipeline, templates, git and DVC.

    A project inside a git repository becomes a part of it; otherwise it gets its own, if git is installed.

    Args:
        folder: the project; created if necessary. It may contain other files, but none with a name that is needed.
        images: the folder of images, in one of the layouts of ``dataset.layouts``; it may be in the project.

    Raises:
        DataError: lists all problems of both folders; nothing is written then.
    """
    images = images.expanduser()
    problems = [Problem(shown(folder), f"cannot be made: {fault}") for fault in _faults_of_place(folder)]
    problems += [Problem(shown(folder / name), IS_THERE) for name in NAMES if os.path.lexists(folder / name)]
    found = LabelledFolder(problems=[Problem(shown(images), "is no folder of images")])
    if images.is_dir():
        found = read_layout(images)
        problems += source_problems(str(images.resolve()), folder)
    problems += found.problems
    if UNPRINTABLE.search(str(images.resolve())):
        problems.append(Problem(shown(images), "has control characters in its path: rename or move it"))
    if problems:
        raise DataError("the project cannot be made: correct what follows", problems)
    groups = Counter(kind.group for kind in found.kinds.values() if kind.group is not None)
    by_group = any(count > 1 for count in groups.values())
    has_git = _write(folder, images.resolve(), by_group)
    counts = Counter(kind.label for kind in found.kinds.values())
    return NewProject(folder, dict(sorted(counts.items())), by_group, has_git, found.notes)


IS_THERE = "is there already, and the project needs this name: move it away, or choose another folder"


def _faults_of_place(folder: Path) -> Iterator[str]:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        yield f"{shown(there)} is no folder"
    elif not os.access(there, os.W_OK | os.X_OK):
        yield f"{shown(there)} is write-protected"


def _write(folder: Path, images: Path, by_group: bool) -> bool:
    """Write the project near its place, then move its entries there; returns whether it is in a git repository."""
    try:
        place = folder.resolve()
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place if place.is_dir() else place.parent
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=beside) as scratch:
            made = Path(scratch)
            in_git = _in_git(place) or _starts_git(made)
            for name, text in _files(place, images, by_group, in_git).items():
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                (made / name).write_text(text, encoding="utf-8", newline="\n")
            _move_entries(made, place)
    except OSError as error:
        raise CCLNetError(f"{error.filename or folder}: {error.strerror}; correct that and run it again") from None
    return in_git


def _move_entries(source: Path, target: Path) -> None:
    """Move everything into a folder, or nothing."""
    was_there = target.exists()
    target.mkdir(exist_ok=True)
    moved: list[Path] = []
    try:
        for entry in sorted(source.iterdir()):
            entry.rename(target / entry.name)
            moved.append(target / entry.name)
    except BaseException:
        for entry in moved:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if not was_there:
            target.rmdir()
        raise


def _in_git(folder: Path) -> bool:
    """Whether a folder, which need not exist, is in a git repository."""
    return any((path / ".git").exists() for path in (folder, *folder.parents))


def _starts_git(folder: Path) -> bool:
    """Make a git repository, if git is installed."""
    git = shutil.which("git")
    if git is None:
        return False
    return subprocess.run([git, "init", "--quiet", str(folder)], capture_output=True, check=False).returncode == 0  # noqa: S603


def _files(place: Path, images: Path, by_group: bool, in_git: bool) -> dict[str, str]:
    """The text of each file of a project."""
    ignored: list[str] = [*IGNORED_BY_GIT]
    source = str(images)
    if images.is_relative_to(place):
        source = images.relative_to(place).as_posix()
        ignored.append("/" + re.sub(r"([\\*?\[])", r"\\\1", source) + "/")  # not as git's wildcards
        if source in (OFFICIAL, DRAWN):  # which name other sources
            source = f"./{source}"
    files = {path.relative_to(_pipeline()).as_posix(): path for path in _pipeline_files()}
    texts = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    return texts | {
        "dvc.yaml": _pipeline_of_project(texts["dvc.yaml"]),
        "params.yaml": _params_of_project(texts["params.yaml"], source, by_group),
        REQUIREMENTS: f"cclnet[pipeline]=={__version__}\n",
        ".gitignore": "".join(f"{name}\n" for name in ignored),
        ".dvcignore": "".join(f"{name}\n" for name in IGNORED_BY_DVC),
        ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
        ".dvc/config": _dvc_settings(in_git),
        ".dvc/plots.html": (PACKAGE / "views" / "pages" / "plots.html").read_text(encoding="utf-8"),
    }


def _pipeline() -> Path:
    """The folder of the pipeline's files: in the installed package, or the checkout that the package is in."""
    template = PACKAGE / "template"
    return template if template.is_dir() else PACKAGE.parent


def _pipeline_files() -> Iterator[Path]:
    for pattern in ("dvc.yaml", "params.yaml", "stages/*.py", ".dvc/plots/*.json"):
        yield from _pipeline().glob(pattern)


def _pipeline_of_project(text: str) -> str:
    """``dvc.yaml`` with a dependency on the installed version instead of the package's files."""
    stages = re.sub(r"^ *- cclnet/.*\n", "", text[text.index("stages:\n") :], flags=re.MULTILINE)
    return HEADER + re.sub(r"^( *- )stages/__init__\.py\n", rf"\1{REQUIREMENTS}\n\g<0>", stages, flags=re.MULTILINE)


def _params_of_project(text: str, source: str, by_group: bool) -> str:
    """``params.yaml`` with these images as the chosen dataset."""
    changes = {
        r"^(dataset: )sample\b": "folder",
        r"(^  folder:.*\n    source: )images\b": json.dumps(source, ensure_ascii=False),  # YAML, too
        r"^(split: )image\b": "lesion" if by_group else "image",
    }
    for before, value in changes.items():
        text, count = re.subn(before, lambda match, value=value: match[1] + value, text, flags=re.MULTILINE)
        if count != 1:
            raise ValueError(f"{before} is in params.yaml {count} times")
    return text


def _dvc_settings(in_git: bool) -> str:
    core = ["analytics = false", "autostage = false", *([] if in_git else ["no_scm = true"])]
    return "\n    ".join(["[core]", *core]) + "\n[plots]\n    html_template = plots.html\n"


NAMES = ("dvc.yaml", "params.yaml", "stages", REQUIREMENTS, ".gitignore", ".dvcignore", ".dvc", *WRITTEN_BY_STAGES)
"""What a project needs at its top."""
