"""``cclnet init``: make a project that trains on the user's own images."""

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cclnet.cli.terminal import say, screen
from cclnet.system.names import shown

if TYPE_CHECKING:
    from cclnet.experiments.project import NewProject


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The new project's folder.")],
    images: Annotated[
        Path,
        typer.Option(
            "--data", metavar="PHOTOS", help="The folder of your images: a sub-folder per class, or with a table."
        ),
    ],
) -> None:
    """Make a DVC project that trains on your images, for `dvc repro`: stages, params, pipeline, plots and git.

    FOLDER may have other files in it, such as PHOTOS, but none with a name that the project needs. PHOTOS is only
    read. If either folder has problems, all of them are listed and nothing is written.
    """
    from cclnet.experiments.project import create_project

    show_project(screen(), create_project(folder, images))


def show_project(console: Console, project: "NewProject") -> None:
    """Print the notes, what was found, and the next command."""
    for where, what in project.notes:
        say(console, f"note: {shown(where)}: {shown(what)}")
    counts = project.class_counts
    say(console, f"{sum(counts.values()):,} images of {len(counts):,} classes: " + _listed(counts))
    if project.by_group:
        say(console, "groups have several images, which stay in one subset (split: lesion)")
    if not project.has_git:
        say(console, "git was not found: install it for experiments (dvc exp)")
    if shutil.which("dvc") is None:
        say(console, 'dvc was not found: pip install "dvc>=3.60"')
    say(console, "sizes and schedule are those of the block folder in params.yaml: adapt them to your images")
    say(console, f"next: cd {shlex.quote(shown(project.folder))} && dvc repro")


MOST_CLASSES = 10


def _listed(counts: dict[str, int]) -> str:
    """The first classes with their counts, and the number of further ones."""
    first = [f"{name} {count:,}" for name, count in list(counts.items())[:MOST_CLASSES]]
    more = len(counts) - MOST_CLASSES
    return ", ".join(first) + (f" and {more:,} more" if more > 0 else "")
