"""Check that the pipeline does not delete the user's source files.

DVC removes a stage's outputs before the stage runs. A source that is among them would be deleted before it is read, and
so would files that a user has put in the place of an output.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cclnet.dataset.download import OFFICIAL
from cclnet.dataset.isic import OFFICIAL_FILES
from cclnet.dataset.sample import DRAWN
from cclnet.system.errors import Problem
from cclnet.system.files import read_json
from cclnet.system.names import shown
from cclnet.system.workspace import user_path

RAW = Path("data/raw")
PROVENANCE = Path("data/provenance.json")
LOCK = Path("dvc.lock")
OUTPUTS = (
    *(str(RAW / file.name) for file in OFFICIAL_FILES),
    "data/params_checked.txt",
    str(PROVENANCE),
    "data/classes.json",
    "data/split.csv",
    "data/images.npy",
    "data/images.csv",
    "data/images.json",
    "models",
    "metrics",
)
"""The outputs of the stages, files and whole folders."""


def source_problems(source: str, project: Path = Path()) -> list[Problem]:
    """Find the user's own files that the pipeline would delete; to be called before DVC runs a stage.

    Args:
        source: as in ``params.yaml``; relative paths start at the current folder.
        project: the folder of ``dvc.yaml``.

    Returns:
        A problem for each output that lies in the source or is linked from it, and for each file in the place of an
        output that the pipeline did not write.
    """
    problems = [
        Problem(
            shown(path),
            "was not written by this pipeline, which would remove it: "
            "move it to a folder of its own, and name that as the source",
        )
        for path in _foreign_files(project)
    ]
    folder = user_path(source)
    if source in (OFFICIAL, DRAWN) or "://" in source or not folder.is_dir():
        return problems
    reached = {output for output in OUTPUTS if _reached(folder, project / output)}
    return problems + [
        Problem(
            f"source {source!r}",
            f"holds {output}, which this pipeline removes and writes anew: "
            "move your files to a folder of their own, and name that",
        )
        for output in OUTPUTS
        if output in reached
    ]


def output_problem(file: Path, project: Path = Path()) -> str:
    """Why a file cannot be an input of a stage, because it is among the outputs; empty if it is not."""
    if any(_reached(file, project / output) for output in OUTPUTS):
        return f"{shown(file)} is a file that this pipeline removes and writes anew: copy it to a folder of its own"
    return ""


def _reached(folder: Path, output: Path) -> bool:
    """Whether an output is inside a folder, or the folder inside the output, or a file of the folder links to it."""
    source = Path(os.path.realpath(folder))
    places = {Path(os.path.realpath(output.parent)) / output.name, Path(os.path.realpath(output))}
    linked = {Path(os.path.realpath(folder / file.name)) for file in OFFICIAL_FILES}
    return any(place.is_relative_to(source) or source.is_relative_to(place) for place in places) or bool(
        places & linked
    )


def _foreign_files(project: Path) -> Iterator[Path]:
    """Files in the place of the download's outputs whose size is in neither provenance nor ``dvc.lock``.

    Links are not included, because removing a link deletes no data.
    """
    known = {*_sizes_in_provenance(project), *_sizes_in_lock(project)}
    for file in OFFICIAL_FILES:
        path = project / RAW / file.name
        if path.is_file() and not path.is_symlink() and (file.name, path.stat().st_size) not in known:
            yield path


def _sizes_in_provenance(project: Path) -> Iterator[tuple[str, int]]:
    try:
        for file in read_json(project / PROVENANCE):
            yield file["name"], file["bytes"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return


def _sizes_in_lock(project: Path) -> Iterator[tuple[str, int]]:
    """The sizes of the outputs that DVC recorded."""
    try:
        lock: Any = yaml.safe_load((project / LOCK).read_text(encoding="utf-8"))
        for output in lock["stages"]["download"]["outs"]:
            yield Path(output["path"]).name, output["size"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError):
        return
