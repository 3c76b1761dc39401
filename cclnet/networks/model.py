"""The whole network of Fig. 1: a backbone, its classifier and the CCL head."""

from typing import Literal, overload

from jaxtyping import Float
from torch import Tensor, nn

from cclnet.ccl import CCLHead


class CCLNet(nn.Module):
    """A classification network and, optionally, a CCL head on the same features.

    Args:
        backbone: f1, which returns n × n1 features for n images.
        num_features: n1.
        num_classes: K.
        head: the CCL head, or None for a plain classifier. Prediction is the same with and without it.
    """

    def __init__(self, backbone: nn.Module, num_features: int, num_classes: int, head: CCLHead | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(num_features, num_classes)
        self.head = head

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
