"""The fixed features that the experiments share, and their split by lesion."""

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from cclnet.dataset.download import digest_of
from cclnet.dataset.isic import CLASSES
from cclnet.system.errors import CCLNetError

COMPONENTS = 256
FOLDS = 5
COMMAND = (
    "cclnet similar ISIC2018 --backbone timm/tf_efficientnet_lite0 --weights "
    "studies/data/tf_efficientnet_lite0.safetensors --size 128 --features FILE.npz"
)


class FixedFeatures:
    """Features of the 10,015 images of ISIC 2018 by a network that was never trained on them.

    Args:
        file: ``.npz`` with features, labels and groups, as ``cclnet similar --features`` writes it; None for
            experiments that use none.

    Raises:
        CCLNetError: the file is missing.
    """

    def __init__(self, file: Path | None) -> None:
        if file is not None and not file.is_file():
            raise CCLNetError(f"{file} does not exist; make the features with: {COMMAND}")
        self.file = file or Path()

    @cached_property
    def sha256(self) -> str:
        """The digest of the file."""
        return digest_of(self.file, "sha256")

    @cached_property
    def features(self) -> Float[Tensor, "n d"]:
        """256 principal components, divided by their mean standard deviation."""
        with np.load(self.file) as arrays:
            reduced = PCA(COMPONENTS, random_state=0).fit_transform(arrays["features"].astype(np.float64))
        return torch.from_numpy(reduced / reduced.std(axis=0).mean()).float()

    @cached_property
    def labels(self) -> Int[Tensor, " n"]:
        """The class of each image, 0 … K − 1 in ISIC order."""
        with np.load(self.file) as arrays:
            return torch.tensor([CLASSES.index(name) for name in arrays["labels"].tolist()])

    @cached_property
    def lesions(self) -> Int[Tensor, " n"]:
        """The number of each image's lesion."""
        with np.load(self.file) as arrays:
            return torch.from_numpy(np.unique(arrays["groups"], return_inverse=True)[1])

    def split(self, seed: int) -> tuple[Int[Tensor, " m"], Int[Tensor, " v"]]:
        """The rows of training and validation, 80 : 20 by lesion and stratified by class."""
        return next(self._folds(seed))

    def fold(self, number: int, seed: int = 0) -> tuple[Int[Tensor, " m"], Int[Tensor, " v"]]:
        """The rows of training and validation of one of five folds; every image is in one fold's validation."""
        return next(islice(self._folds(seed), number, None))

    def _folds(self, seed: int) -> Iterator[tuple[Int[Tensor, " m"], Int[Tensor, " v"]]]:
        splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        for training, validation in splitter.split(self.labels, self.labels, self.lesions):
            yield torch.from_numpy(training), torch.from_numpy(validation)
