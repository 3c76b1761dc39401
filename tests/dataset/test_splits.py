import itertools
import json
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cclnet.dataset.isic import CLASSES
from cclnet.dataset.splits import (
    content_leakage,
    content_leakage_note,
    divide,
    fill,
    image_split,
    leakage,
    leakage_note,
    lesion_split,
    read_class_names,
    read_split,
)
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


def fill_with_all_sums_in_memory(sizes: list[int], wanted: int) -> list[int]:
    """``fill`` as it is defined, with the sums that every suffix reaches."""
    sums = [{0}]
    for size in reversed(sizes):
        sums.append(sums[-1] | {total + size for total in sums[-1]})
    sums.reverse()
    possible = [total for total in sorted(sums[0]) if min(wanted, 1) <= total < sum(sizes)]
    left = min(possible, key=lambda total: abs(total - wanted))
    chosen = []
    for position, size in enumerate(sizes):
        if left - size in sums[position + 1]:
            chosen.append(position)
            left -= size
    return chosen


@pytest.mark.parametrize("seed", range(200))
def test_fill_keeps_few_sums_in_memory_and_chooses_the_same(seed):
    random = np.random.default_rng(seed)
    sizes = random.integers(1, random.integers(2, 12), random.integers(2, 60)).tolist()
    wanted = int(random.integers(0, sum(sizes) + 3))
    assert fill(sizes, wanted) == fill_with_all_sums_in_memory(sizes, wanted)


def test_fill_of_a_hundred_thousand_images_takes_little_memory():
    """All sums that every suffix reaches would take 75,000 × 12.5 kB."""
    sizes = np.random.default_rng(0).choice([1, 2, 3], 75_000, p=[0.75, 0.2, 0.05]).tolist()
    tracemalloc.start()
    begun = time.process_time()
    chosen = fill(sizes, 20_000)
    seconds = time.process_time() - begun
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(sizes[position] for position in chosen) == 20_000
    assert peak < 20_000_000
    assert seconds < 20


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


# lesions that nobody names


def unknown(table: pd.DataFrame, images: int) -> pd.DataFrame:
    """The table with its first images of unknown lesions."""
    rows = np.arange(len(table)) < images
    return table.assign(lesion=np.where(rows, table["image"], table["lesion"]))


def test_leakage_of_unknown_lesions_is_unknown_and_not_none_at_all():
    split = image_split(unknown(table_of([(label, 2) for label in ("NV", "MEL")] * 20), 80), 0.25, 0)
    measured = leakage(split, CLASSES)
    assert measured["leakage"] is None
    assert set(measured["leakage_per_class"].values()) == {None}
    assert measured["images"]["validation"]["NV"] == 10
    assert leakage_note(split) == "unknown: no lesion or group of the validation images is named"


def test_leakage_is_of_the_images_whose_lesion_is_known():
    rows = [
        ("1", "MEL", "a", "train"), ("2", "MEL", "a", "validation"), ("3", "MEL", "b", "validation"),
        ("4", "NV", "4", "validation"), ("5", "NV", "5", "train"), ("6", "NV", "c", "train"),
        ("7", "NV", "8", "train"), ("8", "NV", "8", "validation"),  # a lesion named after one of its images is known
    ]  # fmt: skip
    split = pd.DataFrame(rows).set_axis(["image", "label", "lesion", "subset"], axis=1)
    measured = leakage(split, CLASSES)
    assert measured["leakage"] == 2 / 3
    assert measured["leakage_per_class"] == {**dict.fromkeys(CLASSES), "MEL": 1 / 2, "NV": 1.0}
    assert leakage_note(split) == "of the 3 of 4 validation images whose lesion or group is known"
    assert leakage_note(split.loc[split["image"] != "4"]) == ""


def test_a_lesion_split_without_lesions_is_refused_in_one_line():
    table = unknown(table_of([("NV", 1)] * 20 + [("MEL", 1)] * 20), 40)
    with pytest.raises(DataError, match=r"no lesion or group is named: name them .*, or set split: image") as error:
        lesion_split(table, 0.2, 0)
    assert "\n" not in str(error.value)
    lesion_split(unknown(table_of([("NV", 1)] * 20 + [("MEL", 1)] * 20), 39), 0.2, 0)


# classes in both subsets


def mixed(*lesions: dict[str, int]) -> pd.DataFrame:
    """A table of lesions, each given by its images of each class."""
    rows = [(label, n) for n, classes in enumerate(lesions) for label, count in classes.items() for _ in range(count)]
    images = [f"i{number:04d}" for number in range(len(rows))]
    return pd.DataFrame(
        {"image": images, "label": [label for label, _ in rows], "lesion": [f"l{n:03d}" for _, n in rows]}
    )


def assert_every_class_is_on_both_sides(split: pd.DataFrame) -> None:
    labels = set(split["label"])
    for subset in ("train", "validation"):
        assert set(split.loc[split["subset"] == subset, "label"]) == labels
    assert cut_lesions(split) == 0


@pytest.mark.parametrize("seed", range(40))
def test_a_class_that_counts_for_no_lesion_gets_images_in_both_subsets(seed):
    """Two lesions hold all of MEL, and more of NV each: whichever side they are drawn to, one has to change it."""
    table = mixed({"MEL": 2, "NV": 3}, {"MEL": 1, "NV": 2}, *[{"NV": 1}] * 30)
    assert_every_class_is_on_both_sides(lesion_split(table, 0.3, seed))


@pytest.mark.parametrize("seed", range(10))
def test_the_lesion_of_fewest_images_changes_sides(seed):
    table = mixed({"MEL": 1, "NV": 9}, {"MEL": 1, "NV": 2}, *[{"NV": 1}] * 50)
    split = lesion_split(table, 0.3, seed)
    assert_every_class_is_on_both_sides(split)


@pytest.mark.parametrize("seed", range(10))
def test_a_class_within_a_single_lesion_is_refused_by_name(seed):
    with pytest.raises(DataError, match=r"the images of class MEL are of lesions .* set split: image$") as error:
        lesion_split(mixed({"MEL": 2, "NV": 3}, *[{"NV": 1}] * 30), 0.3, seed)
    assert "\n" not in str(error.value)


# a split that the data give


def given(table: pd.DataFrame, *subsets: str) -> pd.DataFrame:
    """The table with subsets, dealt out in turn."""
    return table.assign(subset=[subsets[number % len(subsets)] for number in range(len(table))])


def test_a_given_split_is_kept():
    table = given(table_of([(label, 1) for label in ("NV", "MEL")] * 30), *["train"] * 3, "validation", "test")
    split = divide(table, "image", 0.2, 0)
    pd.testing.assert_frame_equal(split, table.sort_values("image", ignore_index=True))
    assert divide(table.drop(columns="subset"), "image", 0.2, 0).equals(
        image_split(table.drop(columns="subset"), 0.2, 0)
    )


def test_a_lesion_split_divides_all_but_the_test_images_anew():
    table = given(table_of([("NV", 2), ("MEL", 2)] * 30), "train", "validation", "test")
    split = divide(table, "lesion", 0.25, 0)
    assert split["image"].tolist() == sorted(table["image"])
    assert (
        split.loc[split["subset"] == "test", "image"].tolist() == table.loc[table["subset"] == "test", "image"].tolist()
    )
    assert cut_lesions(split.loc[split["subset"] != "test"]) == 0


def test_training_images_are_divided_where_no_validation_images_are_given():
    table = given(table_of([("NV", 1), ("MEL", 1)] * 30), "train", "train", "train", "train", "test")
    split = divide(table, "image", 0.25, 0)
    assert split["subset"].value_counts().to_dict() == {"train": 36, "validation": 12, "test": 12}


@pytest.mark.parametrize("split", ["image", "lesion"])
def test_a_class_that_only_test_images_have_is_refused(split: str):
    table = given(table_of([("NV", 2), ("MEL", 2)] * 30), "train", "train", "test")
    assert set(divide(table, split, 0.2, 0)["label"]) == {"NV", "MEL"}
    table.loc[table["subset"] == "test", "label"] = "DF"
    with pytest.raises(DataError, match="DF"):
        divide(table, split, 0.2, 0)


def test_a_given_split_without_a_class_in_training_is_refused():
    table = table_of([("NV", 1)] * 6 + [("MEL", 1)] * 2).assign(subset=["train"] * 6 + ["validation"] * 2)
    with pytest.raises(DataError, match="the split that the data give has no training image of class MEL: add some"):
        divide(table, "image", 0.2, 0)


# copies


def test_leakage_by_content_worked_out_by_hand():
    rows = [(image, "NV", image, subset) for image, subset in zip("abcdefgh", ["train", "validation"] * 4, strict=True)]
    split = pd.DataFrame(rows, columns=["image", "label", "lesion", "subset"]).replace({"label": {"h": "MEL"}})
    assert content_leakage(split, []) == 0
    copies = [["a", "b", "d"], ["c", "e"], ["f", "h"], ["g", "gone"]]
    assert content_leakage(split, copies) == 2 / 4
    assert (
        content_leakage_note(split, copies) == "50.0% of the validation images are copies of training images, or nearly"
    )
    assert content_leakage_note(split, copies[1:]) == ""
    assert content_leakage(split.loc[split["subset"] == "train"], copies) is None


# files between the stages


def test_names_that_look_like_numbers_or_gaps_survive_the_file(tmp_path: Path):
    names = ["007", "7", "NA", "null", "1e5", "nan", "a,b", "ä"]
    subsets = ["train"] * 7 + ["validation"]
    table = pd.DataFrame({"image": names, "label": names[::-1], "lesion": names, "subset": subsets})
    write_csv(tmp_path / "split.csv", table)
    assert read_split(tmp_path / "split.csv").to_dict("list") == table.to_dict("list")


SPLIT = [
    "image,label,lesion,subset",
    "a,NV,l1,train",
    "b,MEL,l2,validation",
    "c,NV,l3,validation",
    "d,MEL,l4,train",
    "e,NV,l5,test",
]


def refused(path: Path, lines: list[str], classes: list[str] | None = None) -> list[tuple[str, str]]:
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(DataError, match="the split is not what the split stage wrote: run it again") as error:
        read_split(path, classes)
    return [(where.removeprefix(str(path)), what) for where, what in error.value.problems]


def test_a_split_is_checked_where_it_is_opened(tmp_path: Path):
    path = tmp_path / "split.csv"
    path.write_text("\n".join(SPLIT))
    assert len(read_split(path, ["MEL", "NV"])) == 5
    spoilt = [*SPLIT[:2], "b,NEVUS,l2,validation", "c,NV,,validate", *SPLIT[4:], "a,NV,l1,validation"]
    assert refused(path, spoilt, ["MEL", "NV"]) == [
        (", 'a'", "is there 2 times"),
        (", 'b'", "has the label 'NEVUS', which is not among the classes"),
        (", 'c'", "is in the subset 'validate', which is not train, validation, test"),
        (", 'c'", "names no lesion"),
        (", 'a'", "is there 2 times"),
    ]
    assert refused(path, [SPLIT[0], *SPLIT[2:4]]) == [("", "has no train images")]
    assert refused(path, SPLIT[:1]) == [("", "has no train images"), ("", "has no validation images")]
    assert refused(path, ["image,label,subset", "a,NV,train"]) == [
        ("", "has the columns 'image,label,subset' instead of 'image,label,lesion,subset'")
    ]


@pytest.mark.parametrize(
    ("contents", "said"),
    [(None, "No such file or directory"), (b"", "it is no CSV table"), (b"\xff\xfe\x00", "it is no CSV table")],
)
def test_a_split_that_cannot_be_read(tmp_path: Path, contents: bytes | None, said: str):
    path = tmp_path / "split.csv"
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(DataError, match=rf"split\.csv cannot be read: {said}; run the split stage again$"):
        read_split(path)


def test_class_names_are_checked_where_they_are_opened(tmp_path: Path):
    path = tmp_path / "classes.json"
    path.write_text('["NV", "NA", "7"]')
    assert read_class_names(path) == ["NV", "NA", "7"]


@pytest.mark.parametrize(
    "text", ["", "[", "{}", "[]", '["a"]', '["a", "a"]', '["a", 1]', '["a", ""]', '["a", "b\\n"]', '"ab"', "[" * 10_000]
)
def test_broken_class_names_are_refused_in_one_line(tmp_path: Path, text: str):
    path = tmp_path / "classes.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"run the split stage again$") as error:
        read_class_names(path)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="No such file"):
        read_class_names(tmp_path / "absent.json")
