"""Which images train and which validate, and how many lesions are on both sides."""

from pathlib import Path

from cclnet.errors import errors_in_one_line
from cclnet.files import write_csv, write_json
from cclnet.params import SplitParams
from cclnet.splits import image_split, leakage, lesion_split
from cclnet.tables import read_table
from stages import PARAMS


def main() -> None:
    params = PARAMS.stage(SplitParams)
    divide = {"image": image_split, "lesion": lesion_split}[params.split]
    split = divide(read_table(Path("data/raw")), params.validation_fraction, params.split_seed)
    write_csv(Path("data/split.csv"), split)
    write_json(Path("metrics/split.json"), leakage(split))


if __name__ == "__main__":
    with errors_in_one_line("split"):
        main()
