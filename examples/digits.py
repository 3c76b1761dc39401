"""Write scikit-learn's handwritten digits (1,797 images, 8×8, ten classes) as PNG files, with one folder per class.

    python examples/digits.py FOLDER
    dvc exp run -S dataset=folder -S datasets.folder.source=FOLDER

The results are in docs/evidence/digits.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

BRIGHTEST = 16


def write_digits(folder: Path) -> None:
    """Write each image as ``FOLDER/DIGIT/NUMBER.png``, numbered in scikit-learn's order."""
    images, labels = load_digits(return_X_y=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.rint(image.reshape(8, 8) * 255 / BRIGHTEST).astype(np.uint8)
        Image.fromarray(pixels).save(path)


if __name__ == "__main__":
    write_digits(Path(sys.argv[1]))
