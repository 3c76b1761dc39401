"""Images and files of images, made up."""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZES = [(60, 45), (45, 60), (48, 48), (31, 97), (200, 50), (20, 20), (64, 63)]
"""width × height: landscape, portrait, square, extreme, smaller than the short side asked for."""


def noise(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture without structure, so that no transposition or shift of it goes unnoticed."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def zip_of(path: Path, files: dict[str, bytes]) -> dict[str, str]:
    """Write a zip and give its members by their name without the suffix."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return {name.split(".")[0]: name for name in files}


def rgba() -> Image.Image:
    return Image.fromarray(np.concatenate([noise(7, 5), noise(7, 5, seed=1)[:, :, :1]], axis=2))


def bomb() -> bytes:
    """A PNG whose header alone claims 60,000 × 60,000 pixels."""
    data = bytearray(encoded(Image.new("1", (8, 8))))
    data[16:24] = (60_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4)
    return bytes(data)


def png_of_16_bits() -> bytes:
    """A colour PNG of 16 bits a channel, which Pillow cannot write."""
    rows = np.random.default_rng(0).integers(0, 2**16, (5, 7 * 3)).astype(">u2")
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)),
        b"IEND": b"",
    }
    parts = [len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4) for name, data in chunks.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def blobs(seed: int, width: int = 96, height: int = 72) -> Image.Image:
    """A picture of some soft spots in colour; no other seed gives one like it."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
