import copy
import io
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional

from cclnet.dataset.tables import image_members
from cclnet.images.augmentation import MEAN, STANDARD_DEVIATION
from cclnet.images.cache import ImageCache, build_cache
from cclnet.images.decoding import central_crop, decode, resize
from cclnet.images.subset import Subset
from cclnet.inference import prediction
from cclnet.inference.pictures import Picture, pictures_in
from cclnet.inference.prediction import Predictions, Runtime, predict_pictures
from cclnet.inference.probabilities import predict
from cclnet.networks.model import CCLNet, load_model
from cclnet.networks.model_file import save_model
from cclnet.system.errors import CCLNetError, DataError, MissingPackageError
from tests.dataset.builders import write_zip
from tests.images.builders import SIZES, encoded, noise
from tests.inference.builders import Undecided, trained
from tests.networks.builders import description

CPU = torch.device("cpu")
MODEL = description()
SHORT_SIDE, CROP = MODEL.short_side, MODEL.crop
PICTURES = {f"ISIC_{number}": encoded(Image.fromarray(noise(*size, number))) for number, size in enumerate(SIZES)}


def network() -> CCLNet:
    """A small network to which every pixel and its place matter."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 5, stride=3), nn.ReLU(), nn.Flatten())
    model = CCLNet(backbone, 8 * 10 * 10, len(MODEL.classes)).eval()
    with torch.no_grad():
        model.classifier.weight *= 3
    return model


NETWORK = network()


def in_zip(path: Path, files: dict[str, bytes] = PICTURES) -> list[Picture]:
    write_zip(path, {f"Input/{image}.jpg": data for image, data in files.items()})
    return pictures_in([path])[0]


def in_folder(path: Path, files: dict[str, bytes] = PICTURES) -> list[Picture]:
    path.mkdir()
    for image, data in files.items():
        (path / f"{image}.jpg").write_bytes(data)
    return pictures_in([path])[0]


def predicted(pictures: list[Picture], **options: Any) -> Predictions:
    return predict_pictures(NETWORK, MODEL, pictures, CPU, **options)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cclnet.inference.probabilities.PREDICTION_BATCH", 3)


@pytest.mark.parametrize("put", [in_zip, in_folder])
def test_the_numbers_are_those_of_the_evaluate_stage(tmp_path: Path, put: Callable[[Path], list[Picture]]):
    in_zip(tmp_path / "input.zip")
    members = image_members(tmp_path / "input.zip")
    build_cache(tmp_path / "input.zip", members, SHORT_SIDE, tmp_path / "images.npy", tmp_path / "images.csv", 2)
    cache = ImageCache.open(tmp_path / "images.npy", tmp_path / "images.csv")
    rows = np.arange(len(PICTURES))
    evaluated = predict(NETWORK, Subset(cache, rows, np.zeros_like(rows)), CROP, CPU)

    predictions = predicted(put(tmp_path / "pictures.zip"))
    assert predictions.images == sorted(PICTURES) == cache.images
    assert predictions.problems == []
    np.testing.assert_array_equal(predictions.probabilities, evaluated)
    assert len(np.unique(evaluated.argmax(axis=1))) > 1


@pytest.mark.parametrize("size", [(600, 450), (453, 341), (40, 30)])
def test_a_photograph_is_decoded_as_in_the_resize_stage(tmp_path: Path, size: tuple[int, int]):
    path, stored = tmp_path / "a.jpg", tmp_path / "in.zip"
    path.write_bytes(encoded(Image.fromarray(noise(*size)), "JPEG"))
    write_zip(stored, {"a.jpg": path.read_bytes()})
    build_cache(stored, image_members(stored), 24, tmp_path / "a.npy", tmp_path / "a.csv", threads=1)
    cache, sides = ImageCache.open(tmp_path / "a.npy", tmp_path / "a.csv"), []
    [crop] = prediction.picture_crops([Picture("a", "a", path)], 24, 20, [], [], "images", sides=sides)
    assert np.array_equal(crop, central_crop(cache[0], 20))
    assert sides == [min(size)]


def test_the_numbers_are_those_of_torchvision_s_transforms(tmp_path: Path):
    predictions = predicted(in_folder(tmp_path / "pictures"))
    for image, row in zip(predictions.images, predictions.probabilities, strict=True):
        picture = Image.open(io.BytesIO(PICTURES[image]))
        scale = SHORT_SIDE / min(picture.size)
        resized = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR
        )
        middle = functional.center_crop(functional.to_tensor(resized), [CROP])
        normalised = functional.normalize(middle, list(MEAN), list(STANDARD_DEVIATION))
        with torch.no_grad():
            expected = NETWORK(normalised[None]).softmax(dim=1)[0]
        np.testing.assert_allclose(row, expected, rtol=1e-3)


def test_what_normalises_is_the_model_s_own(tmp_path: Path):
    pictures = in_folder(tmp_path / "pictures")
    described = replace(MODEL, mean=[0.1, 0.5, 0.9], standard_deviation=[0.5, 0.25, 2.0])
    found = predict_pictures(NETWORK, described, pictures, CPU)
    for image, row in zip(found.images, found.probabilities, strict=True):
        middle = central_crop(resize(decode(PICTURES[image]), SHORT_SIDE), CROP) / 255
        normalised = torch.from_numpy((middle - described.mean) / described.standard_deviation).float()
        with torch.no_grad():
            expected = NETWORK(normalised.permute(2, 0, 1)[None]).softmax(dim=1)[0]
        np.testing.assert_allclose(row, expected, rtol=1e-3)
    assert np.abs(found.probabilities - predicted(pictures).probabilities).max() > 0.01


def test_channels_last_changes_rounding_alone(tmp_path: Path):
    pictures = in_folder(tmp_path / "pictures")
    described = replace(MODEL, params={**MODEL.params, "memory_format": "channels_last"})
    found = predict_pictures(copy.deepcopy(NETWORK), described, pictures, CPU)
    np.testing.assert_allclose(found.probabilities, predicted(pictures).probabilities, rtol=1e-4)


def test_the_table_is_the_challenge_s(tmp_path: Path):
    predictions = predicted(in_folder(tmp_path / "pictures"))
    table = predictions.table()
    assert list(table) == ["image", *MODEL.classes]
    assert table["image"].tolist() == predictions.images
    np.testing.assert_array_equal(table[MODEL.classes].to_numpy(), predictions.probabilities)
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1)


def test_what_cannot_be_read_is_named_and_the_rest_predicted(tmp_path: Path):
    expected = predicted(in_folder(tmp_path / "good"))
    large = encoded(Image.fromarray(noise(90, 80)))
    faulty = PICTURES | {"ISIC_1": b"<html>", "ISIC_5": large[:-200], "ISIC_9": b""}
    predictions = predicted(in_folder(tmp_path / "faulty", faulty))
    kept = [expected.images.index(image) for image in predictions.images]
    assert predictions.images == ["ISIC_0", "ISIC_2", "ISIC_3", "ISIC_4", "ISIC_6"]
    np.testing.assert_allclose(predictions.probabilities, expected.probabilities[kept], rtol=1e-4)
    folder = tmp_path / "faulty"
    assert [problem.where for problem in predictions.problems] == [f"{folder}/ISIC_{n}.jpg" for n in (1, 5, 9)]
    assert predictions.problems[0].what == predictions.problems[2].what
    assert predictions.problems[0].what == "cannot be decoded: not in any known image format"
    assert predictions.problems[1].what.startswith("cannot be decoded: image file is truncated")


def test_nothing_that_can_be_read(tmp_path: Path):
    with pytest.raises(DataError, match=r"^no image can be predicted; replace them:") as caught:
        predicted(in_zip(tmp_path / "in.zip", {"b": b"", "a": b""}))
    assert [problem.where for problem in caught.value.problems] == [
        f"{tmp_path}/in.zip: 'Input/{image}.jpg'" for image in ("a", "b")
    ]


def overflowing() -> CCLNet:
    """Anything bright is too much for it."""
    model = copy.deepcopy(NETWORK)
    nn.init.constant_(model.get_submodule("backbone.0").weight, 1e38)  # pyright: ignore[reportArgumentType]
    return model


WHITE, BLACK = (encoded(Image.new("RGB", (48, 48), colour)) for colour in ("white", "black"))


def test_a_picture_of_which_nothing_can_be_computed_is_named_and_no_class_is_given(tmp_path: Path):
    pictures = in_folder(tmp_path / "in", {"a": WHITE, "b": BLACK, "c": b"", "d": BLACK, "e": WHITE})
    predictions = predict_pictures(overflowing(), MODEL, pictures, CPU)
    assert predictions.images == ["b", "d"]
    assert np.isfinite(predictions.probabilities).all()
    assert [(problem.where, problem.what) for problem in predictions.problems] == [
        (f"{tmp_path}/in/c.jpg", "cannot be decoded: not in any known image format"),
        (f"{tmp_path}/in/a.jpg", "gives the network values too large to compute with"),
        (f"{tmp_path}/in/e.jpg", "gives the network values too large to compute with"),
    ]
    with pytest.raises(
        DataError, match=r"^no image can be predicted; train another model:\n.*a.jpg: gives the network"
    ):
        predict_pictures(overflowing(), MODEL, pictures[:1], CPU)


def test_every_picture_is_told_of(tmp_path: Path):
    told = []

    def note(name: str, done: int, total: int, detail: str = "") -> None:
        told.append((name, done, total))

    predicted(in_folder(tmp_path / "in", PICTURES | {"ISIC_1": b""}), report=note)
    assert told == [("images predicted", done, len(PICTURES)) for done in range(1, len(PICTURES) + 1)]


def test_memory_does_not_grow_with_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither with all of them nor, within a batch, with what is cut off: 138 kB of each of these, their crop is 3."""
    sizes = []

    def guess(model: CCLNet, inputs: torch.Tensor) -> NDArray[np.float64]:
        sizes.append(len(inputs))
        return np.zeros((len(inputs), 3))

    monkeypatch.setattr("cclnet.inference.probabilities.PREDICTION_BATCH", 256)
    monkeypatch.setattr(prediction, "class_probabilities", guess)
    narrow = encoded(Image.fromarray(noise(400, 20)))
    pictures = in_folder(tmp_path / "in", {f"ISIC_{number}": narrow for number in range(300)})
    tracemalloc.start()
    predictions = predicted(pictures)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(predictions.images) == 300
    assert sizes == [256, 44]
    assert peak < 2**23


def test_pictures_unlike_the_training_images_are_noted(tmp_path: Path):
    grey, red = (
        {f"{name}{n}": encoded(Image.new("RGB", (60, 50), colour)) for n in range(2)}
        for name, colour in (("grey", (100, 100, 100)), ("red", (200, 100, 100)))
    )
    small = {"small": encoded(Image.new("RGB", (40, 44), (100, 100, 100)))}
    pictures = in_folder(tmp_path / "images", grey | red | small)
    described = replace(MODEL, colour_mean=[100.0] * 3, colour_deviation=[10.0] * 3)
    predictions = predict_pictures(NETWORK, described, pictures, CPU)
    assert predictions.notes == [
        "1 of 5 images were enlarged: their shorter side is below the 48 pixels that the model was trained with",
        "2 of 5 images have another mean colour than the training images, by more than 4 standard deviations, the "
        "first of them red0: do not rely on their predictions",
    ]
    assert predictions.as_dict()["notes"] == predictions.notes
    assert predict_pictures(NETWORK, described, in_folder(tmp_path / "grey", grey), CPU).notes == []
    older = predict_pictures(NETWORK, MODEL, in_folder(tmp_path / "red", red), CPU)
    assert older.notes == []  # the model's file does not say its images' colours


# with onnxruntime


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("backbone", ["resnet18", "timm/test_efficientnet", "timm/test_vit"])
def test_onnxruntime_changes_rounding_alone(tmp_path: Path, backbone: str, layout: str):
    described = replace(MODEL, backbone=backbone, params={**MODEL.params, "memory_format": layout})
    described = replace(described, colour_mean=[100.0] * 3, colour_deviation=[1.0] * 3)
    save_model(tmp_path / "model", trained(backbone, spread=0.5), described)
    pictures = in_folder(tmp_path / "pictures", PICTURES | {"ISIC_3": b""})
    runtimes: list[Runtime] = ["torch", "onnxruntime"]
    expected, found = (
        predict_pictures(*load_model(tmp_path / "model"), pictures, CPU, batch_size=4, runtime=runtime)
        for runtime in runtimes
    )
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=0, atol=1e-5)
    best = found.probabilities.argmax(axis=1)
    np.testing.assert_array_equal(best, expected.probabilities.argmax(axis=1))
    assert len(np.unique(best)) > 1
    assert not np.array_equal(found.probabilities, expected.probabilities)
    assert (found.classes, found.images, found.problems, found.notes) == (
        (expected.classes, expected.images, expected.problems, expected.notes)
    )
    assert len(found.problems) == 1
    assert len(found.notes) == 2
    assert list(found.table()) == list(expected.table())


class Exploding(nn.Module):
    """Features that are infinite for bright images."""

    def forward(self, images: Tensor) -> Tensor:
        return (40 * images.mean(dim=(2, 3))).exp()


def test_of_a_picture_for_which_onnxruntime_computes_no_number_no_class_is_given(tmp_path: Path):
    pictures = in_folder(tmp_path / "in", {"a": WHITE, "b": BLACK})
    torch.manual_seed(0)
    predictions = predict_pictures(CCLNet(Exploding(), 3, 3).eval(), MODEL, pictures, CPU, runtime="onnxruntime")
    assert predictions.images == ["b"]
    assert [tuple(problem) for problem in predictions.problems] == [(f"{tmp_path}/in/a.jpg", prediction.NO_NUMBERS)]


def test_what_onnxruntime_cannot_compute_is_refused_before_a_picture_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    missing = [Picture("a", "a", tmp_path / "missing.png")]

    def refused(model: CCLNet, device: torch.device) -> str:
        with pytest.raises(CCLNetError) as caught:
            predict_pictures(model, MODEL, missing, device, runtime="onnxruntime")
        assert not isinstance(caught.value, DataError)
        return str(caught.value)

    assert refused(NETWORK, torch.device("cuda")) == (
        "device: cuda is set, but onnxruntime computes on the CPU; set device: auto or cpu"
    )
    assert refused(CCLNet(Undecided(), 3, 3).eval(), CPU).startswith(f"torch cannot export {MODEL.backbone} to ONNX: ")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        MissingPackageError, match="needs onnxruntime, which is not installed: pip install onnx onnxrun"
    ):
        predict_pictures(NETWORK, MODEL, missing, CPU, runtime="onnxruntime")
