"""The folder for files that DVC must not touch, and the key that identifies a run."""

import hashlib
import os
import sys
from pathlib import Path

from pydantic import BaseModel


def user_path(name: str) -> Path:
    """A path of ``params.yaml``: a relative one is from the project's folder in the user's checkout.

    An experiment that DVC runs elsewhere (``--queue``, ``--temp``) has only those files of it that git keeps.
    """
    try:
        return _checkout() / Path(name).expanduser()
    except RuntimeError:  # of a user who is not there: taken as it is written
        return _checkout() / name


def state_folder(name: str) -> Path:
    """A folder that outlives a stage: outside all outputs, and in the user's checkout also for queued experiments."""
    return _checkout() / ".cclnet" / name


def _checkout() -> Path:
    """The project's folder in the user's checkout: the current one, unless DVC runs an experiment in a copy of it."""
    root = os.environ.get("DVC_ROOT")
    if root is None:
        return Path()
    here, top = Path.cwd(), Path(root).resolve()
    in_copy = here.is_relative_to(top / ".dvc") or not here.is_relative_to(top)
    return Path(root) if in_copy else Path()


def run_key(params: BaseModel, *data_files: Path) -> str:
    """A hash of params, contents of the data files and loaded code of this project; 16 hexadecimal digits."""
    digest = hashlib.sha256(params.model_dump_json().encode())
    for path in [*data_files, *loaded_code()]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def loaded_code() -> list[Path]:
    """The source files of this project that the process has loaded, sorted by module name."""
    modules = {spec.name: module for module in sys.modules.values() if (spec := getattr(module, "__spec__", None))}
    names = sorted(name for name in modules if name.split(".")[0] in ("cclnet", "stages"))  # __main__ by its real name
    return [Path(file) for name in names if (file := getattr(modules[name], "__file__", None))]
