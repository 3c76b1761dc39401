"""Commands run in this process, and what they are given."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cclnet.__main__ import main
from cclnet.dataset.isic import CLASSES, GROUND_TRUTH_ZIP, INPUT_ZIP, LESION_TABLE
from cclnet.inference.onnx import onnxruntime_probabilities
from cclnet.networks.model import build_model
from cclnet.networks.model_file import save_model
from tests.cli.builders import CONTENTS, LABELS, MODEL, PICTURE
from tests.dataset.builders import HEADER, row


class Ended(NamedTuple):
    """How a command ended, and what it printed."""

    status: object
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run a command in this process."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # NumPy is loaded already: too late to set it

    def run(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Ended(ended.value.code, printed.out, printed.err)

    return run


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A dataset without a fault: an image of each class, two of them of one lesion."""
    folder = tmp_path / "good"
    folder.mkdir()
    images = [f"ISIC_{number}" for number in range(len(CLASSES))]
    with zipfile.ZipFile(folder / INPUT_ZIP, "w") as archive:
        for image in images:
            archive.writestr(f"{image}.jpg", PICTURE)
    rows = [row(image, label) for image, label in zip(images, CLASSES, strict=True)]
    with zipfile.ZipFile(folder / GROUND_TRUTH_ZIP, "w") as archive:
        archive.writestr("labels.csv", "\n".join([HEADER, *rows]))
    lesions = [f"{image},HAM_{max(number, 1)}" for number, image in enumerate(images)]
    (folder / LESION_TABLE).write_text("\n".join(["image,lesion_id", *lesions]), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def content_of_model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("model") / "model"
    save_model(file, build_model(MODEL.backbone, None, MODEL.crop, len(MODEL.classes), with_head=True), MODEL)
    return file.read_bytes()


@pytest.fixture
def model(tmp_path: Path, content_of_model: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, in the working folder with ``in.zip``, four images in a folder of their own there, and their labels."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").write_bytes(content_of_model)
    with zipfile.ZipFile("in.zip", "w") as archive:
        for image, data in CONTENTS.items():
            archive.writestr(f"Input/{image}.jpg", data)
    rows = [",".join([image, *(str(int(name == label)) for name in MODEL.classes)]) for image, label in LABELS.items()]
    Path("truth.csv").write_text("\n".join([",".join(["image", *MODEL.classes]), *rows]), encoding="utf-8")
    lesions = [f"{image},HAM_{number // 2}" for number, image in enumerate(CONTENTS)]
    Path("lesions.csv").write_text("\n".join(["image,lesion_id", *lesions]), encoding="utf-8")
    return tmp_path / "model"


@pytest.fixture
def computed_by_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets the number of images of each batch that onnxruntime computes."""
    sizes = []

    def counting(*arguments: Any) -> Callable[[torch.Tensor], NDArray[np.float64]]:
        compute = onnxruntime_probabilities(*arguments)

        def count(inputs: torch.Tensor) -> NDArray[np.float64]:
            sizes.append(len(inputs))
            return compute(inputs)

        return count

    monkeypatch.setattr("cclnet.inference.prediction.onnxruntime_probabilities", counting)
    return sizes
