"""Folders in which the pipeline's stages run under params of their own, beside the user's checkout."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from cclnet.system.errors import CCLNetError
from cclnet.system.files import write_bytes

ROOT = Path(__file__).parent.parent


def params_with(settings: dict[str, str]) -> dict[str, Any]:
    """The project's params with some of them changed.

    Args:
        settings: path → value as text, as ``dvc exp run -S`` takes them. A key of the chosen dataset's block may go
            without its path: ``epochs`` for ``datasets.isic2018.epochs``.

    Raises:
        CCLNetError: there is no such key; what a value may be, the stages say.
    """
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    dataset = settings.get("dataset", params["dataset"])
    block = params["datasets"].get(dataset, {})
    for path, value in settings.items():
        *parents, key = ["datasets", dataset, path] if path in block else path.split(".")
        place = params
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if not isinstance(place, dict) or key not in place:
            raise CCLNetError(f"{path}: params.yaml has no such key, nor has the block of {dataset}")
        place[key] = yaml.safe_load(value)
    return params


def parsed_settings(texts: list[str]) -> dict[str, str]:
    """``key=value`` texts as a table, the later ones winning.

    Raises:
        CCLNetError: a text is no such pair.
    """
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise CCLNetError(f"{', '.join(wrong)}: write settings as key=value")
    return dict(text.split("=", 1) for text in texts)


def start_project(folder: Path, settings: dict[str, str]) -> None:
    """Make a folder that the stages can run in; a weights' file is looked for from the project's root."""
    params = params_with(settings)
    if params["weights"] is not None:
        from cclnet.networks.catalogue import weights_file

        if file := weights_file(str(params["weights"])):
            params["weights"] = str(ROOT / file)
    write_bytes(folder / "params.yaml", yaml.safe_dump(params, sort_keys=False).encode())


def run_stage(stage: str, folder: Path) -> None:
    """Run one stage in the folder, as a process of its own: the processor has to be prepared before torch is loaded.

    Raises:
        CCLNetError: it failed, and has said why.
    """
    with start_stage(stage, folder) as process:
        status = process.wait()
    if status:
        raise CCLNetError(f"the stage {stage} ended with exit status {status} in {folder}")


def start_stage(stage: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start the process of one stage in the folder."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("DVC_ROOT", None)  # the folder is a root of its own
    return subprocess.Popen([sys.executable, "-m", f"stages.{stage}"], cwd=folder, env=environment)  # noqa: S603
