import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchvision import models

from cclnet.backbones import build_backbone, classification_models, weight_names
from cclnet.errors import CCLNetError

# one of each of torchvision's families but regnet, with its number of features and a size of image that it takes
FAMILIES = {
    "alexnet": (4096, 64),
    "convnext_tiny": (768, 64),
    "densenet121": (1024, 64),
    "efficientnet_b0": (1280, 64),
    "efficientnet_v2_s": (1280, 64),
    "googlenet": (1024, 64),
    "inception_v3": (2048, 299),
    "maxvit_t": (512, 224),
    "mnasnet0_5": (1280, 64),
    "mobilenet_v2": (1280, 64),
    "mobilenet_v3_small": (1024, 64),
    "resnet18": (512, 64),
    "resnet50": (2048, 64),
    "resnext50_32x4d": (2048, 64),
    "shufflenet_v2_x0_5": (1024, 64),
    "swin_t": (768, 64),
    "swin_v2_t": (768, 64),
    "vgg11_bn": (4096, 64),
    "vit_b_16": (768, 224),
    "wide_resnet50_2": (2048, 64),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_one_feature_vector_per_image(name: str) -> None:
    num_features, size = FAMILIES[name]
    with torch.device("meta"):  # shapes only, so that the large ones cost nothing
        backbone, found = build_backbone(name)
        features = backbone.train()(torch.empty(2, 3, size, size))
    assert found == num_features
    assert features.shape == (2, num_features)


@pytest.mark.parametrize(
    ("name", "num_features"),
    [("resnet18", 512), ("mobilenet_v2", 1280), ("efficientnet_b0", 1280), ("swin_t", 768), ("regnet_y_400mf", 440)],
)
def test_features_are_numbers(name: str, num_features: int) -> None:
    torch.manual_seed(0)
    backbone, found = build_backbone(name)
    assert found == num_features
    for mode in (True, False):
        features = backbone.train(mode)(torch.randn(2, 3, 32, 32))
        assert features.shape == (2, num_features)
        assert features.dtype == torch.float32
        assert features.isfinite().all()


@pytest.mark.parametrize(("name", "last"), [("resnet18", "fc"), ("mobilenet_v2", "classifier.1")])
def test_backbone_is_the_network_without_its_last_linear_layer(name: str, last: str) -> None:
    images = torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    whole = models.get_model(name, weights=None).eval()
    torch.manual_seed(0)
    backbone, _ = build_backbone(name)
    assert isinstance(backbone.get_submodule(last), nn.Identity)
    assert_close(whole.get_submodule(last)(backbone.eval()(images)), whole(images), rtol=0, atol=0)
    assert set(backbone.state_dict()) == set(whole.state_dict()) - {f"{last}.weight", f"{last}.bias"}


def test_dropout_before_the_last_layer_stays() -> None:
    backbone, _ = build_backbone("mobilenet_v2")
    assert isinstance(backbone.get_submodule("classifier.0"), nn.Dropout)


def test_same_seed_gives_same_weights() -> None:
    first, same, other = ({}, {}, {})
    for weights, seed in ((first, 3), (same, 3), (other, 4)):
        torch.manual_seed(seed)
        weights.update(build_backbone("shufflenet_v2_x0_5")[0].state_dict())
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["conv1.0.weight"], other["conv1.0.weight"])


@pytest.mark.parametrize("name", ["resnet19", "", "fcn_resnet50", "Resnet18"])
def test_unknown_model_is_refused(name: str) -> None:
    with pytest.raises(CCLNetError, match=f"torchvision has no classification model '{name}'"):
        build_backbone(name)


def test_model_without_linear_layer_is_refused() -> None:
    with pytest.raises(CCLNetError, match="squeezenet1_1 does not end in a linear layer"):
        build_backbone("squeezenet1_1")


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(CCLNetError, match="torchvision has no weights 'BEST' for resnet18"):
        build_backbone("resnet18", "BEST")


def test_names_that_can_be_asked_for() -> None:
    names = classification_models()
    assert names == sorted(names)
    assert {"resnet18", "mobilenet_v2", "efficientnet_b0", *FAMILIES} <= set(names)
    assert not any("segmentation" in name or name.startswith(("fcn", "deeplab", "raft", "r3d")) for name in names)
    assert set(weight_names("resnet18")) == {"IMAGENET1K_V1", "DEFAULT"}
