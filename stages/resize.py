"""Decode every image once, directly from the zip, and store it resized in one memory-mapped array."""

if __name__ == "__main__":
    from stages import start

    start("resize")

import os
from pathlib import Path

from cclnet.dataset.isic import INPUT_ZIP
from cclnet.dataset.tables import image_members
from cclnet.images.cache import build_cache
from cclnet.params import Params, ResizeParams
from cclnet.system.errors import errors_in_one_line
from cclnet.system.progress import progress


def main() -> None:
    params = Params.load().stage(ResizeParams)
    input_zip = Path("data/raw") / INPUT_ZIP
    with progress() as report:
        copies = build_cache(
            input_zip,
            image_members(input_zip),
            params.short_side,
            Path("data/images.npy"),
            Path("data/images.csv"),
            params.threads or os.cpu_count() or 1,
            report,
        )
    if copies.surplus:
        print(
            f"{copies.surplus:,} images show what another one shows, byte for byte or nearly: "
            "data/images.json names them under identical and alike"
        )


if __name__ == "__main__":
    with errors_in_one_line("resize"):
        main()
