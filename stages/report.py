"""One page about the experiment. It shows images, so it is kept in DVC's cache and never committed."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from cclnet.errors import errors_in_one_line
from cclnet.files import write_bytes
from cclnet.images import ImageCache
from cclnet.params import ReportParams
from cclnet.report import Experiment, report_page
from cclnet.sample import PLANTED_SIMILARITY
from stages import PARAMS


def main() -> None:
    params = PARAMS.stage(ReportParams)
    experiment = Experiment(
        params=params,
        metrics=read_json("metrics/metrics.json"),
        soft_labels=read_json("metrics/soft_labels.json"),
        confusion=read_json("metrics/confusion.json"),
        classes=pd.read_csv("metrics/classes.csv"),
        reliability=pd.read_csv("metrics/reliability.csv"),
        history=pd.read_csv("metrics/history.csv"),
        predictions=pd.read_csv("metrics/predictions.csv", dtype={"image": str}),
        split=pd.read_csv("data/split.csv", dtype=str, keep_default_na=False),  # NA can be the name of a class
        cache=ImageCache.open(Path("data/images.npy"), Path("data/images.csv")),
        provenance=read_json("data/provenance.json"),
        conditions=read_json("models/conditions.json"),
        planted=PLANTED_SIMILARITY if params.dataset == "sample" else None,
    )
    write_bytes(Path("metrics/report.html"), report_page(experiment).encode())


def read_json(path: str) -> Any:
    """What a stage wrote."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


if __name__ == "__main__":
    with errors_in_one_line("report"):
        main()
