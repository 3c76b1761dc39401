"""ISIC 2018 Task 3: its classes and its three published files."""

from collections.abc import Iterable
from dataclasses import dataclass

CLASSES: tuple[str, ...] = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
"""The diagnoses in the challenge's order, which all arrays and files of its data use."""
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
"""The classes of all challenges, including later ones, in the order of their tables."""


def class_order(names: Iterable[str]) -> list[str]:
    """Order class names: in the challenges' order if all belong to the challenges, otherwise alphabetically."""
    ordered = sorted(names)
    return sorted(ordered, key=CHALLENGE_ORDER.index) if set(ordered) <= set(CHALLENGE_ORDER) else ordered


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Args:
        name: the file's name, at every source.
        address: the publisher's URL.
        size: length of the published file in bytes, if known.
        digest: hash of the published file as ``algorithm:hexadecimal``, if known.
    """

    name: str
    address: str
    size: int | None = None
    digest: str | None = None


INPUT_ZIP = "ISIC2018_Task3_Training_Input.zip"
GROUND_TRUTH_ZIP = "ISIC2018_Task3_Training_GroundTruth.zip"
LESION_TABLE = "ISIC2018_Task3_Training_LesionGroupings.csv"
OTHER_SETS = tuple(
    (f"ISIC2018_Task3_{name}_Input.zip", f"ISIC2018_Task3_{name}_GroundTruth.zip") for name in ("Validation", "Test")
)
"""The images and the labels of the challenge's own validation and test sets, which are not downloaded."""

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
"""The challenge's own files, the small ones first; no hash of the images is published."""
