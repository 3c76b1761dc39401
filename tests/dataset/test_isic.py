"""ISIC 2018 Task 3, and the order of the challenges' classes."""

import re
from itertools import permutations

import pytest

from cclnet.dataset.isic import (
    CHALLENGE_ORDER,
    CLASS_NAMES,
    CLASSES,
    GROUND_TRUTH_ZIP,
    INPUT_ZIP,
    LESION_TABLE,
    OFFICIAL_ADDRESS,
    OFFICIAL_FILES,
    OTHER_SETS,
    class_order,
)


def test_the_classes_are_the_challenges():
    assert CLASSES == ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
    assert tuple(CLASS_NAMES) == CLASSES
    assert {file.name for file in OFFICIAL_FILES} == {INPUT_ZIP, GROUND_TRUTH_ZIP, LESION_TABLE}
    assert all(file.address == OFFICIAL_ADDRESS + file.name for file in OFFICIAL_FILES)
    assert {file.name: file.size for file in OFFICIAL_FILES}[INPUT_ZIP] == 2_771_732_744


def test_what_is_known_of_a_file_can_be_checked():
    assert {file.digest.split(":")[0]: len(file.digest.split(":")[1]) for file in OFFICIAL_FILES if file.digest} == {
        "sha256": 64,
        "md5": 32,
    }
    assert all(re.fullmatch("[a-z0-9]+:[0-9a-f]+", file.digest) for file in OFFICIAL_FILES if file.digest)
    assert OFFICIAL_FILES[-1].name == INPUT_ZIP  # 2.8 GB: whatever is wrong with the others is known before


def test_the_sets_that_are_not_downloaded_are_named_like_the_training_set():
    training = (INPUT_ZIP, GROUND_TRUTH_ZIP)
    assert list(OTHER_SETS) == [
        tuple(name.replace("Training", kind) for name in training) for kind in ("Validation", "Test")
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (CLASSES, list(CLASSES)),
        (("VASC", "MEL"), ["MEL", "VASC"]),
        (("SCC", "AK", "MEL", "UNK"), ["MEL", "AK", "SCC", "UNK"]),
        (("MEL", "cat", "NV"), ["MEL", "NV", "cat"]),  # one of another kind: all by the alphabet
        (("NV", "nv", "MEL"), ["MEL", "NV", "nv"]),
        ((), []),
    ],
)
def test_classes_have_an_order_whatever_order_they_come_in(names: tuple[str, ...], expected: list[str]):
    for given in list(permutations(names))[:30]:
        assert class_order(given) == expected


def test_the_classes_of_2018_keep_their_order_among_all_challenges():
    assert [name for name in CHALLENGE_ORDER if name in CLASSES] == list(CLASSES)
    assert len(set(CHALLENGE_ORDER)) == len(CHALLENGE_ORDER) == 10
