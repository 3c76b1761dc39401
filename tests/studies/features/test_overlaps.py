"""Out-of-fold probabilities, and cleanlab's overlapping classes as a matrix."""

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from cclnet.system.errors import CCLNetError
from studies.features import overlaps
from studies.features.data import FixedFeatures


def test_the_logistic_regression_has_not_seen_the_fold(features: FixedFeatures):
    inputs, labels = features.features.double().numpy(), features.labels.numpy()
    folds = np.arange(700) % 3
    found = overlaps.logistic(inputs, labels, folds)
    for fold in range(3):
        inside, out = folds != fold, folds == fold
        mean, deviation = inputs[inside].mean(axis=0), inputs[inside].std(axis=0)
        classifier = LogisticRegression(max_iter=1000).fit((inputs[inside] - mean) / deviation, labels[inside])
        assert found[out] == pytest.approx(classifier.predict_proba((inputs[out] - mean) / deviation), abs=1e-6)


def test_overlaps_of_every_two_classes(monkeypatch: pytest.MonkeyPatch):
    def find_overlapping_classes(labels: Any, pred_probs: Any) -> pd.DataFrame:
        columns = ["Class Index A", "Class Index B", "Joint Probability"]
        return pd.DataFrame([(2, 0, 0.3), (0, 1, 0.2), (1, 2, 0.1)], columns=columns)

    module = ModuleType("cleanlab.dataset")
    module.find_overlapping_classes = find_overlapping_classes  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "cleanlab", ModuleType("cleanlab"))
    monkeypatch.setitem(sys.modules, "cleanlab.dataset", module)
    found = overlaps.overlaps(np.arange(3), np.eye(3))
    assert found.tolist() == [[0, 0.2, 0.3], [0.2, 0, 0.1], [0.3, 0.1, 0]]


def test_cleanlab_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cleanlab", None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(CCLNetError, match="the experiment overlaps needs cleanlab: pip install cleanlab"):
        overlaps.overlaps(np.arange(3), np.eye(3))
