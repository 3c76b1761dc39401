"""Where a run keeps what DVC must not touch, and what tells one run from another."""

import hashlib
import os
import sys
from pathlib import Path

from pydantic import BaseModel


def state_folder(name: str) -> Path:
    """A folder that outlives a stage: outside every output, and in the user's checkout also for a queued experiment."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".cclnet" / name


def run_key(params: BaseModel, *data_files: Path) -> str:
    """Equal for equal params, contents of the data files and loaded code of this project; 16 hexadecimal digits."""
    digest = hashlib.sha256(params.model_dump_json().encode())
    for path in [*data_files, *loaded_code()]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def loaded_code() -> list[Path]:
    """The source files of this project that the process has loaded, in the order of their modules' names."""
    modules = {spec.name: module for module in sys.modules.values() if (spec := getattr(module, "__spec__", None))}
    names = sorted(name for name in modules if name.split(".")[0] in ("cclnet", "stages"))  # __main__ by its own name
    return [Path(file) for name in names if (file := getattr(modules[name], "__file__", None))]
