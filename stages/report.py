"""Create the report page. It contains images, so it is stored in DVC's cache and never committed."""

if __name__ == "__main__":
    from stages import start

    start("report")

from pathlib import Path

from cclnet.dataset.sample import planted_similarity, was_drawn
from cclnet.dataset.splits import read_split
from cclnet.experiments.run import read_run
from cclnet.experiments.written import (
    read_class_table,
    read_conditions,
    read_history,
    read_provenance,
    read_reliability,
    read_similarity,
)
from cclnet.images.cache import ImageCache
from cclnet.params import Params, ReportParams
from cclnet.system.errors import errors_in_one_line
from cclnet.system.files import write_bytes
from cclnet.views.page import Report, report_page


def main() -> None:
    params = Params.load().stage(ReportParams)
    drawn = params.dataset == "sample" and was_drawn(Path("data/provenance.json"))
    run = read_run("workspace", Path())
    report = Report(
        run=run,
        params=params,
        class_table=read_class_table(Path("metrics/classes.csv"), run.classes),
        reliability=read_reliability(Path("metrics/reliability.csv")),
        history=read_history(Path("metrics/history.csv")),
        split=read_split(Path("data/split.csv")),
        cache=ImageCache.open(Path("data/images.npy"), Path("data/images.csv")),
        provenance=read_provenance(Path("data/provenance.json")),
        conditions=read_conditions(Path("models/conditions.json")),
        similarity=read_similarity(Path("metrics/similarity.json"), run.classes),
        planted=planted_similarity(params.sample.separation) if drawn else None,
    )
    write_bytes(Path("metrics/report.html"), report_page(report).encode())


if __name__ == "__main__":
    with errors_in_one_line("report"):
        main()
