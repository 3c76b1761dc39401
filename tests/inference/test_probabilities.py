"""What a network gives for every image of a subset, against one image at a time."""

import numpy as np
import pytest
import torch
from torch import nn

from cclnet.images.augmentation import Normalization
from cclnet.images.decoding import central_crop
from cclnet.inference.probabilities import features_and_probabilities, predict, prediction_batch
from cclnet.networks.model import CCLNet
from tests.training.builders import IMAGES

CPU = torch.device("cpu")
CROP = 16
NORMALIZATION = Normalization((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


@pytest.fixture
def model() -> CCLNet:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    return CCLNet(backbone, 4 * 7 * 7, num_classes=5)


def test_features_and_probabilities_of_every_image(model: CCLNet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cclnet.inference.probabilities.PREDICTION_BATCH", 3)
    features, probabilities = features_and_probabilities(model, IMAGES, CROP, CPU, NORMALIZATION)
    assert features.dtype == probabilities.dtype == np.float64
    for place, row in enumerate(IMAGES.rows):
        pixels = central_crop(IMAGES.cache[row], CROP) / 255
        normalised = (pixels - NORMALIZATION.mean) / NORMALIZATION.standard_deviation
        image = torch.from_numpy(normalised.transpose(2, 0, 1)[None]).float()
        with torch.no_grad():
            expected = model.eval().backbone(image)
            logits = model.classifier(expected).double()
        np.testing.assert_allclose(features[[place]], expected, atol=1e-5)
        np.testing.assert_allclose(probabilities[[place]], logits.softmax(dim=1), atol=1e-6)


def test_the_probabilities_are_those_of_prediction(model: CCLNet):
    _, probabilities = features_and_probabilities(model, IMAGES, CROP, CPU, NORMALIZATION)
    np.testing.assert_array_equal(probabilities, predict(model, IMAGES, CROP, CPU, normalization=NORMALIZATION))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("crop", "device", "expected"),
    [
        (28, "cpu", 256),
        (64, "cpu", 256),  # 64 × 64 × 256 are 2²⁰ pixels
        (65, "cpu", 248),
        (128, "cpu", 64),
        (224, "cpu", 20),
        (1024, "cpu", 1),
        (2000, "cpu", 1),
        (2000, "cuda", 256),
    ],
)
def test_large_images_are_computed_in_smaller_batches_on_a_cpu(crop: int, device: str, expected: int):
    assert prediction_batch(crop, torch.device(device)) == expected
