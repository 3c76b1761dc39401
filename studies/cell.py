"""One cell of a study: the pipeline's train and evaluate stages under params of its own, and what came out of them.

    python -m studies.cell studies/looks/cells/none-original-0 --data studies/data/isic2018_64 \\
        dataset=isic2018_64 head_balance=none training_labels=original seed=0

A cell leaves two files: NAME.json, what it ran and what was measured, and NAME.csv, the probabilities of every
validation image. No image is in them and no weight. Interrupted, it goes on where it was.
"""

import argparse
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from cclnet.dataset.splits import read_split
from cclnet.system.errors import CCLNetError, errors_in_one_line
from cclnet.system.files import read_csv, read_json, write_bytes, write_json
from studies.data import PREPARED
from studies.projects import parsed_settings, run_stage, start_project

HISTORY = ("softness", "frozen", "validation_accuracy", "validation_kappa")


def run_cell(name: Path, data: Path, settings: dict[str, str]) -> None:
    """Train and evaluate once, in a working folder that is gone afterwards.

    Args:
        name: path of the two files, without suffix.
        data: a folder that ``studies.data`` has prepared.
        settings: the params to change; see ``projects.params_with``.

    Raises:
        CCLNetError: the data are not there, a setting does not exist, or a stage failed.
    """
    if not (data / PREPARED).is_file():
        raise CCLNetError(f"{data} holds no data; prepare them with: python -m studies.data {data}")
    folder = Path(os.environ.get("DVC_ROOT", ".")) / ".cclnet" / "studies" / name
    start_project(folder, settings)
    link = folder / "data"
    link.unlink(missing_ok=True)
    link.symlink_to((data / "data").resolve(), target_is_directory=True)
    for stage in ("train", "evaluate"):
        run_stage(stage, folder)
    write_results(folder, name, settings)
    shutil.rmtree(folder)


def write_results(folder: Path, name: Path, settings: dict[str, str]) -> None:
    """Gather what a cell's stages left in its working folder; the JSON comes last, so that it stands for the whole."""
    classes, split = read_json(folder / "data" / "classes.json"), read_split(folder / "data" / "split.csv")
    history = pd.read_csv(folder / "metrics" / "history.csv")
    counts = Counter(split.loc[split["subset"] == "train", "label"])
    results = {
        "settings": settings,
        "ran_on": read_json(folder / "models" / "conditions.json"),
        "metrics": read_json(folder / "metrics" / "metrics.json"),
        "training_images": [counts[label] for label in classes],
        "soft_labels": square(read_json(folder / "metrics" / "soft_labels.json"), "value", len(classes)),
        "confusion": square(read_json(folder / "metrics" / "confusion.json"), "count", len(classes)),
        "history": {column: history[column].tolist() for column in HISTORY},
    }
    predictions = read_csv(folder / "metrics" / "predictions.csv", ["image"])
    table = split[["image", "label", "lesion"]].merge(predictions, on="image", validate="one_to_one")
    text = table.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    write_bytes(name.with_name(f"{name.name}.csv"), text.encode())
    write_json(name.with_name(f"{name.name}.json"), results)


def square(cells: list[dict[str, Any]], column: str, side: int) -> list[list[float]]:
    """A table of K² cells as K rows of K."""
    values = [cell[column] for cell in cells]
    return [values[start : start + side] for start in range(0, len(values), side)]


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.cell", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", type=Path, help="path of the two files, without suffix")
    parser.add_argument("--data", type=Path, required=True, help="folder prepared by studies.data")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="params to change")
    return parser


if __name__ == "__main__":
    with errors_in_one_line("cell"):
        arguments = parser().parse_intermixed_args()
        run_cell(arguments.name, arguments.data, parsed_settings(arguments.settings))
