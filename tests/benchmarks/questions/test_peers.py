"""The peers' network."""

import torch
from torchvision.models import get_model

from cclnet.dataset.isic import CLASSES
from cclnet.networks.backbones import build_backbone
from cclnet.networks.model import CCLNet


def test_the_peers_train_the_same_network():
    def parameters(model: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    ours = CCLNet(*build_backbone("resnet18"), num_classes=len(CLASSES))
    assert parameters(ours) == parameters(get_model("resnet18", num_classes=len(CLASSES)))
