"""The training, validation or test images of the cache, with their labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from cclnet.images.cache import ImageCache

LABEL_STREAM = 4


@dataclass(frozen=True)
class Subset:
    """The training, validation or test images.

    Attributes:
        cache: all resized images.
        rows: the rows of the cache that belong to the subset.
        labels: their classes, 0 … K − 1.
        resident: the cache's bytes on the training GPU; None if they stay in main memory.
    """

    cache: ImageCache
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    resident: UInt8[Tensor, " bytes"] | None = None

    @classmethod
    def of_split(cls, cache: ImageCache, split: pd.DataFrame, subset: str, classes: Sequence[str]) -> Self:
        """The images that a split puts into ``train``, ``validation`` or ``test``; there may be no test images."""
        chosen = split[split["subset"] == subset]
        number = {name: label for label, name in enumerate(classes)}
        labels = np.array([number[name] for name in chosen["label"]], dtype=np.int64)
        return cls(cache, cache.rows(chosen["image"].tolist()), labels)

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, places: NDArray[np.int64]) -> Self:
        """The images at these positions of the subset."""
        return replace(self, rows=self.rows[places], labels=self.labels[places])

    def with_shuffled_labels(self, seed: int) -> Self:
        """The same images with permuted labels: the class sizes are unchanged, but unrelated to the images."""
        random = np.random.default_rng([seed, LABEL_STREAM])
        return replace(self, labels=random.permutation(self.labels))

    def class_counts(self, num_classes: int) -> Int[Tensor, " k"]:
        """Number of images of each class."""
        return torch.from_numpy(np.bincount(self.labels, minlength=num_classes))
