import json
import subprocess
import sys
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from scipy.special import softmax
from torch import nn

from cclnet.inference.onnx import TOLERANCE, OnnxModel, onnxruntime_probabilities, to_onnx
from cclnet.inference.probabilities import class_probabilities
from cclnet.networks.model import CCLNet
from cclnet.networks.model_description import ModelDescription
from cclnet.networks.model_file import save_model
from cclnet.system.errors import CCLNetError, MissingPackageError
from tests.inference.builders import CROP, Undecided, trained
from tests.networks.builders import description

MODELS = [("resnet18", False), ("timm/test_efficientnet", True), ("timm/test_vit", False)]


@cache
def exported(backbone: str, with_preprocessing: bool = False) -> tuple[CCLNet, ModelDescription, OnnxModel]:
    """A model, what is known of it, and its file; made once, because an export takes seconds."""
    model, described = trained(backbone), replace(description(), backbone=backbone)
    return model, described, to_onnx(model, described, with_preprocessing)


def small() -> CCLNet:
    """Where it does not matter what is exported."""
    layers = nn.Conv2d(3, 4, 3, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return CCLNet(nn.Sequential(*layers), 4, 3).eval()


def run(content: bytes, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logits and probabilities of an ONNX file."""
    logits, probabilities = onnxruntime.InferenceSession(content).run(["logits", "probabilities"], {"images": images})
    assert isinstance(logits, np.ndarray)
    assert isinstance(probabilities, np.ndarray)
    return logits, probabilities


@pytest.mark.parametrize(("backbone", "with_preprocessing"), MODELS)
def test_the_file_computes_what_torch_does(backbone: str, with_preprocessing: bool):
    model, _, (content, difference) = exported(backbone, with_preprocessing)
    assert 0 <= difference < TOLERANCE
    random = np.random.default_rng(0)
    for number in (1, 3, 8):
        images = random.integers(256, size=(number, CROP, CROP, 3), dtype=np.uint8)
        normalised = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        normalised = normalised.transpose(0, 3, 1, 2).astype(np.float32)
        with torch.no_grad():
            expected = model(torch.from_numpy(normalised)).numpy()
        logits, probabilities = run(content, images if with_preprocessing else normalised)
        assert np.ptp(expected) > 1
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(probabilities, softmax(expected, axis=1), atol=1e-4)


def test_bytes_are_normalised_as_the_model_says():
    model, halves = trained("timm/test_efficientnet"), [0.5, 0.5, 0.5]
    described = replace(description(), backbone="timm/test_efficientnet", mean=halves, standard_deviation=halves)
    content = to_onnx(model, described, with_preprocessing=True).content
    images = np.random.default_rng(1).integers(256, size=(2, CROP, CROP, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = model(torch.from_numpy(images / 127.5 - 1).float().permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(run(content, images)[0], expected, rtol=1e-4, atol=1e-4)


def test_the_file_says_what_it_is_and_holds_no_more_than_it_needs():
    model, described, (content, _) = exported("timm/test_vit")
    session = onnxruntime.InferenceSession(content)
    metadata = session.get_modelmeta().custom_metadata_map
    assert {name: json.loads(value) for name, value in metadata.items()} == asdict(described)
    assert [(put.name, put.shape, put.type) for put in [*session.get_inputs(), *session.get_outputs()]] == [
        ("images", ["n", 3, CROP, CROP], "tensor(float)"),
        ("logits", ["n", 3], "tensor(float)"),
        ("probabilities", ["n", 3], "tensor(float)"),
    ]
    graph = onnx.load_from_string(content).graph
    weights = sum(np.prod(weight.dims) for weight in graph.initializer)
    assert weights < 1.02 * sum(parameter.numel() for parameter in model.classifying_parameters())
    assert not graph.doc_string
    assert not any(node.metadata_props or node.doc_string for node in graph.node)


def test_a_new_process_writes_the_same_bytes_and_one_line(tmp_path: Path):
    model, described, (content, _) = exported("timm/test_vit")
    save_model(tmp_path / "model.safetensors", model, described)
    command = [sys.executable, "-m", "cclnet", "export", "model.safetensors", "--onnx", "model.onnx"]
    environment = {"PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(tmp_path)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("model.onnx: timm/test_vit, differs from torch by ")
    assert ended.stdout.count("\n") == 1
    assert (tmp_path / "model.onnx").read_bytes() == content


@pytest.mark.parametrize("error", [2 * TOLERANCE, float("nan")])
def test_a_file_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch, error: float):
    run = onnxruntime.InferenceSession.run

    def run_wrongly(*arguments: Any) -> list[np.ndarray]:
        return [np.asarray(output) + np.float32(error) for output in run(*arguments)]

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", run_wrongly)
    with pytest.raises(CCLNetError, match=r"mine as ONNX differs from torch by .*; nothing is written"):
        to_onnx(small(), replace(description(), backbone="mine"))


def test_a_network_that_cannot_be_exported_is_refused_in_one_line():
    with pytest.raises(CCLNetError, match=r"^torch cannot export mine to ONNX: ") as caught:
        to_onnx(CCLNet(Undecided(), 3, 3).eval(), replace(description(), backbone="mine"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_without_a_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, package: str):
    monkeypatch.setitem(sys.modules, package, None)
    model = CCLNet(Undecided(), 3, 3)
    with pytest.raises(MissingPackageError) as caught:
        to_onnx(model, description())
    assert str(caught.value) == (
        f"the export to ONNX needs {package}, which is not installed: pip install onnx onnxruntime onnxscript"
    )


# prediction with onnxruntime


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2", "efficientnet_b0", "timm/test_vit"])
def test_onnxruntime_predicts_what_torch_predicts(backbone: str):
    model, described = trained(backbone, spread=0.5), replace(description(), backbone=backbone)
    compute = onnxruntime_probabilities(model, described)
    for number in (1, 5, 8):
        images = torch.randn(number, 3, CROP, CROP, generator=torch.Generator().manual_seed(number))
        found, expected = compute(images), class_probabilities(model, images)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=0, atol=1e-15)
        np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    assert np.ptp(expected, axis=0).min() > 0.02


def test_onnxruntime_has_as_many_threads_as_torch(monkeypatch: pytest.MonkeyPatch):
    threads = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, content: bytes, options: onnxruntime.SessionOptions | None = None, **more: Any) -> None:
            super().__init__(content, options, **more)
            threads.append(self.get_session_options().intra_op_num_threads)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    onnxruntime_probabilities(small(), description())
    assert threads == [0, 3]  # the first only checks the export
