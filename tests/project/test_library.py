"""The example in the README and the page of the library: their code runs, and nothing public is missing or misspelt."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.optim import SGD
from torch.testing import assert_close

import cclnet
from cclnet import CCLHead, CCLNet, build_backbone, ccl
from cclnet.ccl import classification_loss
from cclnet.images.augmentation import to_network
from cclnet.images.decoding import resize
from cclnet.inference.onnx import to_onnx
from cclnet.networks.model import build_model
from cclnet.networks.model_file import save_model
from tests.networks.builders import description

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
PAGE = (PROJECT / "docs" / "reference" / "library.md").read_text(encoding="utf-8")

IMAGES, LABELS = torch.randn(14, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(14) % 7


def python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def run(code: str, **names: Any) -> dict[str, Any]:
    """All names after the code, which nothing but these names is defined for."""
    exec(code, names)  # noqa: S102 - the project's own pages
    return names


# the README


def run_readme(steps: int) -> dict[str, Any]:
    """So many steps in the first epoch; after it the batches are used up, and p̄ drops no more."""
    (loop,) = python_blocks(README)
    torch.manual_seed(0)
    return run(loop, batches=iter([(IMAGES, LABELS)] * steps))


def test_the_readme_s_loop_is_short():
    (loop,) = python_blocks(README)
    assert len([line for line in loop.splitlines() if line]) <= 15


def test_the_readme_s_loop_trains_and_freezes():
    after = run_readme(2)
    assert after["model"](IMAGES).shape == (14, 7)
    convergence, head = after["criterion"].freezing.convergence, after["criterion"].head
    assert (convergence.epoch, convergence.best_epoch, convergence.converged_epoch) == (200, 1, 11)
    assert head.frozen


def test_the_readme_s_step_is_that_of_algorithm_1():
    after = run_readme(1)
    torch.manual_seed(0)
    backbone, num_features = build_backbone("resnet18")
    classifier, head = nn.Linear(num_features, 7), CCLHead(num_features, 7)
    features = backbone(IMAGES)
    loss = classification_loss(classifier(features), LABELS, head.soft_labels())
    loss.backward()
    SGD([*backbone.parameters(), *classifier.parameters()], lr=0.1, momentum=0.9).step()
    assert all(parameter.grad is None for parameter in head.parameters())
    head.loss(features.detach(), LABELS).backward()
    SGD(head.parameters(), lr=0.0005, momentum=0.9).step()
    assert_close(after["model"].backbone.state_dict(), backbone.state_dict(), rtol=0, atol=0)
    assert_close(after["model"].classifier.state_dict(), classifier.state_dict(), rtol=0, atol=0)
    head.freeze_dictionary()
    assert_close(dict(after["criterion"].head.state_dict()), dict(head.state_dict()), rtol=0, atol=0)


# the page


@pytest.fixture(scope="module")
def exported() -> CCLNet:
    torch.manual_seed(0)
    return build_model("timm/test_vit", None, 32, 3, with_head=True).eval()


@pytest.fixture(scope="module")
def after_page(exported: CCLNet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the page's blocks leave behind, in a folder with the files that the last ones read."""
    folder = tmp_path_factory.mktemp("page")
    described = replace(description(), backbone="timm/test_vit", short_side=37)
    save_model(folder / "model.safetensors", exported, described)
    (folder / "model.onnx").write_bytes(to_onnx(exported, described, with_preprocessing=True).content)
    pixels = np.random.default_rng(0).integers(256, size=(60, 91, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "lesion.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.manual_seed(0)
        yield run("\n".join(python_blocks(PAGE)))


def test_the_page_s_code_gives_what_it_says(after_page: dict[str, Any]):
    assert after_page["target"].shape == (14, 7)
    assert after_page["weights"].tolist() == [1.0] * 7
    assert after_page["intervals"]["accuracy"].estimate == pytest.approx(after_page["scores"]["accuracy"])
    assert after_page["convergence"].epoch == 5


def test_the_page_s_onnxruntime_sees_what_the_pipeline_sees(after_page: dict[str, Any], exported: CCLNet):
    resized = resize(Image.open("lesion.jpg"), short_side=37)
    assert resized.shape == (37, 56, 3)
    crop = torch.from_numpy(resized[2:34, 12:44].copy())  # 2.5 and 12 from the edges; half goes to even
    with torch.inference_mode():
        expected = exported(to_network(crop[None])).softmax(dim=1).numpy()
    np.testing.assert_allclose(after_page["probabilities"], expected, atol=1e-4)
    np.testing.assert_allclose(after_page["prediction"], expected, atol=1e-6)
    assert after_page["best"] == ["MEL", "NV", "BCC"][expected.argmax()]


def test_completion_shows_the_public_names_and_nothing_that_the_package_imports():
    shown = {name for name in dir(cclnet) if not name.startswith("_")}
    modules = {name for name in shown if inspect.ismodule(getattr(cclnet, name))}
    assert shown - modules == set(cclnet.__all__) - {"__version__"}
    assert all(module.startswith("cclnet.") for module in (getattr(cclnet, name).__name__ for name in modules))


def public_of_ccl() -> list[str]:
    own = [name for name, value in vars(ccl).items() if getattr(value, "__module__", "") == ccl.__name__]
    return [name for name in own if not name.startswith("_")]


def methods_of(value: Any) -> list[Any]:
    """Its public methods but those of every module, such as ``get_extra_state``."""
    of_every_module = set(dir(nn.Module)) - {"forward"}
    own = {key: method for key, method in vars(value).items() if inspect.isfunction(method)}
    return [method for key, method in own.items() if not key.startswith("_") and key not in of_every_module]


@pytest.mark.parametrize("name", sorted({*public_of_ccl(), *cclnet.__all__} - {"__version__"}))
def test_every_public_name_is_explained(name: str):
    value = getattr(ccl, name, None) or getattr(cclnet, name)
    methods = methods_of(value)
    for documented in [value, *methods]:
        assert inspect.getdoc(documented)
    assert re.search(rf"`{name}\b", PAGE)
    assert all(f"`.{method.__name__}" in PAGE for method in methods)


def signatures() -> list[tuple[str, str]]:
    """Names and arguments of the page's tables; a table of members names their class in its head."""
    found, owner = [], ""
    for head, name, arguments in re.findall(r"^\| (?:member of `(\w+)`|`([\w.]+)\((.*?)\)`)", PAGE, re.MULTILINE):
        if head:
            owner = head
        elif name.startswith("."):
            found.append((f"{owner}{name}", arguments))
        else:
            found.append((name, arguments))
    return found


SIGNATURES = signatures()


def named(name: str) -> Any:
    if name.startswith("cclnet."):
        module, function = name.rsplit(".", 1)
        return getattr(import_module(module), function)
    name, _, method = name.partition(".")
    owner: ModuleType = cclnet if name in cclnet.__all__ else ccl
    return getattr(getattr(owner, name), method) if method else getattr(owner, name)


@pytest.mark.parametrize(("name", "arguments"), SIGNATURES)
def test_signatures_are_those_of_the_code(name: str, arguments: str):
    parameters = [parameter for parameter in inspect.signature(named(name)).parameters if parameter != "self"]
    written = [argument.split("=")[0] for argument in re.findall(r"[^*, ][^,]*", arguments)]
    assert written == parameters


def test_the_signatures_of_the_page_are_found():
    assert len(SIGNATURES) > 25
