"""The estimators on fixed features, in small."""

from studies.features import estimators
from studies.features.data import FixedFeatures


def test_estimators_in_small(features: FixedFeatures):
    found = estimators.run({"estimator": "class_means", "seed": 0}, features)
    assert len(found["distances"]) == len(found["similarity"]) == len(found["shuffled"]) == 21
    assert 0 <= found["explained_by_counts"] <= 1
