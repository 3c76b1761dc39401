"""One page about the experiment. It shows images, so it is kept in DVC's cache and never committed."""

from pathlib import Path

import pandas as pd

from cclnet.dataset.sample import PLANTED_SIMILARITY
from cclnet.dataset.splits import read_split
from cclnet.experiments.run import read_run
from cclnet.images.cache import ImageCache
from cclnet.params import ReportParams
from cclnet.system.errors import errors_in_one_line
from cclnet.system.files import read_json, write_bytes
from cclnet.views.page import Report, report_page
from stages import PARAMS


def main() -> None:
    params = PARAMS.stage(ReportParams)
    report = Report(
        run=read_run("workspace", Path()),
        params=params,
        class_table=pd.read_csv("metrics/classes.csv"),
        reliability=pd.read_csv("metrics/reliability.csv"),
        history=pd.read_csv("metrics/history.csv"),
        split=read_split(Path("data/split.csv")),
        cache=ImageCache.open(Path("data/images.npy"), Path("data/images.csv")),
        provenance=read_json(Path("data/provenance.json")),
        conditions=read_json(Path("models/conditions.json")),
        planted=PLANTED_SIMILARITY if params.dataset == "sample" else None,
    )
    write_bytes(Path("metrics/report.html"), report_page(report).encode())


if __name__ == "__main__":
    with errors_in_one_line("report"):
        main()
