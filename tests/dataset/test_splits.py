import itertools
import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from cclnet.dataset.isic import CLASSES
from cclnet.dataset.splits import _fill as fill
from cclnet.dataset.splits import image_split, leakage, lesion_split, read_split
from cclnet.system.errors import DataError
from cclnet.system.files import write_csv

# how many lesions of ISIC 2018 have one, two, … images
LESIONS_BY_SIZE = {
    "MEL": (230, 278, 100, 4, 1, 1),
    "NV": (4415, 699, 268, 18, 2, 1),
    "BCC": (175, 118, 33, 1),
    "AKIEC": (151, 57, 18, 2),
    "BKL": (440, 220, 55, 8, 2, 2),
    "DF": (39, 26, 8),
    "VASC": (64, 25, 8, 1),
}
IMAGES = {"MEL": 1113, "NV": 6705, "BCC": 514, "AKIEC": 327, "BKL": 1099, "DF": 115, "VASC": 142}
VALIDATION = {"MEL": 223, "NV": 1341, "BCC": 103, "AKIEC": 65, "BKL": 220, "DF": 23, "VASC": 28}


def table_of(lesions: list[tuple[str, int]]) -> pd.DataFrame:
    """A table of lesions, each given by its class and its number of images."""
    rows = [(label, lesion) for lesion, (label, size) in enumerate(lesions) for _ in range(size)]
    return pd.DataFrame(
        [(f"ISIC_{n:07d}", label, f"HAM_{lesion:07d}") for n, (label, lesion) in enumerate(rows)]
    ).set_axis(["image", "label", "lesion"], axis=1)


@pytest.fixture(scope="module")
def isic() -> pd.DataFrame:
    """Ten thousand rows with the class counts and lesion sizes of ISIC 2018."""
    lesions = [
        (label, size)
        for label, counts in LESIONS_BY_SIZE.items()
        for size, count in enumerate(counts, start=1)
        for _ in range(count)
    ]
    table = table_of(lesions)
    assert dict(table["label"].value_counts()) == IMAGES
    return table.sample(frac=1, random_state=1, ignore_index=True)


def validation_counts(split: pd.DataFrame) -> dict[str, int]:
    counts = dict.fromkeys(CLASSES, 0)
    for subset, label in zip(split["subset"], split["label"], strict=True):
        counts[label] += subset == "validation"
    return counts


def cut_lesions(split: pd.DataFrame) -> int:
    """Lesions on both sides, counted the slow way."""
    sides: dict[str, set[str]] = {}
    for lesion, subset in zip(split["lesion"], split["subset"], strict=True):
        sides.setdefault(lesion, set()).add(subset)
    return sum(len(subsets) == 2 for subsets in sides.values())


@pytest.mark.parametrize("divide", [image_split, lesion_split])
@pytest.mark.parametrize("seed", range(5))
def test_both_splits_have_the_papers_counts(isic, divide, seed):
    split = divide(isic, 0.2, seed)
    assert validation_counts(split) == VALIDATION
    assert list(split.columns) == ["image", "label", "lesion", "subset"]
    assert split["subset"].value_counts().to_dict() == {"train": 8012, "validation": 2003}
    assert split["image"].is_monotonic_increasing
    pd.testing.assert_frame_equal(split[isic.columns], isic.sort_values("image", ignore_index=True))


@pytest.mark.parametrize("seed", range(5))
def test_lesions_are_never_cut(isic, seed):
    assert cut_lesions(lesion_split(isic, 0.2, seed)) == 0
    assert cut_lesions(image_split(isic, 0.2, seed)) > 500


@pytest.mark.parametrize("divide", [image_split, lesion_split])
def test_a_split_depends_on_contents_and_seed_alone(isic, divide):
    first = divide(isic, 0.2, 3).to_csv(index=False)
    assert divide(isic, 0.2, 3).to_csv(index=False) == first
    assert divide(isic.sample(frac=1, random_state=9), 0.2, 3).to_csv(index=False) == first
    assert divide(isic, 0.2, 4).to_csv(index=False) != first


def test_lesion_split_draws_lesions_of_every_size(isic):
    """The share of each size in validation is near a fifth: neither large nor small lesions are preferred."""
    split = lesion_split(isic, 0.2, 0)
    size = Counter(split["lesion"])
    subset_of = dict(zip(split["lesion"], split["subset"], strict=True))
    for images in (1, 2, 3):
        subsets = [subset for lesion, subset in subset_of.items() if size[lesion] == images]
        assert subsets.count("validation") / len(subsets) == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(
    ("sizes", "wanted", "total"),
    [
        ([3, 3, 2, 2], 4, 4),  # taking what fits would stop at 3
        ([5, 5], 2, 5),  # none would be nearer, but one class would be absent
        ([5, 5], 0, 0),
        ([1, 1], 5, 1),  # never all of them
        ([4, 4, 4], 7, 8),
        ([1, 2, 3], 3, 3),
    ],
)
def test_fill_reaches_the_nearest_sum(sizes, wanted, total):
    assert sum(sizes[position] for position in fill(sizes, wanted)) == total


def test_fill_against_every_subset():
    sizes = [2, 5, 3, 7, 4, 6]
    sums = {sum(subset) for length in range(1, 6) for subset in itertools.combinations(sizes, length)}
    for wanted in range(1, sum(sizes)):
        chosen = fill(sizes, wanted)
        assert len(set(chosen)) == len(chosen)
        reached = sum(sizes[position] for position in chosen)
        assert abs(reached - wanted) == min(abs(total - wanted) for total in sums)


def test_lesions_too_large_for_the_counts_give_the_nearest():
    table = table_of([("MEL", 5)] * 4 + [("NV", 1)] * 40)
    split = lesion_split(table, 0.2, 0)
    assert validation_counts(image_split(table, 0.2, 0)) == {**dict.fromkeys(CLASSES, 0), "MEL": 4, "NV": 8}
    assert validation_counts(split) == {**dict.fromkeys(CLASSES, 0), "MEL": 5, "NV": 8}
    assert cut_lesions(split) == 0


def test_a_lesion_with_two_labels_stays_whole():
    table = table_of([("NV", 3)] * 20 + [("MEL", 1)] * 20)
    table.loc[0, "label"] = "MEL"
    for seed in range(10):
        split = lesion_split(table, 0.3, seed)
        assert cut_lesions(split) == 0
        assert leakage(split, CLASSES)["leakage"] == 0
        assert set(split["subset"]) == {"train", "validation"}


@pytest.mark.parametrize("divide", [image_split, lesion_split])
def test_a_class_of_one_image_is_refused_by_name(divide):
    with pytest.raises(DataError, match="class DF has a single image") as error:
        divide(table_of([("NV", 1)] * 30 + [("DF", 1)]), 0.2, 0)
    assert "\n" not in str(error.value)


def test_a_class_of_one_lesion_is_refused_by_the_lesion_split_alone():
    table = table_of([("NV", 1)] * 30 + [("VASC", 6)])
    assert validation_counts(image_split(table, 0.2, 0))["VASC"] == 1
    with pytest.raises(DataError, match="class VASC has a single lesion"):
        lesion_split(table, 0.2, 0)


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_a_subset_smaller_than_the_number_of_classes_is_refused(fraction):
    with pytest.raises(DataError, match="validation_fraction"):
        image_split(table_of([(label, 1) for label in CLASSES] * 5), fraction, 0)


def test_leakage_of_a_table_worked_out_by_hand():
    rows = [
        # lesion a leaks two of its validation images, b none, c is whole in training, d leaks its only one
        ("1", "MEL", "a", "train"), ("2", "MEL", "a", "validation"), ("3", "MEL", "a", "validation"),
        ("4", "MEL", "b", "validation"), ("5", "NV", "c", "train"), ("6", "NV", "c", "train"),
        ("7", "NV", "d", "train"), ("8", "NV", "d", "validation"), ("9", "DF", "e", "train"),
    ]  # fmt: skip
    measured = leakage(pd.DataFrame(rows).set_axis(["image", "label", "lesion", "subset"], axis=1), CLASSES)
    nothing = dict.fromkeys(CLASSES, 0)
    assert measured == {
        "leakage": 3 / 4,
        "leakage_per_class": {**dict.fromkeys(CLASSES), "MEL": 2 / 3, "NV": 1.0},
        "images": {
            "train": {**nothing, "MEL": 1, "NV": 3, "DF": 1},
            "validation": {**nothing, "MEL": 3, "NV": 1},
        },
        "lesions": {
            "train": {**nothing, "MEL": 1, "NV": 2, "DF": 1},
            "validation": {**nothing, "MEL": 2, "NV": 1},
        },
    }


def test_leakage_of_isic_is_what_chance_gives(isic):
    """A validation image of a lesion of n images leaks unless its n − 1 others are in validation too: 1 − .2^(n−1)."""
    measured = leakage(image_split(isic, 0.2, 0), CLASSES)
    size = isic.groupby("lesion")["image"].transform("size")
    assert measured["leakage"] == pytest.approx((1 - 0.2 ** (size - 1)).mean(), abs=0.04)
    assert measured["leakage"] == pytest.approx(0.386, abs=0.04)
    assert measured["images"]["validation"] == VALIDATION
    json.dumps(measured, allow_nan=False)
    assert set(leakage(lesion_split(isic, 0.2, 0), CLASSES)["leakage_per_class"].values()) == {0.0}


def test_names_that_look_like_numbers_or_gaps_survive_the_file(tmp_path: Path):
    names = ["007", "7", "NA", "null", "1e5", "nan", "a,b", "ä"]
    table = pd.DataFrame({"image": names, "label": names[::-1], "lesion": names, "subset": ["train"] * len(names)})
    write_csv(tmp_path / "split.csv", table)
    assert read_split(tmp_path / "split.csv").to_dict("list") == table.to_dict("list")
