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
        network = models.get_model(name, weights=weights, **(_FROM_SCRATCH.get(name, {}) if weights is None else {}))
    except (KeyError, ValueError) as error:
        raise CCLNetError(f"weights: torchvision has no weights '{weights}' for {name}: {error}") from None
    if getattr(network, "aux_logits", False):  # in training, these would answer beside the features
        setattr(network, "aux_logits", False)  # noqa: B010 - a plain attribute, which nn.Module's types do not know
        for auxiliary in {"AuxLogits", "aux1", "aux2"} & set(dict(network.named_children())):
            setattr(network, auxiliary, None)
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

# they warn that their default will change
_FROM_SCRATCH = {"googlenet": {"init_weights": True}, "inception_v3": {"init_weights": True}}
