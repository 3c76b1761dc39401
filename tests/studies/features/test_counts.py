"""Heads that learn from class counts alone, in small."""

import pytest

from studies.features import counts
from studies.features.data import FixedFeatures


def test_counts_in_small(monkeypatch: pytest.MonkeyPatch, features: FixedFeatures):
    monkeypatch.setattr(counts, "STEPS", 3)
    found = counts.run({"kind": "weights", "seed": 0}, features)
    assert len(found["distances"]) == 21
    assert sum(found["counts"]) == 8012
