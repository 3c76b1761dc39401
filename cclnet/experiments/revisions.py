"""Files of a git revision or of a DVC experiment, whether git or DVC stores them.

DVC is called as a separate program, so that this project does not need to import it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cclnet.system.errors import CCLNetError
from cclnet.system.names import UNPRINTABLE

WORKSPACE = "workspace"
"""The name of the current state of the checkout, as in ``dvc metrics diff``."""


@contextmanager
def files_of(revision: str, *paths: str) -> Iterator[Path]:
    """Yield a folder with files and folders of the repository as they were at a revision.

    Args:
        revision: a branch, tag, commit or experiment; ``WORKSPACE`` for the checkout itself.
        paths: relative to the project's top folder, in which the process has to run; it may be a folder of a larger
            repository.

    Raises:
        CCLNetError: the revision is empty or one of git's searches, which DVC would take for the newest commit or for
            any other that matches; DVC is not installed or cannot fetch the files. The message says what to do.
    """
    if revision == WORKSPACE:
        yield Path()
        return
    if not revision.strip() or revision.startswith(":") or "^{/" in revision or UNPRINTABLE.search(revision):
        raise CCLNetError(f"{revision!r} is the name of no experiment: give a branch, tag, commit or experiment")
    with TemporaryDirectory() as folder:
        for path in paths:
            _fetch(revision, path, Path(folder, path))
        yield Path(folder)


def _fetch(revision: str, path: str, target: Path) -> None:
    program = shutil.which("dvc") or shutil.which("dvc", path=Path(sys.executable).parent)
    if not program:
        raise CCLNetError(f"{revision}: only DVC can fetch it, and there is no dvc: pip install dvc")
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [program, "get", ".", f"{_place_in_repository()}{path}", f"--rev={revision}", f"--out={target}"]
    finished = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603
    if finished.returncode:
        raise CCLNetError(f"{revision}: {_reason(revision, path, finished.stderr)}")


def _place_in_repository() -> str:
    """The current folder's path from the top of its git repository, with a slash at its end; empty at the top."""
    git = shutil.which("git")
    if not git:
        return ""
    finished = subprocess.run([git, "rev-parse", "--show-prefix"], capture_output=True, check=False)  # noqa: S603
    return os.fsdecode(finished.stdout).removesuffix("\n")


def _reason(revision: str, path: str, complaint: str) -> str:
    """The reason and the remedy, derived from DVC's error message."""
    if "unknown Git revision" in complaint:
        return "no branch, tag, commit or experiment; dvc exp list --all-commits names the experiments"
    if "is not a git repository" in complaint:
        return "revisions are git's, and this folder is in no git repository: compare prediction files (….csv) instead"
    if "No storage files available" in complaint:
        return (
            f"outputs in {path} are not in DVC's cache: dvc pull --all-commits gets what was pushed, else "
            f"dvc exp apply {revision} (a commit: git checkout {revision}) and dvc repro make them again"
        )
    errors = [line.removeprefix("ERROR: ") for line in complaint.splitlines() if line.startswith("ERROR: ")]
    reason = "; ".join(errors or complaint.splitlines()[-1:])
    return (
        f"dvc get cannot fetch {path}: {reason}: run this in the top folder of the "
        "checkout, and name a revision of this pipeline"
    )
