import torch
from torch import nn
from torch.testing import assert_close

from cclnet import CCLHead, CCLNet

NUM_FEATURES, K = 6, 7


def small_model(with_head: bool = True) -> CCLNet:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, NUM_FEATURES), nn.BatchNorm1d(NUM_FEATURES))
    head = CCLHead(NUM_FEATURES, K, hidden_dim=8, embedding_dim=5) if with_head else None
    return CCLNet(backbone, NUM_FEATURES, K, head)


def test_logits_are_the_classifier_on_the_features() -> None:
    model = small_model().eval()
    images = torch.randn(5, 3, 4, 4)
    weight, bias = model.classifier.weight, model.classifier.bias
    assert_close(model(images), model.backbone(images) @ weight.T + bias)
    assert model(images).shape == (5, K)


def test_features_and_logits_come_from_one_forward() -> None:
    model = small_model()
    calls: list[object] = []
    model.backbone.register_forward_hook(lambda *arguments: calls.append(arguments))
    images = torch.randn(5, 3, 4, 4)
    features, logits = model(images, with_features=True)
    assert len(calls) == 1
    assert features.shape == (5, NUM_FEATURES)
    assert torch.equal(logits, model.classifier(features))
    model.eval()
    assert torch.equal(model(images), model(images, with_features=True)[1])


def test_prediction_does_not_use_the_head() -> None:
    model = small_model().eval()
    images = torch.randn(5, 3, 4, 4)
    before = model(images)
    assert model.head is not None
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.fill_(float("nan"))
    assert torch.equal(model(images), before)
    model.head = None
    assert torch.equal(model(images), before)


def test_parameters_fall_into_two_groups_without_overlap() -> None:
    model = small_model()
    assert model.head is not None
    classifying = {id(parameter) for parameter in model.classifying_parameters()}
    head = {id(parameter) for parameter in model.head.parameters()}
    assert not classifying & head
    assert classifying | head == {id(parameter) for parameter in model.parameters()}
    assert len(model.classifying_parameters()) == len(classifying)


def test_without_head_all_parameters_classify() -> None:
    model = small_model(with_head=False)
    assert model.head is None
    assert {*map(id, model.classifying_parameters())} == {*map(id, model.parameters())}
    assert not any(name.startswith("head") for name in model.state_dict())
