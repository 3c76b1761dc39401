import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close
from torchvision import models

from cclnet.networks.backbones import (
    build_backbone,
    compile_backbone,
    faster_memory_format,
    fitting_weights,
    pretrained_constants,
)
from cclnet.networks.catalogue import library
from cclnet.system.errors import CCLNetError, MissingPackageError

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


@pytest.mark.parametrize("name", ["resnet19", "", "fcn_resnet50", "Resnet18", "convnext_atto"])
def test_unknown_model_is_refused(name: str) -> None:
    with pytest.raises(CCLNetError, match=f"torchvision has no classification model '{name}'"):
        build_backbone(name)


@pytest.mark.parametrize("model", ["", "convnext_ato", "convnext_atto.x", "hf-hub:timm/test_vit.r160_in1k"])
def test_unknown_model_of_timm_is_refused(model: str) -> None:
    with pytest.raises(CCLNetError, match=f"timm has no classification model 'timm/{model}'"):
        build_backbone(f"timm/{model}")


def test_model_without_linear_layer_is_refused() -> None:
    with pytest.raises(CCLNetError, match="squeezenet1_1 does not end in a linear layer"):
        build_backbone("squeezenet1_1")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("timm/qwen3_vit_88m_enc", (1, 4, 1024)), ("timm/mobilenetv5_300m_enc", (1, 2048, 16, 16))],
)
def test_features_that_are_no_vector_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with torch.device("meta"), pytest.raises(CCLNetError) as caught:
        build_backbone(name, image_size=64)
    assert str(caught.value) == (
        f"backbone: {name} gives the features of one image of shape {shape}, not one vector of shape (1, n1); "
        "choose another"
    )


def test_features_that_are_no_tensor_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class TwoOutputs(nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return images.mean(dim=(2, 3)), images

    monkeypatch.setattr("cclnet.networks.backbones._torchvision_network", lambda *_: (TwoOutputs(), 224))
    with pytest.raises(CCLNetError, match=r"^backbone: resnet18 gives the features of one image as tuple, not one"):
        build_backbone("resnet18")


@pytest.mark.parametrize(
    ("name", "weights"),
    [("resnet18", "BEST"), ("timm/test_vit", "IMAGENET1K_V1"), ("timm/coatnet_0_224", "DEFAULT")],
)
def test_unknown_weights_are_refused(name: str, weights: str) -> None:
    with pytest.raises(CCLNetError, match=f"{library(name)} has no weights '{weights}' for {name}"):
        build_backbone(name, weights)


# timm

TIMM_MODELS = [
    "test_vit",
    "test_convnext",
    "test_efficientnet",
    "test_mambaout",
    "mobilenetv3_small_050",
    "ghostnet_050",
]
"""Small ones; for the last three ``num_features`` is not what comes out."""


@pytest.mark.parametrize("model", TIMM_MODELS)
def test_a_model_of_timm_gives_its_features(model: str) -> None:
    torch.manual_seed(0)
    backbone, num_features = build_backbone(f"timm/{model}", image_size=32)
    assert backbone.training
    features = backbone(torch.randn(2, 3, 32, 32))
    assert features.shape == (2, num_features)
    assert features.isfinite().all()


@pytest.mark.parametrize("model", ["test_vit", "test_convnext", "mobilenetv3_small_050"])
def test_a_backbone_of_timm_is_the_network_without_its_classifier(model: str) -> None:
    torch.manual_seed(0)
    backbone, num_features = build_backbone(f"timm/{model}")
    config = timm.models.get_pretrained_cfg(model)
    assert config is not None
    size = config.input_size[-1]
    images = torch.randn(2, 3, size, size)
    whole = timm.create_model(model).eval()
    whole.load_state_dict(backbone.state_dict(), strict=False)
    classifier: nn.Module = getattr(whole, "get_classifier")()  # noqa: B009 - nn.Module's types do not know it
    assert isinstance(classifier, nn.Linear)
    assert classifier.in_features == num_features
    assert_close(classifier(backbone.eval()(images)), whole(images), rtol=0, atol=0)


def test_without_timm_its_models_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError) as caught:
        build_backbone("timm/test_vit")
    assert str(caught.value) == "backbone: timm/test_vit needs timm, which is not installed: pip install timm"
    build_backbone("resnet18")


# the size of the images


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_vit_relpos", "timm/test_maxvit", "vit_b_16", "swin_t"])
def test_a_model_made_for_one_size_is_made_for_the_given_one(name: str) -> None:
    size = 64
    with torch.device("meta"):
        backbone, num_features = build_backbone(name, image_size=size)
        assert backbone(torch.empty(2, 3, size, size)).shape == (2, num_features)


def test_maxvit_is_made_for_the_given_size() -> None:
    with torch.device("meta"):
        backbone, num_features = build_backbone("maxvit_t", image_size=448)
        assert backbone.eval()(torch.empty(1, 3, 448, 448)).shape == (1, num_features)


@pytest.mark.parametrize(
    ("name", "size", "reason"),
    [
        ("vit_b_16", 30, "Input shape indivisible by patch size!"),
        ("maxvit_t", 32, "Input size .* is not divisible by"),
        ("alexnet", 8, "Output size is too small"),
        ("timm/test_vit", 30, "should be divisible by patch size"),
        ("timm/nest_tiny", 56, "blocks don't fit evenly"),
        ("timm/bat_resnext26ts", 32, "AssertionError"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(name: str, size: int, reason: str) -> None:
    with torch.device("meta"), pytest.raises(CCLNetError, match=reason) as caught:
        build_backbone(name, image_size=size)
    message = str(caught.value)
    assert message.startswith(f"backbone: {name} does not take images of {size} pixels (")
    assert "\n" not in message


@pytest.mark.parametrize("words", ["could not create a primitive", "DefaultCPUAllocator: can't allocate memory"])
@pytest.mark.parametrize(
    "where", ["torch.nn.Conv2d.forward", "cclnet.networks.backbones._torchvision_network", "torch.compile"]
)
def test_too_little_memory_is_told_as_that(where: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_little(*_: object) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(where, too_little)
    with pytest.raises(RuntimeError, match=words) as caught:
        compile_backbone(build_backbone("resnet18", image_size=32)[0], torch.device("cpu"))
    assert not isinstance(caught.value, CCLNetError)


# pretrained weights


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing was downloaded before, and nothing can be."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the port where everything is discarded


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "timm/test_vit", "timm/test_vit.r160_in1k"])
def test_weights_that_cannot_be_downloaded_are_said_to_be(name: str) -> None:
    with pytest.raises(CCLNetError) as caught:
        build_backbone(name, "DEFAULT", image_size=32)
    message = str(caught.value)
    assert message.startswith(f"weights: those of {name} cannot be loaded (")
    assert message.endswith("; connect to the network, or train from scratch (weights: null)")
    assert "\n" not in message


def test_pretrained_weights_are_those_of_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(0)
    published = models.shufflenet_v2_x0_5()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / models.ShuffleNet_V2_X0_5_Weights.DEFAULT.url.split("/")[-1]
    file.parent.mkdir(parents=True)
    torch.save(published.state_dict(), file)
    backbone, _ = build_backbone("shufflenet_v2_x0_5", "DEFAULT")
    found = backbone.state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in published.state_dict().items() if name in found)


# weights in a file


def published(name: str) -> nn.Module:
    """A whole network with its classifier, as its library makes it, in evaluation mode."""
    torch.manual_seed(1)
    network = timm.create_model(name[5:]) if library(name) == "timm" else models.get_model(name, weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


FILE_MODELS = ["shufflenet_v2_x0_5", "regnet_y_400mf", "timm/test_efficientnet", "timm/test_convnext", "timm/test_vit"]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", FILE_MODELS)
def test_weights_are_read_from_a_file(name: str, suffix: str, tmp_path: Path) -> None:
    network, file = published(name), tmp_path / f"a{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(network.state_dict(), file)
    backbone, num_features = build_backbone(name, str(file))
    given, found = network.state_dict(), backbone.state_dict()
    assert found.keys() < given.keys()
    assert all(torch.equal(tensor, given[key]) for key, tensor in found.items())
    assert backbone.training
    classifier = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    images = torch.randn(2, 3, *(160,) * 2) if name == "timm/test_vit" else torch.randn(2, 3, 64, 64)
    assert classifier.in_features == num_features
    assert_close(classifier(backbone.eval()(images)), network(images), rtol=1e-5, atol=1e-6)
    assert not any(isinstance(value, dict) and "state_dict" in value for value in vars(backbone).values())


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "timm/test_efficientnet"])
def test_a_file_needs_no_classifier_of_the_same_classes(name: str, tmp_path: Path) -> None:
    network = published(name).state_dict()
    *backbone, _, _ = network
    for classifier in ({}, {key: torch.zeros(7, 3) for key in network if key not in backbone}):
        torch.save({key: network[key] for key in backbone} | classifier, tmp_path / "a.pt")
        found = build_backbone(name, str(tmp_path / "a.pt"))[0].state_dict()
        assert list(found) == backbone
        assert all(torch.equal(found[key], network[key]) for key in backbone)


def test_position_embeddings_of_a_file_are_fitted_to_the_images(tmp_path: Path) -> None:
    network = published("timm/test_vit")
    torch.save(network.state_dict(), tmp_path / "a.pt")
    backbone, num_features = build_backbone("timm/test_vit", str(tmp_path / "a.pt"), image_size=32)
    assert backbone(torch.randn(2, 3, 32, 32)).shape == (2, num_features)
    embeddings = backbone.get_parameter("pos_embed"), network.get_parameter("pos_embed")
    assert [tensor.shape[1] for tensor in embeddings] == [5, 101]
    assert_close(embeddings[0].mean(dim=1), embeddings[1].mean(dim=1), rtol=0, atol=0.02)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_that_normalise_themselves_take_the_constants_instead(name: str, tmp_path: Path) -> None:
    network = models.get_model(name, weights=None, init_weights=False)
    torch.save(network.state_dict(), tmp_path / "a.pt")
    setattr(network, "transform_input", True)  # noqa: B010 - what torchvision sets with its own pretrained weights
    backbone, _ = build_backbone(name, str(tmp_path / "a.pt"))
    assert not any(key.lower().startswith("aux") for key in backbone.state_dict())
    constants = pretrained_constants(name, str(tmp_path / "a.pt"))
    assert constants is not None
    images = torch.rand(2, 3, 96, 96)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in constants)
    imagenet_mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    imagenet_deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    theirs = network.eval()((images - imagenet_mean) / imagenet_deviation)
    assert_close(network.get_submodule("fc")(backbone.eval()((images - mean) / deviation)), theirs)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "timm/test_efficientnet"])
def test_weights_of_another_network_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    own = published(name).state_dict()
    torch.save(published("resnet18").state_dict(), file)
    with pytest.raises(CCLNetError) as caught:
        build_backbone(name, str(file))
    assert str(caught.value).startswith(f"weights: {file} does not fit {name}; ")
    assert " missing: " in str(caught.value) and " unknown: " in str(caught.value)
    assert "\n" not in str(caught.value)
    torch.save(own | {next(iter(own)): torch.zeros(4)}, file)
    with pytest.raises(CCLNetError, match=r"; 1 of another shape: .* \(4, not \d+×3×3×3\)$"):
        fitting_weights(name, file)
    torch.save({key: tensor for key, tensor in own.items() if key != next(iter(own))}, file)
    with pytest.raises(CCLNetError, match=rf"; 1 missing: {next(iter(own))}$"):
        fitting_weights(name, file)


def test_what_normalises_images_belongs_to_the_weights() -> None:
    imagenet, halves = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5,) * 3, (0.5,) * 3)
    assert pretrained_constants("resnet18", None) is None
    for weights in ("DEFAULT", "IMAGENET1K_V1", "a.pt"):
        assert pretrained_constants("resnet18", weights) == imagenet
        assert pretrained_constants("googlenet", weights) == halves
    for weights in ("DEFAULT", "a.safetensors"):
        assert pretrained_constants("timm/tf_efficientnet_lite0", weights) == halves
        assert pretrained_constants("timm/convnext_atto.d2_in1k", weights) == imagenet


# memory format


@pytest.mark.parametrize(
    ("backbone", "image_size", "name", "processor", "expected"),
    [
        ("resnet18", 56, "Intel(R) Xeon(R) Processor", "native", "contiguous"),
        ("resnet18", 56, "Intel(R) Xeon(R) Processor", "portable", "channels_last"),
        ("resnet18", 224, "Intel(R) Xeon(R) Processor", "native", "channels_last"),
        ("resnet18", 56, "AMD EPYC", "native", "channels_last"),
        ("mobilenet_v2", 56, "Intel(R) Xeon(R) Processor", "native", "channels_last"),
    ],
)
def test_the_memory_format_depends_on_network_size_and_processor(
    monkeypatch: pytest.MonkeyPatch, backbone: str, image_size: int, name: str, processor: Any, expected: str
) -> None:
    monkeypatch.setattr("cclnet.networks.backbones.processor_name", lambda: name)
    network, _ = build_backbone(backbone, image_size=image_size)
    assert faster_memory_format(network, image_size, torch.device("cpu"), processor) == expected
    assert faster_memory_format(network, image_size, torch.device("cuda"), processor) == "channels_last"
