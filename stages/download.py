"""Put the verified official files into ``data/raw``, or the embedded sample or own images in the same layout."""

if __name__ == "__main__":
    from stages import start

    start("download")

from dataclasses import asdict
from pathlib import Path

from cclnet.dataset.download import Provenance, fetch, incoming, provenance_of
from cclnet.dataset.folders import holds_own_images, import_folder
from cclnet.dataset.isic import OFFICIAL_FILES
from cclnet.dataset.sample import DRAWN, draw_sample
from cclnet.dataset.sources import source_problems
from cclnet.dataset.tables import dataset_problems, require_none
from cclnet.params import DownloadParams, Params
from cclnet.system.errors import DataError, errors_in_one_line
from cclnet.system.files import write_json
from cclnet.system.progress import Report, progress
from cclnet.system.workspace import state_folder

RAW = Path("data/raw")


def main() -> None:
    params = Params.load().stage(DownloadParams)
    if problems := source_problems(params.source):
        raise DataError("files of yours would be lost:", problems)
    with progress() as report, incoming(RAW) as folder:
        provenance = bring(params, folder, report)
        require_none(dataset_problems(folder))
        write_json(Path("data/provenance.json"), [asdict(file) for file in provenance])


def bring(params: DownloadParams, folder: Path, report: Report) -> list[Provenance]:
    """Put the three files into a folder and return their provenance."""
    if params.source == DRAWN:
        sample = params.sample
        draw_sample(folder, sample.images, sample.imbalance, sample.separation, sample.seed, report)
        return [provenance_of(folder / file.name, params.source) for file in OFFICIAL_FILES]
    if holds_own_images(params.source):
        provenance, notes = import_folder(params.source, folder, report)
        for where, what in notes:
            print(f"{where}: {what}")
        return provenance
    return fetch(params.source, OFFICIAL_FILES, folder, state_folder("downloads"), report)


if __name__ == "__main__":
    with errors_in_one_line("download"):
        main()
