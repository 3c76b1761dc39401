"""Classifiers on fixed features, in small."""

import pytest

from studies.features import classifiers
from studies.features.data import FixedFeatures


@pytest.mark.parametrize("method", classifiers.METHODS)
def test_classifiers_in_small(monkeypatch: pytest.MonkeyPatch, features: FixedFeatures, method: str):
    monkeypatch.setattr(classifiers, "EPOCHS", 12)
    found = classifiers.run({"method": method, "fold": 0}, features)
    assert found["accuracy"] > 0.7  # by chance 1/7
    assert found["images"] == len(features.fold(0)[1])
    assert ("distances" in found) == (method in ("ccl", "ccl_balanced"))
