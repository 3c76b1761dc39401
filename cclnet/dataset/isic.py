"""ISIC 2018 Task 3: its classes, and the three files that it is published as."""

from collections.abc import Iterable
from dataclasses import dataclass

CLASSES: tuple[str, ...] = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
"""The diagnoses in the challenge's order, which is that of every array and file made of its data."""
CLASS_NAMES = {
    "MEL": "melanoma",
    "NV": "melanocytic nevus",
    "BCC": "basal cell carcinoma",
    "AKIEC": "actinic keratosis / Bowen's disease",
    "BKL": "benign keratosis",
    "DF": "dermatofibroma",
    "VASC": "vascular lesion",
}

CHALLENGE_ORDER = ("MEL", "NV", "BCC", "AKIEC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
"""Those of the later challenges too, each in the order of its own tables."""


def class_order(names: Iterable[str]) -> list[str]:
    """Order class names: as the challenges do it if all of them are theirs, else by name."""
    ordered = sorted(names)
    return sorted(ordered, key=CHALLENGE_ORDER.index) if set(ordered) <= set(CHALLENGE_ORDER) else ordered


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Args:
        name: the file's name, at every source.
        address: where its publisher serves it.
        size: its length there in bytes, if that is known.
        digest: its hash there as ``algorithm:hexadecimal``, if that is known.
    """

    name: str
    address: str
    size: int | None = None
    digest: str | None = None


INPUT_ZIP = "ISIC2018_Task3_Training_Input.zip"
GROUND_TRUTH_ZIP = "ISIC2018_Task3_Training_GroundTruth.zip"
LESION_TABLE = "ISIC2018_Task3_Training_LesionGroupings.csv"

OFFICIAL_ADDRESS = "https://isic-archive.s3.amazonaws.com/challenges/2018/"
OFFICIAL_FILES = (
    RemoteFile(
        LESION_TABLE,
        OFFICIAL_ADDRESS + LESION_TABLE,
        size=492_996,
        digest="sha256:b0352393dc54843e39a7c108781c54cc8a0ef282240330ac239a88c46ea0cc0f",
    ),
    RemoteFile(GROUND_TRUTH_ZIP, OFFICIAL_ADDRESS + GROUND_TRUTH_ZIP, digest="md5:8302427e4ce0c107559531b9f444abe9"),
    RemoteFile(INPUT_ZIP, OFFICIAL_ADDRESS + INPUT_ZIP, size=2_771_732_744),
)
"""The challenge's own copies, the small ones first; no hash of the images is published."""
