"""Made-up features for the tests of the experiments."""

from pathlib import Path

import numpy as np
import pytest

from cclnet.dataset.isic import CLASSES
from studies.features.data import FixedFeatures


@pytest.fixture
def features(tmp_path: Path) -> FixedFeatures:
    """Features of 700 images of seven classes that lie apart, 350 lesions of two images each."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(700) % 7, 1)
    vectors = 6 * np.eye(7)[labels] + generator.normal(size=(700, 7))
    wide = np.hstack([vectors, 0.1 * generator.normal(size=(700, 293))])
    names = np.array([CLASSES[label] for label in labels])
    groups = np.array([f"lesion{row // 14 * 7 + row % 7}" for row in range(700)])
    np.savez(tmp_path / "features.npz", features=wide, labels=names, groups=groups)
    return FixedFeatures(tmp_path / "features.npz")
