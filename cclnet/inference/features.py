"""Features of labelled images: computed by a network, or read from a file; and the file itself."""

import io
import textwrap
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from cclnet.dataset.tables import class_faults
from cclnet.images.augmentation import IMAGENET, Normalization
from cclnet.inference.labelled import LabelledPictures
from cclnet.inference.pictures import Picture
from cclnet.inference.prediction import picture_crops
from cclnet.inference.probabilities import crops_to_network, prediction_batch
from cclnet.system.errors import CCLNetError, DataError, MissingPackageError, Problem
from cclnet.system.files import file_fault, read_text_table, write_bytes
from cclnet.system.machine import physical_memory
from cclnet.system.names import listed, normalised
from cclnet.system.progress import Report, silent

FEATURE_SUFFIXES = (".npz", ".npy", ".parquet")
LABEL, GROUP, IMAGE = "label", "group", "image"
"""Columns of a table of labels, and of a parquet file beside its features."""
COLUMNS = {LABEL: "labels", GROUP: "groups", IMAGE: "images"}
"""The arrays of an .npz file that hold them."""
ARRAYS = ("features", *COLUMNS.values())
UNKNOWN_GROUP = " "
"""Begins the group of an image whose group is not known; no name in a file begins with a blank."""


@dataclass(frozen=True)
class LabelledFeatures:
    """Features of n images whose classes are known.

    Attributes:
        features: n×d.
        labels: the class of each image.
        groups: what each image is of (patient, lesion); None if unknown.
        images: the id of each image; None if unknown.
        pictures: where each image can be read; None if unknown.
        problems: images that could not be used.
    """

    features: NDArray[np.floating]
    labels: list[str]
    groups: list[str] | None = None
    images: list[str] | None = None
    pictures: list[Picture] | None = None
    problems: list[Problem] = field(default_factory=list)


def picture_features(
    network: nn.Module,
    labelled: LabelledPictures,
    classes: Sequence[str],
    short_side: int,
    size: int,
    device: torch.device,
    normalization: Normalization = IMAGENET,
    layout: torch.memory_format = torch.contiguous_format,
    report: Report = silent,
) -> LabelledFeatures:
    """The features that a network gives for the central crop of each picture.

    Args:
        network: gives n×n1 features for n images; a ``CCLNet``'s ``backbone``, or one of ``build_backbone``.
        labelled: the pictures and their classes.
        classes: the names of the classes.
        short_side: pixels of the shorter side to which a picture is resized.
        size: pixels of a side of its crop.
        device: where to compute.
        normalization: what the network expects.
        layout: the memory format of its input.
        report: called with the number of pictures so far.

    Raises:
        DataError: no picture can be read.
    """
    kept: list[Picture] = []
    problems: list[Problem] = []
    crops = picture_crops(labelled.pictures, short_side, size, kept, problems, "features", report)
    network.eval().to(device=device, memory_format=layout)  # pyright: ignore[reportCallIssue]
    with torch.inference_mode():
        inputs = crops_to_network(crops, prediction_batch(size, device), device, normalization, layout)
        batches = [network(batch).float().cpu().numpy() for batch in inputs]
    if not batches:
        raise DataError("no image can be used; replace them:", problems)
    row_of = {picture: row for row, picture in enumerate(labelled.pictures)}
    rows = [row_of[picture] for picture in kept]
    return LabelledFeatures(
        np.concatenate(batches),
        [str(classes[labelled.labels[row]]) for row in rows],
        None if labelled.lesions is None else [labelled.lesions[row] for row in rows],
        [picture.image for picture in kept],
        kept,
        problems,
    )


def write_features(path: Path, it: LabelledFeatures) -> None:
    """Write ``features``, ``labels`` and, where known, ``groups`` and ``images`` as an ``.npz`` file."""
    arrays: dict[str, NDArray[Any]] = {"features": it.features, "labels": np.array(it.labels, dtype=np.str_)}
    groups = None if it.groups is None else ["" if name.startswith(UNKNOWN_GROUP) else name for name in it.groups]
    for name, values in (("groups", groups), ("images", it.images)):
        if values is not None:
            arrays[name] = np.array(values, dtype=np.str_)
    data = io.BytesIO()
    np.savez(data, **arrays)  # pyright: ignore[reportArgumentType]
    write_bytes(path, data.getvalue())


def read_features(path: Path, table: Path | None = None) -> LabelledFeatures:
    """Read features and labels from a file.

    Args:
        path: ``.npz`` with ``features`` (n×d), ``labels`` (n names or numbers) and perhaps ``groups`` and ``images``;
            ``.npy`` with the features alone; or ``.parquet`` with the columns label, perhaps group and image, and one
            numeric column per dimension.
        table: of an ``.npy`` or ``.parquet`` file, a CSV table with the columns label and perhaps group and image, a
            row for each row of features.

    Raises:
        DataError: the files are not of this form.
        MissingPackageError: what reads parquet is not installed.
        CCLNetError: a file cannot be read.
    """
    if path.suffix.lower() not in FEATURE_SUFFIXES:
        raise DataError(f"{path.name} does not end in one of {', '.join(FEATURE_SUFFIXES)}")
    if fault := file_fault(path, physical_memory()):
        raise CCLNetError(f"{path} cannot be read: it {fault}")
    try:
        match path.suffix.lower():
            case ".npz":
                if table:
                    raise DataError(f"{path.name} holds its labels itself: leave out {table.name}")
                return _from_npz(path)
            case ".npy":
                if not table:
                    raise DataError(f"{path.name} holds no labels: name a CSV table with a column {LABEL}")
                return _labelled(_from_npy(path), read_text_table(table), table.name)
            case _:
                return _from_parquet(path, table)
    except OSError as error:
        raise CCLNetError(f"{path} cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise CCLNetError(f"{path} holds more than fits into this machine's memory") from None


def _from_npz(path: Path) -> LabelledFeatures:
    try:
        with path.open("rb") as opened, zipfile.ZipFile(opened) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > physical_memory():
                raise MemoryError
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as file:
                names, arrays = file.files, {name: file[name] for name in ARRAYS if name in file.files}
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the decompressors and the parser of headers raise nearly any exception
        raise DataError(f"{path.name} is not an .npz file of plain arrays: {_in_short(error)}") from None
    if missing := [name for name in ("features", "labels") if name not in arrays]:
        there = listed(names) or "nothing"
        raise DataError(f"{path.name} has no array {' and no array '.join(missing)}; it holds {there}")
    features = _array(arrays.pop("features"), path)
    faults = [fault for name, values in arrays.items() if (fault := _names_fault(name, values, len(features)))]
    if faults:
        raise DataError(f"{path.name}: {'; '.join(faults)}")
    try:
        columns = {column: arrays[name].tolist() for column, name in COLUMNS.items() if name in arrays}
    except SystemError:
        raise DataError(f"{path.name}: names are no text in Unicode") from None
    return _labelled(features, pd.DataFrame(columns, dtype=object), path.name)


def _names_fault(name: str, values: Any, count: int) -> str:
    """Why an array does not hold a name or number for each row of features; empty if it does."""
    if not isinstance(values, np.ndarray):
        return f"{name} is no array"
    if values.shape != (count,):
        return f"{name} have the shape {values.shape}, not one for each of the {count:,} rows of features"
    return "" if values.dtype.kind in "biufSU" else f"{name} must be names or numbers, not {values.dtype}"


def _from_npy(path: Path) -> NDArray[np.floating]:
    try:
        with path.open("rb") as opened:
            return _array(np.load(opened, allow_pickle=False), path)
    except (OSError, MemoryError, CCLNetError):
        raise
    except Exception as error:  # the parser of headers raises nearly any exception
        raise DataError(f"{path.name} is not an .npy file of numbers: {_in_short(error)}") from None


def _from_parquet(path: Path, table: Path | None) -> LabelledFeatures:
    try:
        frame = pd.read_parquet(path)
    except ImportError:
        error = ModuleNotFoundError(name="pyarrow")
        raise MissingPackageError("a parquet file", error, "pyarrow") from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # each engine has exceptions of its own
        raise DataError(f"{path.name} is not a parquet file: {_in_short(error)}") from None
    named = [name for name in (LABEL, GROUP, IMAGE) if name in frame.columns]
    known = read_text_table(table) if table else pd.DataFrame(frame, columns=named)
    return _labelled(_array(frame.drop(columns=named).to_numpy(), path), known, table.name if table else path.name)


def _labelled(features: NDArray[np.floating], table: pd.DataFrame, name: str) -> LabelledFeatures:
    """Take the names of the rows of features from a table; a row without a group gets a group of its own.

    Raises:
        DataError: with everything that is wrong with the table.
    """
    if LABEL not in table.columns:
        raise DataError(
            f"{name} has no column {LABEL}; its columns are {listed([str(name) for name in table.columns])}"
        )
    if len(table) != len(features):
        raise DataError(f"{name} has {len(table):,} rows for {len(features):,} rows of features")
    labels, groups, images = (
        [_text(value) for value in table[column]] if column in table.columns else None
        for column in (LABEL, GROUP, IMAGE)
    )
    faults = [
        f"the {column} of {missing:,} rows is missing"
        for column, names in ((LABEL, labels), (IMAGE, images))
        if names and (missing := names.count(""))
    ]
    faults += class_faults(sorted({label for label in labels or [] if label}))
    if images and (repeated := [image for image, count in Counter(images).items() if count > 1 and image]):
        faults.append(f"has several rows of the image {listed(repeated)}")
    if faults:
        raise DataError(f"{name}: {'; '.join(faults)}")
    if groups:
        groups = [group or f"{UNKNOWN_GROUP}{row}" for row, group in enumerate(groups)]
    return LabelledFeatures(features, labels or [], groups, images)


def _text(value: Any) -> str:
    """A name or number as text, as names are compared; empty if it is missing."""
    if isinstance(value, bytes):
        return normalised(value.decode("utf-8", "surrogateescape"))
    return "" if pd.isna(value) else normalised(str(value))


def _array(values: Any, path: Path) -> NDArray[np.floating]:
    if not isinstance(values, np.ndarray) or values.ndim != 2:
        raise DataError(f"{path.name}: features must be images × dimensions, not {getattr(values, 'shape', 'several')}")
    return values


def _in_short(error: Exception) -> str:
    """The first sentence: NumPy's second one advises to trust the file."""
    return textwrap.shorten(str(error).split(". ")[0], width=200) or type(error).__name__
