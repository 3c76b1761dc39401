"""One cell of a study: the pipeline's train and evaluate stages under params of their own, and what they measured.

    python -m studies.cell cells/none-0 --data studies/data/isic2018_64 dataset=isic2018_64 head_balance=none seed=0

A cell leaves two files: NAME.json, what made it and what was measured, and NAME.csv, the probabilities of every
validation image. It holds no image and no weights. Interrupted, it continues where it was; where both files are there,
it does nothing.
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
        data: a folder that ``studies.data`` has prepared.
        settings: the params to change; see ``params_with``.

    Raises:
        CCLNetError: the data are missing or others, a setting does not exist, or a stage failed.
        BusyError: another process is measuring this cell.
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
    """Both files are there."""
    return all(name.with_name(f"{name.name}.{suffix}").is_file() for suffix in ("json", "csv"))


def check_data(data: Path, settings: dict[str, Any]) -> None:
    """Refuse data that are missing, not finished, or not those of the params.

    Raises:
        CCLNetError: they are.
    """
    if not (data / PREPARED).is_file():
        raise CCLNetError(f"{data} holds no data; prepare them with: python -m studies.data {data}")
    wanted, found = data_params(experiment_params(settings)), read_json(data / PREPARED)["params"]
    differing = [f"{name} {found.get(name)}, not {value}" for name, value in wanted.items() if found.get(name) != value]
    if differing:
        raise CCLNetError(f"{data} was prepared with {', '.join(differing)}: name other data, or set the same params")


def write_results(folder: Path, name: Path, made: dict[str, Any]) -> None:
    """Gather what a cell's stages left in its working folder; the JSON comes last, so it stands for both files."""
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
