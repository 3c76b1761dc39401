"""The fixed features and their splits by lesion."""

from pathlib import Path

import pytest

from cclnet.system.errors import CCLNetError
from studies.features.data import FixedFeatures


def test_no_lesion_is_on_both_sides_and_every_image_is_validated_once(features: FixedFeatures):
    seen = []
    for fold in range(5):
        training, validation = features.fold(fold)
        lesions = features.lesions
        assert not set(lesions[training].tolist()) & set(lesions[validation].tolist())
        seen += validation.tolist()
    assert sorted(seen) == list(range(700))


def test_features_are_principal_components_of_one_scale(features: FixedFeatures):
    assert features.features.shape == (700, 256)
    assert features.features.std(dim=0).mean().item() == pytest.approx(1, abs=0.01)


def test_a_missing_file_of_features_is_named():
    with pytest.raises(CCLNetError, match=r"absent\.npz does not exist; make the features with: cclnet similar"):
        FixedFeatures(Path("absent.npz"))
