"""Project folders in which the pipeline's stages run with other params, outside of the user's checkout."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cclnet.networks.catalogue import weights_file
from cclnet.system.errors import CCLNetError
from cclnet.system.files import write_bytes
from studies.running.processes import start_module, status_of
from studies.running.settings import ROOT, params_with


def start_project(folder: Path, settings: Mapping[str, Any]) -> None:
    """Create a folder in which stages can run; a relative path of weights starts at the project's root."""
    params = params_with(settings)
    if params["weights"] is not None and (file := weights_file(str(params["weights"]))):
        params["weights"] = str(ROOT / file)
    write_bytes(folder / "params.yaml", yaml.safe_dump(params, sort_keys=False).encode())


def run_stage(stage: str, folder: Path) -> None:
    """Run one stage in the folder as a separate process, because the processor is prepared before torch is loaded.

    Raises:
        CCLNetError: the stage failed and has reported the reason, or this process was asked to end and the stage has
            ended.
    """
    status = status_of(start_stage(stage, folder))
    if status:
        raise CCLNetError(f"the stage {stage} ended with exit status {status} in {folder}")


def start_stage(stage: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start the process of one stage in the folder."""
    return start_module(f"stages.{stage}", [], folder)
