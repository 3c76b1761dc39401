"""Determine the classes, split the images into training and validation, and measure the leakage of lesions."""

if __name__ == "__main__":
    from stages import start

    start("split")

from pathlib import Path

from cclnet.dataset.isic import GROUND_TRUTH_ZIP
from cclnet.dataset.splits import SUBSETS, divide, leakage, leakage_note
from cclnet.dataset.tables import read_classes, read_table
from cclnet.params import Params, SplitParams
from cclnet.system.errors import errors_in_one_line
from cclnet.system.files import write_csv, write_json

RAW = Path("data/raw")


def main() -> None:
    params = Params.load().stage(SplitParams)
    classes = read_classes(RAW / GROUND_TRUTH_ZIP)
    split = divide(read_table(RAW), params.split, params.validation_fraction, params.split_seed)
    write_json(Path("data/classes.json"), classes)
    write_csv(Path("data/split.csv"), split)
    measured = leakage(split, classes)
    if measured["leakage"] is not None:
        print(f"{measured['leakage']:.1%} of the validation images are of a lesion that is also trained on")
    if note := leakage_note(split):
        print(f"leakage: {note}")
    by_class = [
        {"class": label, "leakage": measured["leakage_per_class"][label]}
        | {f"{subset}_{what}": measured[what][subset][label] for what in ("images", "lesions") for subset in SUBSETS}
        for label in classes
    ]
    write_csv(Path("metrics/leakage.csv"), by_class)


if __name__ == "__main__":
    with errors_in_one_line("split"):
        main()
