"""Write scikit-learn's handwritten digits (1,797 images, 8×8, ten classes) as PNG files, with one folder per class.

    python examples/digits.py FOLDER
    dvc exp run -S dataset=folder -S datasets.folder.source=FOLDER

The results are in docs/evidence/digits. The other examples, of training loops, import the digits as tensors from here.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import TensorDataset

from cclnet import CCLLoss

BRIGHTEST = 16


def write_digits(folder: Path) -> None:
    """Write each image as ``FOLDER/DIGIT/NUMBER.png``, numbered in scikit-learn's order."""
    images, labels = load_digits(return_X_y=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.rint(image.reshape(8, 8) * 255 / BRIGHTEST).astype(np.uint8)
        Image.fromarray(pixels).save(path)


def digit_tensors() -> tuple[TensorDataset, TensorDataset]:
    """1,437 digits to train with and 360 held out: images 1 × 8 × 8 with values from 0 to 1, and their labels."""
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / BRIGHTEST).astype(np.float32).reshape(-1, 1, 8, 8)
    parts = train_test_split(images, labels, test_size=360, stratify=labels, random_state=0)
    images, held_out_images, labels, held_out_labels = map(torch.from_numpy, parts)
    return TensorDataset(images, labels), TensorDataset(held_out_images, held_out_labels)


def show(accuracy: float, criterion: CCLLoss) -> None:
    """Print the accuracy, when the dictionary froze, and the pairs of digits whose soft labels share most."""
    convergence, soft_labels = criterion.freezing.convergence, criterion.soft_labels()
    frozen = f"after epoch {convergence.converged_epoch}" if criterion.head.frozen else "not yet"
    shared = (soft_labels + soft_labels.T).triu(diagonal=1) / 2
    pairs = [divmod(place, len(shared)) for place in shared.flatten().topk(3).indices.tolist()]
    print(f"accuracy on held-out digits  {accuracy:.3f}")
    print(
        f"dictionary frozen            {frozen}, of {convergence.epoch}; p̄ lowest after epoch {convergence.best_epoch}"
    )
    print(f"most alike                   {', '.join(f'{a} and {b} ({shared[a, b]:.3f})' for a, b in pairs)}")


if __name__ == "__main__":
    write_digits(Path(sys.argv[1]))
