"""Heads followed from epoch to epoch, in small."""

import pytest

from studies.features import course
from studies.features.data import FixedFeatures


@pytest.mark.parametrize("balance", ["none", "cross_fitted"])
def test_course_in_small(monkeypatch: pytest.MonkeyPatch, features: FixedFeatures, balance: str):
    monkeypatch.setattr(course, "EPOCHS", 2)
    found = course.run({"balance": balance, "rate": 0.005, "labels": "original", "seed": 0}, features)
    assert {len(values) for values in found.values()} == {2}
    assert all(1 / 7 < value < 1 for value in found["softness"])


def test_shuffled_labels_cannot_be_predicted(monkeypatch: pytest.MonkeyPatch, features: FixedFeatures):
    monkeypatch.setattr(course, "EPOCHS", 20)
    place = {"balance": "weights", "rate": 0.05, "seed": 0}
    own, shuffled = (
        course.run({**place, "labels": labels}, features)["validation_accuracy"][-1]
        for labels in ("original", "shuffled")
    )
    assert own > 0.9
    assert shuffled < 0.5
