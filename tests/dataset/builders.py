"""Official-style tables and zips, made up, and downloads of them."""

import io
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import cclnet
from cclnet.dataset.download import Patience, Provenance, fetch
from cclnet.dataset.isic import CLASSES, GROUND_TRUTH_ZIP, LESION_TABLE, RemoteFile

HEADER = ",".join(["image", *CLASSES])
LABELS = {"ISIC_0000001": "NV", "ISIC_0000002": "MEL", "ISIC_0000003": "NV", "ISIC_0000004": "DF"}
LESIONS = {"ISIC_0000001": "HAM_1", "ISIC_0000002": "HAM_2", "ISIC_0000003": "HAM_1", "ISIC_0000004": "HAM_3"}


def row(image: str, *classes: str) -> str:
    return ",".join([image, *("1.0" if label in classes else "0.0" for label in CLASSES)])


def good_rows() -> list[str]:
    return [row(image, label) for image, label in LABELS.items()]


def write_zip(path: Path, members: Mapping[str, bytes | str]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def write_labels(folder: Path, rows: list[str], header: str = HEADER, encoding: str = "utf-8", end: str = "\n") -> None:
    table = "".join(f"{line}{end}" for line in [header, *rows]).encode(encoding)
    write_zip(folder / GROUND_TRUTH_ZIP, {"Truth/": b"", "Truth/ATTRIBUTION.txt": b"by", "Truth/labels.csv": table})


def write_lesions(folder: Path, rows: list[str], header: str = "image,lesion_id,diagnosis_confirm_type") -> None:
    (folder / LESION_TABLE).write_bytes("".join(f"{line}\r\n" for line in [header, *rows]).encode())


IMPATIENT = Patience(connect=2, stall=0.3, attempts=3, pause=0.01)
MEBIBYTE = 2**20


def zip_of(size: int, seed: int = 0) -> bytes:
    """A zip with a member of random bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("folder/ISIC_0000001.jpg"), np.random.default_rng(seed).bytes(size))
    return file.getvalue()


FILE = RemoteFile("a.zip", "https://publisher.invalid/a.zip")


class Folders:
    """Where a test downloads to."""

    def __init__(self, folder: Path) -> None:
        self.destination, self.partial = folder / "data", folder / "partial"

    @property
    def final(self) -> Path:
        return self.destination / FILE.name

    def fetch(self, source: str, file: RemoteFile = FILE, patience: Patience = IMPATIENT) -> Provenance:
        return fetch(source, [file], self.destination, self.partial, patience=patience)[0]

    def part(self) -> Path:
        return next(self.partial.glob("*/*.part"))

    def assert_nothing_final(self) -> None:
        assert not self.destination.exists()
        assert not list(self.partial.glob("*/*.zip"))


FETCH = """
import resource, sys
from pathlib import Path
from cclnet.dataset.download import fetch
from cclnet.system.errors import errors_in_one_line
from cclnet.dataset.isic import RemoteFile
source, destination, partial, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
with errors_in_one_line("fetch"):
    fetch(source, [RemoteFile("a.zip", "")], Path(destination), Path(partial))
"""


def start_fetching(source: str, folders: Folders, limit: int = 0) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", FETCH, source, str(folders.destination), str(folders.partial), str(limit)]
    return subprocess.Popen(command, cwd=Path(cclnet.__path__[0]).parent, stderr=subprocess.PIPE)
