"""The sizes of the classes exchanged, in small."""

import pytest

from studies.features import sizes
from studies.features.data import FixedFeatures


def test_sizes_in_small(monkeypatch: pytest.MonkeyPatch, features: FixedFeatures):
    monkeypatch.setattr(sizes, "READ_AT", (1, 2))
    found = sizes.run({"order": 3}, features)
    assert sorted(found["sizes"]) == sorted(sizes.SIZES.tolist())
    assert {key: len(value) for key, value in found["none"].items()} == {"1": 21, "2": 21}
    assert len(found["class_means"]) == len(found["predictions"]) == 21
