"""The whole network of Fig. 1: a backbone, its classifier and the CCL head."""

from typing import TYPE_CHECKING, Any, Literal, overload

from jaxtyping import Float
from torch import Tensor, nn

from cclnet.ccl import CCLHead

if TYPE_CHECKING:
    from pathlib import Path

    from cclnet.networks.model_description import ModelDescription
    from cclnet.networks.model_file import ModelContents


class CCLNet(nn.Module):
    """A classification network and, optionally, a CCL head on the same features.

    Args:
        backbone: f1, which returns n × n1 features for n images.
        num_features: n1.
        num_classes: K.
        head: the CCL head, or None for a plain classifier. Prediction is the same with and without it.

    Attributes:
        description: what the model file says about a network of ``from_pretrained``; None for any other network.
    """

    def __init__(self, backbone: nn.Module, num_features: int, num_classes: int, head: CCLHead | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(num_features, num_classes)
        self.head = head
        self.description: ModelDescription | None = None

    @staticmethod
    def from_pretrained(source: "str | Path") -> "CCLNet":
        """Load a trained network on the CPU, in evaluation mode; its ``description`` has classes and preprocessing.

        Args:
            source: a model file of the pipeline, or a folder with ``model.safetensors`` or
                ``models/model.safetensors``.

        Raises:
            cclnet.system.errors.CCLNetError: there is no model, or it is damaged or foreign, or needs timm, which is
                not installed.
        """
        from cclnet.networks.model_file import find_model

        model, model.description = load_model(find_model(source))
        return model

    @overload
    def forward(self, images: Tensor, with_features: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, images: Tensor, with_features: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(
        self, images: Float[Tensor, "n c h w"], with_features: bool = False
    ) -> Float[Tensor, "n k"] | tuple[Float[Tensor, "n n1"], Float[Tensor, "n k"]]:
        """The logits of q^cls, which alone determine the prediction: ŷ = argmax q^cls.

        Args:
            images: a minibatch.
            with_features: return ``(features, logits)``, the arguments of ``cclnet.ccl.CCLLoss``. With
                ``DistributedDataParallel`` use this option, because only ``forward`` may be called there.
        """
        features = self.backbone(images)
        logits = self.classifier(features)
        return (features, logits) if with_features else logits

    def features_and_logits(self, images: Float[Tensor, "n c h w"]) -> tuple[Tensor, Tensor]:
        """The features, n × n1, and the logits of q^cls, n × K, in one forward pass: the arguments of ``CCLLoss``."""
        return self(images, with_features=True)

    def classifying_parameters(self) -> list[nn.Parameter]:
        """θ1 and θ_fc, the parameters that L_cls updates (line 6 of Algorithm 1)."""
        return [*self.backbone.parameters(), *self.classifier.parameters()]


def load_model(path: "Path") -> "tuple[CCLNet, ModelDescription]":
    """Rebuild the network of ``model_file.save_model``, on the CPU and in evaluation mode.

    Raises:
        cclnet.system.errors.CCLNetError: the file is missing, damaged, or not such a model, or needs timm, which is not
            installed.
    """
    from cclnet.networks.model_file import model_errors, read_model_file

    with model_errors(path):
        contents = read_model_file(path)
        return rebuild_model(contents), contents.description


def rebuild_model(contents: "ModelContents") -> CCLNet:
    """The network that a model file contains; to be called in ``model_file.model_errors``."""
    description = contents.description
    head = description.head_settings if description.has_head else {}
    num_classes = len(description.classes)
    model = build_model(description.backbone, None, description.crop, num_classes, description.has_head, **head)
    model.load_state_dict(contents.tensors)
    if model.head and description.converged_epoch is not None:
        model.head.freeze_dictionary()
    return model.eval()


def build_model(
    backbone: str, weights: str | None, image_size: int, num_classes: int, with_head: bool, **head: Any
) -> CCLNet:
    """Build a backbone by name with its classifier and, optionally, a CCL head (with the arguments ``head``)."""
    from cclnet.networks.backbones import build_backbone  # here, because the network itself needs no torchvision

    network, num_features = build_backbone(backbone, weights, image_size)
    model = CCLNet(network, num_features, num_classes)
    if with_head:  # initialised last, so that with one seed all methods start from the same backbone and classifier
        model.head = CCLHead(num_features, num_classes, **head)
    return model
