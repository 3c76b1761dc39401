"""The results of the cells of a study."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cclnet.metrics.resampling import resampled_figures, weighted_scores
from cclnet.system.errors import DataError
from cclnet.system.files import read_csv, read_json


@dataclass(frozen=True)
class Cell:
    """One experiment.

    Attributes:
        name: name of its files; the parts before the last hyphen are the group, the last part is the seed.
        results: the contents of its JSON.
        predictions: image, label, lesion and the probability of every class, one row per validation image.
    """

    name: str
    results: dict[str, Any]
    predictions: pd.DataFrame

    @property
    def group(self) -> str:
        """The name without the seed, shared by all repetitions."""
        return self.name.rpartition("-")[0]

    @property
    def seed(self) -> str:
        """The seed, which distinguishes repetitions."""
        return self.name.rpartition("-")[2]

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the evaluate stage."""
        return self.results["metrics"]

    @property
    def classes(self) -> list[str]:
        """The K classes in the order of every matrix."""
        return self.predictions.columns[3:].tolist()

    @property
    def soft_labels(self) -> NDArray[np.float64]:
        """The K × K soft-label matrix."""
        return np.array(self.results["soft_labels"])

    @property
    def confusion(self) -> NDArray[np.float64]:
        """Number of validation images by true class (row) and predicted class."""
        return np.array(self.results["confusion"], dtype=np.float64)

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Number of training images of each class."""
        return np.array(self.results["training_images"])

    @property
    def truth(self) -> NDArray[np.int64]:
        """The class of each validation image, 0 … K − 1."""
        return self.predictions["label"].map(self.classes.index).to_numpy(np.int64)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """The predicted probabilities, images × K, renormalised because the files contain rounded values."""
        probabilities = self.predictions[self.classes].to_numpy(np.float64)
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each validation image was classified correctly."""
        return self.probabilities.argmax(axis=1) == self.truth

    @cached_property
    def resampled(self) -> dict[str, NDArray[np.float64]]:
        """Accuracy, kappa, F1 and so on, for the validation images and for ``REPORTED_RESAMPLES`` resamples of them.

        Cells with the same images use the same resamples, see ``resampled_figures``.
        """
        return resampled_figures(weighted_scores(self.truth, self.probabilities), self.predictions["lesion"])


Groups = dict[str, list[Cell]]
"""The finished cells of a study by group, each group in the order of its seeds."""


def load_cells(folder: Path) -> Groups:
    """All finished cells of a folder by group, each group in the order of its seeds."""
    groups: Groups = {}
    for path in sorted(folder.glob("*.json")):
        cell = load_cell(path)
        groups.setdefault(cell.group, []).append(cell)
    return groups


def load_cell(path: Path) -> Cell:
    """Load the cell of a JSON file and the CSV beside it, sorted by image."""
    predictions = read_csv(path.with_suffix(".csv"), ["image", "label", "lesion"])
    return Cell(path.stem, read_json(path), predictions.sort_values("image", ignore_index=True))


def require_same_images(cells: Sequence[Cell]) -> None:
    """Check that cells can be compared image by image.

    Raises:
        DataError: validation images, labels or lesions of some cells differ from those of the first; it names them.
    """
    columns = ["image", "label", "lesion"]
    others = [cell for cell in cells[1:] if not cell.predictions[columns].equals(cells[0].predictions[columns])]
    if others:
        names = ", ".join(cell.name for cell in others)
        raise DataError(f"these cells have other validation images than {cells[0].name}, or other labels: {names}")
