"""Folders of images, made up."""

from pathlib import Path

from PIL import Image

from tests.images.builders import encoded, noise


def write_photos(folder: Path) -> Path:
    """Ten images of each of two classes."""
    for place, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            data = encoded(Image.fromarray(noise(12, 9, 10 * place + number)), "PNG")
            (folder / name / f"{number}.png").write_bytes(data)
    return folder
