"""Run one cell of a study: the pipeline's train and evaluate stages with given params.

    python -m studies.cell cells/none-0 --data studies/data/isic2018_64 dataset=isic2018_64 head_balance=none seed=0

A cell writes two files: NAME.json with the results and their provenance, and NAME.csv with the probabilities of every
validation image. They contain no images and no weights. An interrupted cell resumes; if both files exist, the command
does nothing.
"""

import argparse
import os
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from cclnet.dataset.splits import read_split
from cclnet.metrics.score_table import read_scores
from cclnet.system.errors import CCLNetError, errors_in_one_line
from cclnet.system.files import read_csv, read_json, write_bytes, write_json
from studies.running.locks import locked
from studies.running.projects import run_stage, start_project
from studies.running.record import PREPARED, made_by
from studies.running.settings import data_params, experiment_params, parsed_settings

HISTORY = ("softness", "frozen", "validation_accuracy", "validation_kappa")


def run_cell(name: Path, data: Path, settings: dict[str, Any]) -> None:
    """Train and evaluate once, in a working folder that is removed afterwards.

    Args:
        name: path of the two files, without suffix.
        data: a folder prepared by ``studies.data``.
        settings: the params to change; see ``params_with``.

    Raises:
        CCLNetError: the data are missing or were prepared with other params, a setting does not exist, or a stage
            failed.
        BusyError: another process is running this cell.
    """
    check_data(data, settings)
    folder = Path(os.environ.get("DVC_ROOT", ".")) / ".cclnet" / "studies" / name.relative_to(name.anchor)
    with locked(folder.with_name(f"{name.name}.lock")):
        if is_measured(name):
            print(f"{name} is measured already; delete its two files to measure it again")
            return
        resumed, started = folder.exists(), time.monotonic()
        start_project(folder, settings)
        link = folder / "data"
        link.unlink(missing_ok=True)
        link.symlink_to((data / "data").resolve(), target_is_directory=True)
        for stage in ("train", "evaluate"):
            run_stage(stage, folder)
        write_results(folder, name, made_by(settings, data, time.monotonic() - started, resumed))
        shutil.rmtree(folder)


def is_measured(name: Path) -> bool:
    """Whether both files exist."""
    return all(name.with_name(f"{name.name}.{suffix}").is_file() for suffix in ("json", "csv"))


def check_data(data: Path, settings: dict[str, Any]) -> None:
    """Check that the data are complete and match the params.

    Raises:
        CCLNetError: the data are missing, incomplete, or were prepared with other params.
    """
    if not (data / PREPARED).is_file():
        raise CCLNetError(f"{data} holds no data; prepare them with: python -m studies.data {data}")
    wanted, found = data_params(experiment_params(settings)), read_json(data / PREPARED)["params"]
    differing = [f"{name} {found.get(name)}, not {value}" for name, value in wanted.items() if found.get(name) != value]
    if differing:
        raise CCLNetError(f"{data} was prepared with {', '.join(differing)}: name other data, or set the same params")


def write_results(folder: Path, name: Path, made: dict[str, Any]) -> None:
    """Collect the results of a cell's stages; the JSON is written last, so its existence implies both files."""
    classes, split = read_json(folder / "data" / "classes.json"), read_split(folder / "data" / "split.csv")
    history = pd.read_csv(folder / "metrics" / "history.csv")
    counts = Counter(split.loc[split["subset"] == "train", "label"])
    results = {
        "made_by": made,
        "ran_on": read_json(folder / "models" / "conditions.json"),
        "metrics": {name: score.value for name, score in read_scores(folder / "metrics" / "scores.csv").items()},
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
    """Convert a list of K² cells to K rows of length K."""
    values = [cell[column] for cell in cells]
    return [values[start : start + side] for start in range(0, len(values), side)]


def parser() -> argparse.ArgumentParser:
    """The parser of the command's arguments."""
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
