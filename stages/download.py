"""The official files, verified, in ``data/raw``; or the embedded sample or one's own images in the same layout."""

import shutil
from dataclasses import asdict
from pathlib import Path

from cclnet.dataset.download import fetch, provenance_of
from cclnet.dataset.folders import holds_own_images, import_folder
from cclnet.dataset.isic import OFFICIAL_FILES
from cclnet.dataset.sample import draw_sample
from cclnet.dataset.tables import dataset_problems, require_none
from cclnet.params import DownloadParams
from cclnet.system.errors import DataError, errors_in_one_line
from cclnet.system.files import write_json
from cclnet.system.progress import progress
from cclnet.system.workspace import state_folder
from stages import PARAMS

RAW = Path("data/raw")


def main() -> None:
    params = PARAMS.stage(DownloadParams)
    with progress() as report:
        if params.source == "drawn":
            draw_sample(RAW, params.sample.images, params.sample.imbalance, params.sample.seed, report)
            provenance = [provenance_of(RAW / file.name, params.source) for file in OFFICIAL_FILES]
        elif holds_own_images(params.source):
            provenance = import_folder(params.source, RAW, report)
        else:
            provenance = fetch(params.source, OFFICIAL_FILES, RAW, state_folder("downloads"), report)
    try:
        require_none(dataset_problems(RAW))
    except DataError:
        shutil.rmtree(RAW)
        raise
    write_json(Path("data/provenance.json"), [asdict(file) for file in provenance])


if __name__ == "__main__":
    with errors_in_one_line("download"):
        main()
