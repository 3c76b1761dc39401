"""Any torchvision classification model as a backbone that gives one feature vector per image."""

from torch import nn
from torchvision import models

from cclnet.errors import CCLNetError


def build_backbone(name: str, weights: str | None = None) -> tuple[nn.Module, int]:
    """A network without its last linear layer, and the number of features n1 that it gives for an image.

    What stands between the pooling and that last layer in the original (MobileNetV2's dropout, say) stays a part of
    the backbone.

    Args:
        name: a classification model of torchvision (``resnet18``, ``mobilenet_v2``, ``efficientnet_b0``, …).
        weights: None to train from scratch, or the name of pretrained weights (``DEFAULT``, ``IMAGENET1K_V1``).

    Raises:
        CCLNetError: the model is unknown, or its classifier is not one linear layer on a feature vector.
    """
    if name not in classification_models():
        raise CCLNetError(f"backbone: torchvision has no classification model '{name}'")
    try:
        network = models.get_model(name, weights=weights, **_ARGUMENTS.get(name, {}))
    except (KeyError, ValueError) as error:
        raise CCLNetError(f"weights: torchvision has no weights '{weights}' for {name}: {error}") from None
    linear_layers = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear_layers or linear_layers[-1][1].out_features != _IMAGENET_CLASSES:
        raise CCLNetError(f"backbone: {name} does not end in a linear layer, so the head has no features to work on")
    path, classifier = linear_layers[-1]
    network.set_submodule(path, nn.Identity())
    return network, classifier.in_features


def classification_models() -> list[str]:
    """The names that ``build_backbone`` knows, sorted."""
    return models.list_models(module=models)


def weight_names(name: str) -> list[str]:
    """The pretrained weights that torchvision offers for a model, ``DEFAULT`` among them."""
    return list(models.get_model_weights(name).__members__)


_IMAGENET_CLASSES = 1000

# without these, two old models answer with a tuple of the main and the auxiliary classifiers' outputs in training
_ARGUMENTS: dict[str, dict[str, bool]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
