"""Prepare the data of a study: run the pipeline's download, split and resize stages in a separate folder.

python -m studies.data studies/data/isic2018_64 dataset=isic2018_64 source=/folder/with/the/official/files
"""

import argparse
from pathlib import Path
from typing import Any

from cclnet.system.errors import errors_in_one_line
from studies.running.locks import locked
from studies.running.projects import run_stage, start_project
from studies.running.record import PREPARED, write_data_record
from studies.running.settings import parsed_settings


def prepare_data(folder: Path, settings: dict[str, Any]) -> None:
    """Create ``data/`` in the folder as in the pipeline, and ``prepared.json`` beside it.

    Args:
        folder: the target folder.
        settings: the params to change; see ``params_with``.

    Raises:
        CCLNetError: a setting does not exist, or a stage failed.
    """
    with locked(folder.with_name(f"{folder.name}.lock"), wait=True):
        (folder / PREPARED).unlink(missing_ok=True)
        start_project(folder, settings)
        for stage in ("download", "split", "resize"):
            run_stage(stage, folder)
        write_data_record(folder, settings)


def parser() -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the data go")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="params to change")
    return parser


if __name__ == "__main__":
    with errors_in_one_line("data"):
        arguments = parser().parse_args()
        prepare_data(arguments.folder, parsed_settings(arguments.settings))
