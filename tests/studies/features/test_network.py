"""A network followed from epoch to epoch, in small."""

from pathlib import Path

import pytest

from studies.features import network
from studies.features.data import FixedFeatures


def test_network_in_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    small = {"sample.images": 140, "short_side": 18, "crop": 16, "batch_size": 40}
    every = network.all_settings
    monkeypatch.setattr(network, "all_settings", lambda settings: every(settings) | small)
    monkeypatch.setattr(network, "ROOT", tmp_path)
    monkeypatch.setattr(network, "EPOCHS", 1)
    place = {"method": "weights", "labels": "original", "imbalance": 2, "data": 0, "seed": 0}
    found = network.run(place, FixedFeatures(None))
    assert {len(values) for values in found.values()} == {1}
    assert -1 <= found["predictions_all"][0] <= 1
