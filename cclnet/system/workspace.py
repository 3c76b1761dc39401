"""The folder for files that DVC must not touch, and the key that identifies a run."""

import hashlib
import os
import sys
from pathlib import Path

from pydantic import BaseModel


def state_folder(name: str) -> Path:
    """A folder that outlives a stage: outside all outputs, and in the user's checkout also for queued experiments."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".cclnet" / name


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
