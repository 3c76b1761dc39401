"""Create the report page. It contains images, so it is stored in DVC's cache and never committed."""

if __name__ == "__main__":
    from stages import start

    start("report")

from pathlib import Path

import pandas as pd

from cclnet.dataset.sample import planted_similarity, was_drawn
from cclnet.dataset.splits import read_split
from cclnet.experiments.run import read_run
from cclnet.images.cache import ImageCache
from cclnet.params import Params, ReportParams
from cclnet.system.errors import errors_in_one_line
from cclnet.system.files import read_json, write_bytes
from cclnet.views.page import Report, report_page


def main() -> None:
    params = Params.load().stage(ReportParams)
    drawn = params.dataset == "sample" and was_drawn(Path("data/provenance.json"))
    report = Report(
        run=read_run("workspace", Path()),
        params=params,
        class_table=pd.read_csv("metrics/classes.csv", dtype={"class": str}, keep_default_na=False, na_values=[""]),
        reliability=pd.read_csv("metrics/reliability.csv"),
        history=pd.read_csv("metrics/history.csv"),
        split=read_split(Path("data/split.csv")),
        cache=ImageCache.open(Path("data/images.npy"), Path("data/images.csv")),
        provenance=read_json(Path("data/provenance.json")),
        conditions=read_json(Path("models/conditions.json")),
        planted=planted_similarity(params.sample.separation) if drawn else None,
    )
    write_bytes(Path("metrics/report.html"), report_page(report).encode())


if __name__ == "__main__":
    with errors_in_one_line("report"):
        main()
