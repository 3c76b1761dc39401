"""The fuzzing campaign: good files of every kind, spoilt at random, and what becomes of them.

    make fuzz INPUTS=500000
    python -m tests.campaigns.fuzz [--inputs NUMBER] [--first NUMBER] [--seed TEXT] [TARGET …]

An input may be used, or refused in one line, or in one line and an indented one for each problem. Everything else is a
failure: another exception, a warning, a refusal of more lines, a minute without an end. An input depends on the seed,
its target and its number alone: what is printed of a failure makes it again. It needs no network and no GPU; half a
million inputs take some ten minutes on two cores that do nothing else.
"""

import argparse
import faulthandler
import hashlib
import io
import json
import logging
import multiprocessing
import os
import random
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cclnet.experiments.written import HEAD_COLUMNS, VALIDATION_COLUMNS
from cclnet.system.errors import CCLNetError

SHARES = {
    "images": 0.56, "tables": 0.24, "zips": 0.098, "features": 0.04, "soft-labels": 0.03, "folders": 0.016,
    "params": 0.008, "models": 0.008,
}  # fmt: skip
"""What part of all inputs each target gets, so that none takes much longer than the others."""
BLOCK = 250
"""Inputs that a process works on at a time."""
SLOW = 20.0
"""Seconds of computing after which an input counts as a failure although it ended."""
HANGS = 120.0
"""Seconds after which a process that works on an input is ended, and with it the campaign."""

MOST_PRINTED = 100
"""Failures; the others are counted."""

Chance = random.Random


class Failure(NamedTuple):
    """An input that was neither used nor refused as it should be."""

    target: str
    number: int
    what: str


# spoiling

NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def spoilt_bytes(data: bytes, chance: Chance, others: Sequence[bytes]) -> bytes:
    """Some bytes changed, cut out, doubled, put in, or taken from another file."""
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5, 9))):
        data = chance.choice(BYTE_CHANGES)(data, chance, others)
    return data


def _place(data: bytes, chance: Chance) -> int:
    """Headers are hit as often as all the rest."""
    return chance.randrange(min(len(data), 64) if chance.random() < 0.5 else len(data)) if data else 0


def _bit(data: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    if not data:
        return data
    place = _place(data, chance)
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


def _number(data: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    place, size, order = _place(data, chance), chance.choice((1, 2, 4, 8)), chance.choice(("little", "big"))
    value = chance.choice(NUMBERS) % 2 ** (8 * size)
    return data[:place] + value.to_bytes(size, order) + data[place + size :]


def _noise(data: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    place, size = _place(data, chance), chance.choice((1, 3, 16, 200))
    return data[:place] + chance.randbytes(size) + data[place + size :]


def _cut_out(data: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    place = _place(data, chance)
    return data[:place] + data[place + chance.choice((1, 2, 4, 30, 500)) :]


def _cut_off(data: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    return data[: _place(data, chance)]


def _double(data: bytes, chance: Chance, _: Sequence[bytes]) -> bytes:
    place = _place(data, chance)
    part = data[place : place + chance.choice((1, 4, 50, 1000))]
    return data[:place] + part * chance.choice((2, 2, 5, 50)) + data[place + len(part) :]


def _of_another(data: bytes, chance: Chance, others: Sequence[bytes]) -> bytes:
    other = chance.choice(others)
    return data[: _place(data, chance)] + other[_place(other, chance) :]


BYTE_CHANGES: tuple[Callable[[bytes, Chance, Sequence[bytes]], bytes], ...] = (
    _bit, _bit, _number, _number, _noise, _cut_out, _cut_off, _double, _of_another,
)  # fmt: skip

WORDS = (
    "", " ", "NA", "nan", "inf", "-inf", "null", "~", "true", "no", "010", "1:30", "0x10", "1e999", "-1", "0", "1",
    "1.0", "2", "0.5", "1_000", "9" * 30, "9" * 5000, "MEL", "mel", "train", "é", "e\u0301", "\ufeff", "\x00",
    "\x1b[2J", "\r", "\n", "\t", ",", ";", '"', '""', "'", "\\", "/", "../a", "=cmd|' /C calc'!A0", "<script>",
    "\u202e", "\ud7ff", "&a", "*a", "!!python/object:os.system", "!!binary a", "<<: *a", "{", "}", "[", "]", "- ", ": ",
    "? ", "# ", "%", "@", "`", "|", ">", "2001-01-01", "a" * 300, "[" * 2000, "{a: " * 300, "image", "label", "lesion",
    "subset", "drawn", "timm/resnet18", "cuda:99", "auto",
)  # fmt: skip


def spoilt_text(data: bytes, chance: Chance, others: Sequence[bytes]) -> bytes:
    """Words, lines and columns changed, or, of one in four, bytes."""
    if chance.random() < 0.25:
        return spoilt_bytes(data, chance, others)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        lines = data.decode("utf-8", "replace").split("\n")
        line = chance.randrange(len(lines))
        match chance.randrange(6):
            case 0:
                del lines[line]
            case 1:
                lines.insert(chance.randrange(len(lines) + 1), lines[line])
            case 2:
                other = chance.randrange(len(lines))
                lines[line], lines[other] = lines[other], lines[line]
            case 3:
                lines[line] = " " * chance.randrange(9) + lines[line].strip()
            case _:
                lines[line] = _with_another_word(lines[line], chance)
        data = "\n".join(lines).encode()
    return data


def _with_another_word(line: str, chance: Chance) -> str:
    separator = chance.choice((",", ",", ": ", " ", ""))
    if not separator:
        place = chance.randrange(len(line) + 1)
        return line[:place] + chance.choice(WORDS) + line[place:]
    words = line.split(separator)
    words[chance.randrange(len(words))] = chance.choice(WORDS)
    return separator.join(words)


VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 32, 48, 1.5, 1e-9, 1e300, -0.0, 2**31, 2**63, 10**30, "", "MEL", "é",
    "\x1b[2J", "\ud800",
    "a" * 5000, "resnet18", "timm/resnet18", "timm/hf-hub:a/b", "ccl", "baseline", [], {}, [[]], [1, 2, 3], [0.5] * 3,
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]], {"margin": 2.0}, {"a": 1},
)  # fmt: skip


def spoilt_json(value: Any, chance: Chance) -> Any:
    """A value changed, taken out, doubled or added somewhere in it."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(sorted(value))
        match chance.randrange(8):
            case 0:
                return {name: other for name, other in value.items() if name != key}
            case 1:
                return value | {chance.choice(WORDS): chance.choice(VALUES)}
            case _:
                return value | {key: spoilt_json(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.7:
        place = chance.randrange(len(value))
        match chance.randrange(5):
            case 0:
                return value[:place] + value[place + 1 :]
            case 1:
                return [*value, value[place]]
            case _:
                return [*value[:place], spoilt_json(value[place], chance), *value[place + 1 :]]
    return chance.choice(VALUES)


# targets: what makes a number's input, and what then uses it


@cache
def images() -> list[bytes]:
    """Small images of every format, with colour spaces, profiles, EXIF blocks, pages, frames and alpha channels."""
    import numpy as np
    from PIL import Image, ImageCms

    from tests.images.builders import encoded, noise, png_of_16_bits

    picture = Image.fromarray(noise(13, 9))
    flat = Image.fromarray(np.full((9, 13, 3), 120, np.uint8))
    exif = Image.Exif()
    exif[274], exif[282], exif[270], exif[306] = 6, 72.0, "a picture", "2001:01:01 00:00:00"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    everything = {"exif": exif.tobytes(), "icc_profile": profile}
    files = [
        encoded(image.convert(mode), format, **options)
        for image in (picture, flat)
        for format, modes, options in (
            ("JPEG", ("L", "RGB", "CMYK"), everything),
            ("JPEG", ("RGB",), {"progressive": True, "quality": 30}),
            ("PNG", ("1", "L", "LA", "P", "RGB", "RGBA"), everything),
            ("TIFF", ("1", "L", "P", "RGB", "RGBA", "CMYK"), {}),
            ("TIFF", ("RGB",), {"compression": "tiff_lzw", "tiffinfo": {305: "fuzz"}}),
            ("TIFF", ("RGB", "L"), {"compression": "tiff_adobe_deflate"}),
            ("TIFF", ("1",), {"compression": "group4"}),
            ("TIFF", ("RGB",), {"compression": "jpeg"}),
            ("BMP", ("1", "L", "P", "RGB"), {}),
            ("GIF", ("L", "P"), {}),
            ("WEBP", ("RGB", "RGBA"), everything),
            ("WEBP", ("RGB",), {"lossless": True}),
        )
        for mode in modes
    ]
    files += [
        encoded(picture, format, save_all=True, append_images=[flat])
        for format in ("TIFF", "GIF", "PNG", "WEBP", "MPO")
    ]
    return [*files, png_of_16_bits(), encoded(Image.new("L", (300, 2)), "PNG")]


def use_image(number_of: Chance, _: Path) -> None:
    from cclnet.images.copies import describe
    from cclnet.images.decoding import decode, resize

    data = spoilt_bytes(number_of.choice(images()), number_of, images())
    try:
        describe(resize(decode(data), 16))
    except ValueError as error:
        raise CCLNetError(str(error)) from None


IMAGES = ("a", "b", "c", "d", "007", "NA", "é")
SPLIT = "image,label,lesion,subset\n" + "".join(
    f"{image},{'MEL' if place % 2 else 'NV'},L{place // 2},{'train' if place < 4 else 'validation'}\n"
    for place, image in enumerate(IMAGES)
)
PREDICTIONS = "image,MEL,NV\n007,0.25,0.75\nNA,0.5,0.5\né,0.125,0.875\n"
SCORES = "name,title,group,value,low,high,note\naccuracy,accuracy,higher,0.5,0.25,0.75,\nsoftness_epoch,epoch,,3,,,a\n"
MATRIX = json.dumps(
    [
        {"true_class": one, "soft_class": other, "predicted_class": other, "value": 0.5, "count": 3}
        for one in ("MEL", "NV")
        for other in ("MEL", "NV")
    ]
)
CLASSES = '["MEL", "NV"]\n'
LESIONS = "image,lesion_id,diagnosis_confirm_type\n" + "".join(f"{image},H{image},single\n" for image in IMAGES)
ONE_HOT = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\na,1.0,0.0,0.0,0.0,0.0,0.0,0.0\nb,0,1,0,0,0,0,0\n"
NAMED = "image,label\na,MEL\nb,NV\n"
INDEX = "image,height,width,offset,sha256\n" + "".join(
    f"{image},2,3,{18 * place},{place:064x}\n" for place, image in enumerate(sorted(IMAGES))
)
COLUMNS_OF_HISTORY = ("epoch", "classification_loss", "softness", "learning_rate", "gradient_norm", "frozen")
OPTIONAL_COLUMNS = (*HEAD_COLUMNS, *VALIDATION_COLUMNS)
HISTORY = "".join(
    f"{','.join([*columns, *optional])}\n"
    for columns, optional in (
        (COLUMNS_OF_HISTORY, OPTIONAL_COLUMNS),
        (("1", "2.5", "0.5", "0.1", "3.25", "0"), ["0.5"] * len(OPTIONAL_COLUMNS)),
        (("2", "1.5", "0.5", "0.1", "3.25", "1"), [""] * len(OPTIONAL_COLUMNS)),
    )
)
CLASS_TABLE = (
    "class,images,sensitivity,specificity,precision,f1,auc\nMEL,3,0.5,0.5,0.5,0.5,0.5\nNV,4,0.5,0.5,,0.5,0.5\n"
)
RELIABILITY = "bin,confidence,accuracy,count\n4,0.25,1.0,1\n5,0.3,0.5,10\n"
PROVENANCE = json.dumps([{"name": "a.zip", "source": "drawn", "bytes": 3, "sha256": "0" * 64}] * 2)
CONDITIONS = json.dumps({"threads": 2, "processor": "portable", "versions": {"torch": "2", "numpy": "2"}})
SIMILARITY = json.dumps(
    {
        "classes": ["MEL", "NV"],
        "pairs": [{"a": "MEL", "b": "NV", "nearest": [["a", "b"]], "typical_a": ["a"], "typical_b": ["b"], "low": 0.5}],
        "similarity": [[0.5, 0.25], [0.25, 0.5]],
    }
)
TEXTS = {
    "history.csv": HISTORY, "class_table.csv": CLASS_TABLE, "reliability.csv": RELIABILITY,
    "provenance.json": PROVENANCE, "conditions.json": CONDITIONS, "split.csv": SPLIT, "predictions.csv": PREDICTIONS,
    "scores.csv": SCORES, "soft_labels.json": MATRIX, "confusion.json": MATRIX, "classes.json": CLASSES,
    "lesions.csv": LESIONS, "one_hot.csv": ONE_HOT, "named.csv": NAMED, "images.csv": INDEX,
    "similarity.json": SIMILARITY,
}  # fmt: skip


@cache
def tables() -> dict[str, bytes]:
    """Every table and record, and the array of pixels, by the name of its file."""
    import numpy as np

    pixels = io.BytesIO()
    np.save(pixels, np.zeros(18 * len(IMAGES), np.uint8))
    digest, index = (hashlib.sha256(data).digest() for data in (pixels.getvalue(), INDEX.encode()))
    digests = {"pixels": hashlib.sha256(digest).hexdigest(), "index": index.hex()}  # of the digests of its one block
    record = json.dumps(digests | {"identical": [["a", "b"]], "alike": []})
    texts = {name: text.encode() for name, text in TEXTS.items()}
    return texts | {"images.json": record.encode(), "images.npy": pixels.getvalue()}


def use_table(number_of: Chance, folder: Path) -> None:
    from cclnet.dataset.sample import was_drawn
    from cclnet.dataset.splits import leakage, read_class_names, read_split
    from cclnet.dataset.tables import labels_in, lesions_in, require_none
    from cclnet.experiments import written
    from cclnet.experiments.run import read_predictions
    from cclnet.images.cache import ImageCache
    from cclnet.metrics.matrices import read_confusion, read_soft_labels
    from cclnet.metrics.score_table import read_scores

    def open_cache(path: Path) -> Any:
        return ImageCache.open(path.with_name("images.npy"), path.with_name("images.csv"))[0]

    readers: dict[str, Callable[[Path], Any]] = {
        "history.csv": written.read_history,
        "class_table.csv": written.read_class_table,
        "reliability.csv": written.read_reliability,
        "provenance.json": lambda path: (written.read_provenance(path), was_drawn(path)),
        "conditions.json": written.read_conditions,
        "similarity.json": lambda path: written.read_similarity(path, ["MEL", "NV"]),
        "split.csv": lambda path: leakage(read_split(path), ["MEL", "NV"]),
        "predictions.csv": lambda path: read_predictions("a", path, path.with_name("split.csv")).confusion,
        "scores.csv": read_scores,
        "soft_labels.json": read_soft_labels,
        "confusion.json": read_confusion,
        "classes.json": read_class_names,
        "lesions.csv": lambda path: require_none(lesions_in(path)[1]),
        "one_hot.csv": lambda path: require_none(labels_in(path)[2]),
        "named.csv": lambda path: require_none(labels_in(path)[2]),
        **dict.fromkeys(("images.csv", "images.json", "images.npy"), open_cache),
    }
    for name, data in tables().items():
        if not (folder / name).exists():
            (folder / name).write_bytes(data)
    name = number_of.choice(sorted(tables()))
    good, path = tables()[name], folder / name
    spoils = spoilt_bytes if path.suffix == ".npy" else spoilt_text
    path.write_bytes(spoils(good, number_of, list(tables().values())))
    try:
        readers[name](path)
    finally:
        path.write_bytes(good)


@cache
def zips() -> list[bytes]:
    """Zips of images and of a table, stored and compressed in every way."""
    from PIL import Image

    from tests.images.builders import encoded, noise

    picture = encoded(Image.fromarray(noise(7, 5)), "PNG")
    files = []
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        for members in ({f"Input/{image}.png": picture for image in IMAGES}, {"Truth/labels.csv": ONE_HOT.encode()}):
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w", compression) as archive:
                for name, data in members.items():
                    archive.writestr(name, data)
                archive.comment = b"made up"
            files.append(file.getvalue())
    return files


def use_zip(number_of: Chance, folder: Path) -> None:
    from cclnet.dataset.archives import damaged_members, zip_directory
    from cclnet.dataset.tables import image_members, read_classes
    from cclnet.images.decoding import decode
    from cclnet.images.reading import map_members
    from cclnet.inference.pictures import pictures_in
    from cclnet.system.errors import DataError
    from cclnet.system.progress import silent

    path = folder / "a.zip"
    path.write_bytes(spoilt_bytes(number_of.choice(zips()), number_of, zips()))
    pictures_in([path])
    members, problems = zip_directory(path, path.name)
    if not problems:
        problems = damaged_members(path, path.name, silent)
    if any(member.filename.endswith(".csv") for member in members):
        read_classes(path)
    results = list(map_members(path, list(image_members(path).values()), decode, 2))
    if problems or any(isinstance(result, ValueError) for result in results):
        raise DataError("some members cannot be used:", problems)


FOLDER = {
    "cat/1.png": b"", "cat/2.png": b"", "dog/1.png": b"", "dog/2.png": b"",
    "labels.csv": b"image,label,group\ncat/1.png,cat,p1\ncat/2.png,cat,p1\ndog/1.png,dog,p2\ndog/2.png,dog,p3\n",
    "HAM10000_metadata": b"lesion_id,image_id,dx\nHAM_1,1,nv\nHAM_2,2,mel\n",
    "metadata.csv": b"isic_id,diagnosis,patient_id\n1,nevus,IP_1\n2,melanoma,IP_2\n",
}  # fmt: skip


def use_folder(number_of: Chance, folder: Path) -> None:
    """A folder of images with one of several tables, all of them spoilt by chance."""
    from cclnet.dataset.checks import check_dataset
    from cclnet.system.errors import DataError

    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name)
        table = number_of.choice([path for path in FOLDER if "/" not in path])
        for path, data in FOLDER.items():
            if "/" not in path and path != table:
                continue
            spoils = spoilt_text if path == table else spoilt_bytes
            content = data or number_of.choice(images())
            place = root / (path if number_of.random() < 0.8 else path.replace("cat", number_of.choice(PARTS)))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(
                spoils(content, number_of, list(FOLDER.values())[4:]) if number_of.random() < 0.6 else content
            )
        findings = check_dataset(str(root))
        json.dumps(findings.as_dict(), allow_nan=False)
        if findings.problems:
            raise DataError("it cannot be used:", findings.problems)


PARTS = ("train", "val", "cat/a", "part_1", ".hidden", "e\u0301", "a:b", "dog", "cat\u202e", "a" * 100)


@cache
def params_text() -> bytes:
    """The project's params without comments: most of the time goes into their parsing."""
    text = (Path(__file__).parents[2] / "params.yaml").read_text(encoding="utf-8")
    lines = (line.split(" #")[0].rstrip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#")).encode()


def use_params(number_of: Chance, folder: Path) -> None:
    from cclnet.networks.catalogue import name_problems
    from cclnet.params import Params, TrainParams

    path = folder / "params.yaml"
    if number_of.random() < 0.5:
        path.write_bytes(spoilt_text(params_text(), number_of, [params_text(), MATRIX.encode()]))
    else:
        values = spoilt_json(yaml.safe_load(params_text()), number_of)
        path.write_bytes(yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "surrogatepass"))
    params = Params.load(path, name_problems)
    params.stage(TrainParams)
    assert all(0 < epoch < params.block.epochs for epoch in params.block.milestone_epochs)


@cache
def model_file() -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The description and the tensors of a small model, and its file's bytes."""
    from dataclasses import asdict

    import torch

    from cclnet.networks.model import build_model
    from cclnet.networks.model_file import save_model
    from tests.networks.builders import BACKBONE, description

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = build_model(BACKBONE, None, 32, 3, with_head=True)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder, "model"), model, description())
        data = Path(folder, "model").read_bytes()
    tensors = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, torch.Tensor)}
    return asdict(description()), tensors, data


def use_model(number_of: Chance, folder: Path) -> None:
    """A file with some bytes changed; or one whose description or tensors are changed, and whose digest is right."""
    import torch
    from safetensors.torch import save

    from cclnet.networks.model import load_model
    from cclnet.networks.model_file import _DIGEST, _METADATA_KEY, _digest

    values, tensors, data = model_file()
    path = folder / "model.safetensors"
    if number_of.random() < 0.3:
        path.write_bytes(spoilt_bytes(data, number_of, [data]))
    else:
        if number_of.random() < 0.15:
            name = number_of.choice(sorted(tensors))
            tensors = tensors | {
                name: torch.full_like(tensors[name].float(), number_of.choice((0.0, 1e38, float("nan"))))
            }
        for _ in range(number_of.choice((1, 1, 2, 4))):
            values = spoilt_json(values, number_of)
        digest = _digest(values, tensors) if isinstance(values, dict) else ""
        metadata = json.dumps(values | {_DIGEST: digest} if isinstance(values, dict) else values)
        path.write_bytes(save(tensors, metadata={_METADATA_KEY: metadata}))
    model, described = load_model(path)
    with torch.inference_mode():
        model(torch.zeros(1, 3, described.crop, described.crop))


FEATURES_TABLE = "label,group,image\n" + "".join(f"{label},p{row // 2},{row}\n" for row, label in enumerate("abc" * 4))
SOFT_LABELS = "label,MEL,NV,BCC\nMEL,0.75,0.25,0\nNV,3,9,1\nBCC,1e-3,0,1\n"


@cache
def features_files() -> dict[str, bytes]:
    """Features of twelve images as an array, the arrays of their names, and a table of these."""
    import numpy as np

    values = np.random.default_rng(0).normal(size=(12, 3))
    names = {"labels": list("abc" * 4), "groups": [f"p{row // 2}" for row in range(12)], "images": list(range(12))}
    arrays = {"features": values, "features of halves": values.astype(np.float16)}
    arrays |= {name: np.array(column) for name, column in names.items()}
    files = {}
    for name, array in arrays.items():
        file = io.BytesIO()
        np.save(file, array)
        files[name] = file.getvalue()
    return files | {"table": FEATURES_TABLE.encode()}


def use_features(number_of: Chance, folder: Path) -> None:
    """An array and a table of its labels; or the arrays zipped, the whole spoilt, or some of the arrays."""
    from cclnet.inference.features import read_features
    from cclnet.metrics.similarity import ClassSimilarity

    files = features_files()
    arrays = {name: files[name] for name in ("features", "labels", "groups", "images") if number_of.random() < 0.95}
    if number_of.random() < 0.1 and "features" in arrays:
        arrays["features"] = files["features of halves"]

    def spoilt_now_and_then(data: bytes) -> bytes:
        return spoilt_bytes(data, number_of, list(files.values())) if number_of.random() < 0.4 else data

    table = folder / "names.csv"
    if number_of.random() < 0.4:
        path = folder / "features.npy"
        path.write_bytes(spoilt_now_and_then(files["features"]))
        table.write_bytes(spoilt_text(files["table"], number_of, list(files.values())))
    else:
        path = folder / "features.npz"
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", number_of.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
            for name, data in arrays.items():
                archive.writestr(f"{name}.npy", spoilt_now_and_then(data))
        path.write_bytes(spoilt_now_and_then(file.getvalue()))
    found = read_features(path, table if path.suffix == ".npy" else None)
    similarity = ClassSimilarity("class_means", resamples=20, shuffles=2)
    similarity.fit(found.features, found.labels, found.groups)
    json.dumps(similarity.as_dict(), allow_nan=False)


def use_soft_labels(number_of: Chance, folder: Path) -> None:
    import numpy as np

    from cclnet.metrics.matrices import read_soft_label_table

    path = folder / "soft_labels.csv"
    path.write_bytes(spoilt_text(SOFT_LABELS.encode(), number_of, [SOFT_LABELS.encode(), ONE_HOT.encode()]))
    table = read_soft_label_table(path, number_of.choice((None, ["MEL", "NV", "BCC"])))
    np.testing.assert_allclose(table.sum(axis=1), 1)


TARGETS: dict[str, Callable[[Chance, Path], None]] = {
    "images": use_image,
    "tables": use_table,
    "zips": use_zip,
    "features": use_features,
    "soft-labels": use_soft_labels,
    "folders": use_folder,
    "params": use_params,
    "models": use_model,
}


# judging


def outcome(use: Callable[[Chance, Path], None], chance: Chance, folder: Path) -> tuple[str, str]:
    """``used``, ``refused`` or ``failed``, and how it failed."""
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            use(chance, folder)
            result, problem = "used", ""
        except CCLNetError as error:
            result, problem = "refused", refusal_problem(str(error))
        except Exception as error:
            result, problem = "failed", f"{type(error).__name__}: {error}"
    seconds = time.process_time() - begun
    problem = problem or (f"took {seconds:.0f} s" if seconds > SLOW else "")
    return ("failed", problem) if problem else (result, "")


def refusal_problem(text: str) -> str:
    """Why a text is not one line with an indented one for each problem below it, empty if it is."""
    first, *others = text.split("\n")
    if not first.strip() or any(not line.startswith("  ") or not line.strip() for line in others):
        return f"no refusal of one line: {text[:300]!r}"
    return ""


def run_block(target: str, seed: str, first: int, count: int) -> tuple[Counter[str], list[Failure]]:
    """Use the inputs of some numbers; gives how many had which outcome, and the failures."""
    logging.disable(logging.WARNING)
    stderr = _silence_libraries()
    counts: Counter[str] = Counter()
    failures = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for number in range(first, first + count):
            faulthandler.dump_traceback_later(HANGS, exit=True, file=stderr)
            chance = random.Random(f"{seed}/{target}/{number}")  # noqa: S311
            result, problem = outcome(TARGETS[target], chance, Path(folder))
            counts[result] += 1
            if problem:
                failures.append(Failure(target, number, problem))
        faulthandler.cancel_dump_traceback_later()
    return counts, failures


def _silence_libraries() -> int:
    """Send what libraries print to standard error to the null device; gives where it went before."""
    global _stderr
    if _stderr is None:
        _stderr = os.dup(2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return _stderr


_stderr: int | None = None


def campaign(
    targets: Sequence[str], inputs: int, first: int, seed: str, processes: int
) -> tuple[dict[str, Counter[str]], list[Failure]]:
    """Use so many inputs, divided among the targets; gives the outcomes of each target and all failures."""
    whole = sum(SHARES[target] for target in targets)
    numbers = {target: max(1, round(inputs * SHARES[target] / whole)) for target in targets}
    blocks = [
        (target, seed, first + start, min(BLOCK, number - start))
        for target, number in numbers.items()
        for start in range(0, number, BLOCK)
    ]
    counts: dict[str, Counter[str]] = {target: Counter() for target in targets}
    failures: list[Failure] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        tasks = [(block[0], pool.submit(run_block, *block)) for block in blocks]
        for target, task in tasks:
            counted, failed = task.result()
            counts[target] += counted
            failures += failed
    return counts, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all, or some of: {', '.join(TARGETS)}")
    parser.add_argument("--inputs", type=int, default=20_000, help="how many, divided among the targets")
    parser.add_argument("--first", type=int, default=0, help="the number of each target's first input")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no target is called {', '.join(sorted(unknown))}")
    begun = time.monotonic()
    counts, failures = campaign(
        options.targets or list(TARGETS), options.inputs, options.first, options.seed, options.processes
    )
    for target, counted in counts.items():
        print(f"{target}: {counted.total():,} inputs, {counted['used']:,} used, {counted['refused']:,} refused")
    for target, number, what in failures[:MOST_PRINTED]:
        print(f"{target} {number} (--first {number} --inputs 1 {target}): {what[:500]}")
    total = sum(counted.total() for counted in counts.values())
    print(f"{len(failures):,} of {total:,} inputs failed; {time.monotonic() - begun:.0f} s")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
