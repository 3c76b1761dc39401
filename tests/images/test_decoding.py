import hashlib
import io
import re
import struct
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin
from torchvision.transforms import functional

from cclnet.images import decoding as images
from cclnet.images.cache import ImageCache, build_cache
from cclnet.images.decoding import central_crop, decode, decode_resized, resize, resized_size
from cclnet.system.errors import DataError
from tests.images.builders import SIZES, bomb, encoded, noise, png_of_16_bits, rgba, zip_of


def cached(folder: Path, files: dict[str, bytes], short_side: int = 24, threads: int = 2) -> ImageCache:
    members = zip_of(folder / "in.zip", files)
    build_cache(folder / "in.zip", members, short_side, folder / "a.npy", folder / "a.csv", threads)
    return ImageCache.open(folder / "a.npy", folder / "a.csv")


@pytest.fixture
def files() -> dict[str, bytes]:
    """Images of mixed sizes, not in the order of their names."""
    names = ["m", "c", "z", "a", "q", "b", "k"]
    return {
        f"{name}.png": encoded(Image.fromarray(noise(*size, seed)))
        for seed, (name, size) in enumerate(zip(names, SIZES, strict=True))
    }


# decode


def test_a_colour_picture_comes_out_as_it_is():
    pixels = noise(7, 5)
    assert np.array_equal(np.asarray(decode(encoded(Image.fromarray(pixels)))), pixels)


def test_grey_is_the_same_in_all_channels():
    grey = noise(7, 5)[:, :, 0]
    assert np.array_equal(np.asarray(decode(encoded(Image.fromarray(grey)))), np.stack([grey] * 3, axis=-1))


def test_one_bit_is_black_and_white():
    white = noise(7, 5)[:, :, 0] > 127
    decoded = np.asarray(decode(encoded(Image.fromarray(white))))
    assert np.array_equal(decoded, np.stack([white * 255] * 3, axis=-1))


def test_a_palette_is_looked_up():
    indices = noise(7, 5)[:, :, 0] % 4
    colors = np.array([[250, 10, 20], [30, 240, 40], [50, 60, 230], [7, 8, 9]], dtype=np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colors.tobytes())
    assert image.mode == "P"
    assert np.array_equal(np.asarray(decode(encoded(image))), colors[indices])


def test_inks_are_subtracted_from_white():
    inks = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    cyan_magenta_yellow, black = inks[:, :, :3].astype(float), inks[:, :, 3:].astype(float)
    expected = (255 - cyan_magenta_yellow) * (255 - black) / 255
    decoded = np.asarray(decode(encoded(Image.fromarray(inks, mode="CMYK"), "TIFF"))).astype(float)
    assert np.abs(decoded - expected).max() <= 1


def test_jpeg_is_close_to_what_was_stored():
    smooth = np.zeros((16, 24, 3), dtype=np.uint8)
    smooth[:, :] = [200, 120, 90]
    for mode in ("RGB", "L", "CMYK"):
        image = Image.fromarray(smooth).convert(mode)
        decoded = np.asarray(decode(encoded(image, "JPEG", quality=95))).astype(int)
        assert np.abs(decoded - np.asarray(image.convert("RGB")).astype(int)).max() <= 3


UPRIGHT = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),  # a quarter turn clockwise
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG"])
def test_the_camera_s_orientation_is_undone(orientation: int, format: str):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(noise(16, 8))
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if format == "JPEG" else {}
    stored = np.asarray(Image.open(io.BytesIO(encoded(image, format, **options))))
    decoded = np.asarray(decode(encoded(image, format, exif=exif, **options)))
    assert np.array_equal(decoded, UPRIGHT[orientation](stored))


def tiff(
    bits: tuple[int, ...],
    samples: bytes,
    *,
    extra: tuple[int, ...] = (),
    format: int = 1,
    planes: bool = False,
) -> bytes:
    """An uncompressed TIFF of 2 × 2 pixels, in layouts that Pillow reads and does not write."""
    bands = len(bits)
    strips = bands if planes else 1
    values = {256: (2,), 257: (2,), 258: bits, 259: (1,), 262: (2 if bands > 1 else 1,), 273: (0,) * strips}
    values |= {277: (bands,), 278: (2,), 279: (len(samples) // strips,) * strips, 284: (2 if planes else 1,)}
    values |= {339: (format,) * bands} | ({338: extra} if extra else {})
    directory = 2 + 12 * len(values) + 4
    long = sum(4 * len(value) for value in values.values() if len(value) > 1)
    start = 8 + directory + long
    values[273] = tuple(start + strip * (len(samples) // strips) for strip in range(strips))
    entries, tail = b"", b""
    for tag, value in sorted(values.items()):
        packed = struct.pack(f"<{len(value)}L", *value)
        where = packed if len(value) == 1 else struct.pack("<L", 8 + directory + len(tail))
        tail += b"" if len(value) == 1 else packed
        entries += struct.pack("<HHL", tag, 4, len(value)) + where
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(values)) + entries + bytes(4) + tail + samples


def tiff_of_pages(*subfile_types: int) -> bytes:
    """A TIFF with a page for each type, 1 for a smaller version of another page; the first is ``noise(7, 5)``."""
    file = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(file, True) as pages:
        for number, subfile_type in enumerate(subfile_types):
            directory = TiffImagePlugin.ImageFileDirectory_v2()
            directory[254] = subfile_type
            Image.fromarray(noise(7, 5, seed=number)).save(pages, "TIFF", tiffinfo=directory)
            pages.newFrame()
    return file.getvalue()


def with_chunk(name: bytes, contents: bytes, pixels: NDArray[np.uint8] | None = None) -> bytes:
    """A PNG with a chunk more, behind its header."""
    data = encoded(Image.fromarray(noise(7, 5) if pixels is None else pixels))
    chunk = len(contents).to_bytes(4) + name + contents + zlib.crc32(name + contents).to_bytes(4)
    return data[:33] + chunk + data[33:]


OTHER = Image.fromarray(noise(7, 5, seed=1))
ADOBE_RGB = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
"""White, red, green and blue, x and y each, in units of 1/100,000."""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(rgba()), "mode RGBA with transparent pixels: put it on the background that it needs"),
        (encoded(rgba().convert("LA")), "mode LA with transparent pixels"),
        (
            encoded(Image.fromarray(noise(7, 5)), transparency=tuple(noise(7, 5)[2, 3].tolist())),
            "mode RGB with transparent",
        ),
        (encoded(rgba().convert("P"), transparency=bytes([7] * 256)), "mode P with transparent"),
        (tiff((8, 8, 8, 8), bytes(range(16)), extra=(2,)), "mode RGBA with transparent"),
        (encoded(Image.fromarray(noise(7, 5)[:, :, 0].astype(np.uint16) * 257)), "mode I;16: "),
        (png_of_16_bits(), "mode RGB;16B: only grey and colour images of 8 unsigned bits a channel can be used"),
        (tiff((16, 16, 16), bytes(24)), "mode RGB of 16 bits: only grey and colour images of 8 unsigned bits"),
        (tiff((16, 16, 16, 16), bytes(32), extra=(0,)), "mode RGB of 16 bits"),
        (tiff((16, 16, 16), bytes(24), planes=True), "mode RGB of 16 bits"),
        (tiff((8,), bytes(4), format=2), "mode L of signed or floating-point samples"),
        (encoded(Image.fromarray(noise(7, 5)), "GIF", save_all=True, append_images=[OTHER]), "is an animation"),
        (encoded(Image.fromarray(noise(7, 5)), "PNG", save_all=True, append_images=[OTHER]), "is an animation"),
        (encoded(Image.fromarray(noise(7, 5)), "WEBP", save_all=True, append_images=[OTHER]), "is an animation"),
        (tiff_of_pages(0, 0), "has several pages: store the page to use in a file of its own"),
        (tiff_of_pages(0, 1, 0), "has several pages"),
        (with_chunk(b"gAMA", (100_000).to_bytes(4)), "has a gamma of 1 instead of 0.45455: convert it to sRGB"),
        (with_chunk(b"cHRM", struct.pack(">8I", *ADOBE_RGB)), "has other primary colours than sRGB, and no profile"),
        (b"P6 1 1 65535\n" + bytes(6), "not in any known image format"),
        (encoded(Image.fromarray(noise(7, 5)), "EPS"), "not in any known image format"),
        (
            encoded(Image.fromarray(noise(7, 5)[:, :, 0].astype(np.float32)), "TIFF"),
            "mode F of signed or floating-point samples: ",
        ),
        (encoded(Image.fromarray(noise(90, 80)), "JPEG")[:-200], "cannot be decoded: .*truncated"),
        (encoded(Image.fromarray(noise(90, 80)))[:-200], "cannot be decoded: "),
        (b"", "cannot be decoded: "),
        (b"<!DOCTYPE html><html><body>sign in</body></html>", "cannot be decoded: "),
        (bomb(), "60000 × 60000 pixels are more than 64,000,000|cannot be decoded: .*bomb"),
        (encoded(Image.new("1", (10_000, 6_401))), "10000 × 6401 pixels are more than 64,000,000"),
    ],
    ids=[
        "RGBA",
        "LA",
        "tRNS",
        "palette tRNS",
        "TIFF alpha",
        "16 bit",
        "16 bit colour",
        "16 bit TIFF",
        "16 bit TIFF and a band more",
        "16 bit TIFF in planes",
        "signed TIFF",
        "GIF animation",
        "PNG animation",
        "WebP animation",
        "TIFF pages",
        "TIFF pages after a thumbnail",
        "gamma",
        "primaries",
        "16 bit PPM",
        "EPS",
        "float",
        "cut JPEG",
        "cut PNG",
        "empty",
        "page",
        "bomb",
        "large",
    ],
)
def test_what_is_refused_is_named(data: bytes, reason: str):
    with pytest.raises(ValueError, match=reason):
        decode(data)


def odd_exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """A JPEG of 16 × 8 pixels that its EXIF data turn, with further entries of odd types: tag, type, count, value."""
    rows = sorted([(0x0112, 3, 1, struct.pack("<H", 6)), *entries])
    table, tail = struct.pack("<H", len(rows)), b""
    for tag, kind, count, value in rows:
        at = 8 + 2 + 12 * len(rows) + 4 + len(tail)
        table += struct.pack("<HHL", tag, kind, count)
        table += value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<L", at)
        tail += value if len(value) > 4 else b""
    exif = b"Exif\0\0II*\0\x08\0\0\0" + table + bytes(4) + tail
    plain = encoded(Image.fromarray(noise(16, 8)), "JPEG", quality=95, subsampling=0)
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]


TEXT, RATIONAL, FLOAT, SHORT, BYTE = 2, 5, 11, 3, 1
ODD_ENTRIES = {
    "a text as resolution": (0x011A, TEXT, 5, b"72 dpi"[:5]),
    "a rational as maker": (0x010F, RATIONAL, 1, bytes(8)),
    "two values as photometric": (0x0106, SHORT, 2, bytes(4)),
    "a text as width": (0x0100, TEXT, 2, b"9\0"),
    "a byte as height": (0x0101, BYTE, 1, b"\1"),
    "not a number as resolution": (0x011B, FLOAT, 1, struct.pack("<f", float("nan"))),
    "a type that does not exist": (0x0132, 99, 1, b"x"),
}


@pytest.mark.parametrize("entry", ODD_ENTRIES.values(), ids=ODD_ENTRIES)
def test_odd_exif_entries_do_not_keep_an_image_from_being_turned(entry: tuple[int, int, int, bytes]):
    upright = np.asarray(decode(odd_exif()))
    assert upright.shape == (16, 8, 3)
    assert np.array_equal(np.asarray(decode(odd_exif(entry))), upright)


@pytest.mark.parametrize("orientation", [b"\0\0", b"\x09\0", b"\xff\xff"])
def test_an_orientation_that_makes_no_sense_is_none(orientation: bytes):
    turned = odd_exif().replace(b"\x12\x01\x03\0\1\0\0\0\6\0", b"\x12\x01\x03\0\1\0\0\0" + orientation)
    assert np.asarray(decode(turned)).shape == (8, 16, 3)


def test_the_first_page_is_taken_where_the_others_are_smaller_versions_of_it():
    assert np.array_equal(np.asarray(decode(tiff_of_pages(0, 1, 4))), noise(7, 5))


def test_the_first_picture_of_a_camera_s_pair_is_taken():
    stored = encoded(Image.fromarray(noise(16, 8)), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert np.array_equal(np.asarray(decode(stored)), np.asarray(Image.open(io.BytesIO(stored), formats=["JPEG"])))


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_tiff_whose_strips_do_not_cover_it_is_refused_and_not_filled_with_black(mode: str):
    image = Image.fromarray(noise(7, 5)).convert(mode)
    whole = encoded(image, "TIFF")
    assert np.array_equal(np.asarray(decode(whole)), np.asarray(image.convert("RGB")))
    height = struct.pack("<HHI", 257, 4, 1)
    place = whole.index(height) + len(height)
    higher = whole[:place] + struct.pack("<I", 50) + whole[place + 4 :]
    with pytest.raises(ValueError, match=r"^cannot be decoded: it holds 35 of its 7 × 50 pixels$"):
        decode(higher)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_an_opaque_alpha_channel_is_dropped(mode: str):
    image = Image.fromarray(noise(7, 5)).convert("P" if mode == "PA" else "RGB").convert(mode)
    decoded = np.asarray(decode(encoded(image, "TIFF" if mode == "PA" else "PNG")))
    assert np.array_equal(decoded, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("image", [Image.fromarray(noise(7, 5)), Image.fromarray(noise(7, 5)).quantize(16)])
def test_a_transparent_colour_that_no_pixel_has_is_no_transparency(image: Image.Image):
    unused = 200 if image.mode == "P" else (1, 2, 3)
    assert np.array_equal(np.asarray(decode(encoded(image, transparency=unused))), np.asarray(image.convert("RGB")))


def test_unusual_layouts_of_8_bits_are_read():
    samples = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    planes = samples.transpose(2, 0, 1).tobytes()
    assert np.array_equal(np.asarray(decode(tiff((8, 8, 8), samples.tobytes()))), samples)
    assert np.array_equal(np.asarray(decode(tiff((8, 8, 8), planes, planes=True))), samples)
    padded = np.concatenate([samples, samples[:, :, :1]], axis=2)
    assert np.array_equal(np.asarray(decode(tiff((8, 8, 8, 8), padded.tobytes(), extra=(0,)))), samples)


@pytest.mark.parametrize("chunk", [(b"gAMA", (45455).to_bytes(4)), (b"cHRM", struct.pack(">8I", *SRGB))])
def test_chunks_that_mean_srgb_change_nothing(chunk: tuple[bytes, bytes]):
    assert np.array_equal(np.asarray(decode(with_chunk(*chunk))), noise(7, 5))


def profile(swapped: bool = False) -> bytes:
    """The profile of sRGB; swapped: of a space in which red and blue have changed places."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if swapped:
        data = data.replace(b"rXYZ", b"QQQQ", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"QQQQ", b"bXYZ", 1)
    return data


def test_a_profile_is_applied():
    decoded = np.asarray(decode(encoded(Image.fromarray(noise(7, 5)), icc_profile=profile(swapped=True)))).astype(int)
    assert np.abs(decoded - noise(7, 5)[:, :, ::-1]).max() <= 2
    palette = Image.fromarray(noise(7, 5)).quantize(16)
    swapped = np.asarray(decode(encoded(palette, icc_profile=profile(swapped=True)))).astype(int)
    assert np.abs(swapped - np.asarray(palette.convert("RGB"))[:, :, ::-1]).max() <= 2


@pytest.mark.parametrize("icc", [profile(), b"no profile" * 20, profile()[:300]])
def test_a_profile_of_srgb_or_none_changes_no_value(icc: bytes):
    assert np.array_equal(np.asarray(decode(encoded(Image.fromarray(noise(7, 5)), icc_profile=icc))), noise(7, 5))


def test_a_profile_of_another_colour_space_is_ignored():
    grey = noise(7, 5)[:, :, 0]
    decoded = np.asarray(decode(encoded(Image.fromarray(grey), icc_profile=profile(swapped=True))))
    assert np.array_equal(decoded, np.stack([grey] * 3, axis=-1))


def test_any_exception_of_a_reader_is_that_image_s_problem(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise KeyError("line\nline")

    data = encoded(Image.fromarray(noise(7, 5)), "BMP")
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(ValueError, match=r"^cannot be decoded: KeyError 'line\\nline'$"):
        decode(data)


def test_lack_of_memory_is_no_image_s_problem(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise MemoryError

    data = encoded(Image.fromarray(noise(7, 5)), "BMP")
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(MemoryError):
        decode(data)


def test_threads_leave_the_filters_of_warnings_as_they_were():
    before = list(warnings.filters)
    data = encoded(Image.fromarray(noise(7, 5)))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [data] * 200))
    assert warnings.filters == before


def test_a_refusal_reads_the_same_every_time():
    with pytest.raises(ValueError, match="cannot be decoded") as caught:
        decode(b"<html>")
    assert not re.search(r"0x[0-9a-f]+", str(caught.value))


def test_a_picture_that_would_grow_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 10_000)
    strip = encoded(Image.new("RGB", (9_000, 1)))  # 24 × 216,000 pixels with its short side at 24
    with pytest.raises(DataError, match=r"strip in in\.zip: .*pixels"):
        cached(tmp_path, {"strip.png": strip})


# resize


def test_the_papers_size():
    assert resized_size(600, 450, 256) == (341, 256)
    assert resized_size(450, 600, 256) == (256, 341)


@pytest.mark.parametrize("short_side", [16, 24, 48, 64])
def test_the_aspect_ratio_is_kept(short_side: int):
    for width, height in SIZES:
        new_width, new_height = resized_size(width, height, short_side)
        assert min(new_width, new_height) == short_side
        assert abs(max(new_width, new_height) - short_side * max(width, height) / min(width, height)) <= 0.5


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("short_side", [16, 24, 48])
def test_antialiasing_is_torchvisions(width: int, height: int, short_side: int):
    image = Image.fromarray(noise(width, height))
    size = resized_size(width, height, short_side)
    theirs = functional.resize(image, [size[1], size[0]], antialias=True)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(resize(image, short_side), np.asarray(theirs))


def test_a_picture_of_600_by_450_is_resized_as_torchvision_does_it():
    image = Image.fromarray(noise(600, 450))
    theirs = functional.resize(image, 256, antialias=True)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(resize(image, 256), np.asarray(theirs))


# reduced decoding


def photo(width: int = 600, height: int = 450) -> Image.Image:
    """Smooth colours, brighter to the right and below, so that a shift of a fraction of a pixel is noticed."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = np.sin(across * 12) * np.cos(down * 9)
    channels = [200 * across + 20, 200 * down + 20, 60 * waves + 120]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    return encoded(image, "JPEG", quality=95, **options)


@pytest.mark.parametrize(
    ("short_side", "divisor"),
    [(28, 8), (37, 8), (38, 4), (64, 4), (75, 4), (76, 2), (150, 2), (151, 1), (256, 1), (500, 1)],
)
def test_a_jpeg_is_decoded_at_the_smallest_size_one_and_a_half_times_as_large(short_side: int, divisor: int):
    data = jpeg(photo())
    image = Image.open(io.BytesIO(data))
    if divisor > 1:
        image.draft("RGB", (600 // divisor, 450 // divisor))
    assert image.size == (600 // divisor, -(-450 // divisor))
    size = (round(600 * short_side / 450), short_side)
    expected = image.resize(size, Image.Resampling.BILINEAR, box=(0, 0, 600 / divisor, 450 / divisor))
    resized = decode_resized(data, short_side)
    assert np.array_equal(resized.pixels, np.asarray(expected))
    assert resized.original_size == (600, 450)


@pytest.mark.parametrize("short_side", [24, 50, 64, 100, 256])
@pytest.mark.parametrize("width_and_height", [(600, 450), (453, 341), (341, 453), (301, 1207)])
def test_reduced_decoding_hardly_changes_the_resized_image(width_and_height: tuple[int, int], short_side: int):
    data = jpeg(photo(*width_and_height), subsampling=0)
    departure = np.abs(decode_resized(data, short_side).pixels - resize(decode(data), short_side).astype(int))
    assert departure.max() <= 2
    assert departure.mean() < 0.45


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_image_is_turned_upright_and_not_shifted(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(photo(453, 341), subsampling=0, exif=exif)
    whole, resized = decode(data), decode_resized(data, 24)
    assert resized.original_size == whole.size == ((453, 341) if orientation < 5 else (341, 453))
    departure = resized.pixels - resize(whole, 24).astype(int)
    assert np.abs(departure).max() <= 2
    edges = [departure[0], departure[-1], departure[:, 0], departure[:, -1]]
    assert max(np.abs(edge[:, :2].mean(axis=0)).max() for edge in edges) < 1


OTHER_JPEGS = {
    "grey": jpeg(photo().convert("L")),
    "CMYK": jpeg(photo().convert("CMYK")),
    "progressive": jpeg(photo(), progressive=True),
    "subsampled": jpeg(photo(), subsampling=2),
    "two pictures": encoded(photo(), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))], quality=95),
}


@pytest.mark.parametrize("data", OTHER_JPEGS.values(), ids=OTHER_JPEGS)
def test_every_kind_of_jpeg_is_decoded_at_a_reduced_size(data: bytes):
    reduced, whole = decode_resized(data, 64).pixels, resize(decode(data), 64)
    assert not np.array_equal(reduced, whole)
    assert np.abs(reduced - whole.astype(int)).mean() < 0.5


def test_a_profile_is_applied_to_a_reduced_image():
    swapped = decode_resized(jpeg(photo(), icc_profile=profile(swapped=True)), 64).pixels
    assert np.abs(swapped - decode_resized(jpeg(photo()), 64).pixels[:, :, ::-1].astype(int)).max() <= 2


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "WEBP"])
def test_other_formats_are_decoded_whole(format: str):
    data = encoded(photo(), format)
    assert np.array_equal(decode_resized(data, 24).pixels, resize(decode(data), 24))


@pytest.mark.parametrize("short_side", [24, 64, 256])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_a_truncated_jpeg_is_refused_at_any_size(share: float, short_side: int):
    data = jpeg(photo())
    with pytest.raises(ValueError, match="truncated"):
        decode_resized(data[: int(share * len(data))], short_side)


def test_the_pixels_of_the_whole_file_are_counted_and_not_those_of_the_reduced_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100_000)
    with pytest.raises(ValueError, match=r"^600 × 450 pixels are more than 100,000$"):
        decode_resized(jpeg(photo()), 24)


def test_a_constant_stays_constant():
    assert np.unique(resize(Image.new("RGB", (97, 31), (9, 9, 9)), 16)).tolist() == [9]


# the cache


def test_the_cache_holds_every_image_decoded_and_resized(tmp_path: Path, files: dict[str, bytes]):
    cache = cached(tmp_path, files)
    assert cache.images == sorted(name.removesuffix(".png") for name in files)
    assert cache.short_side == 24
    index = pd.read_csv(tmp_path / "a.csv").set_index("image")
    end = 0
    for row, name in enumerate(cache.images):
        expected = resize(decode(files[f"{name}.png"]), 24)
        assert np.array_equal(cache[row], expected)
        assert index.loc[name, "sha256"] == hashlib.sha256(files[f"{name}.png"]).hexdigest()
        assert index.loc[name, "offset"] == end
        end += expected.size
    assert cache.pixels.shape == (end,)
    assert isinstance(cache.pixels.base, np.memmap)


def test_ids_that_look_like_numbers_or_gaps_survive_the_file(tmp_path: Path, files: dict[str, bytes]):
    names = ["007", "7", "NA", "null", "1e5"]
    cache = cached(tmp_path, {f"{name}.png": data for name, data in zip(names, files.values(), strict=False)})
    assert cache.images == sorted(names)
    assert cache.rows(["7", "NA"]).tolist() == [sorted(names).index("7"), sorted(names).index("NA")]


def test_the_number_of_threads_changes_no_byte(tmp_path: Path, files: dict[str, bytes]):
    many = {f"{number}{name}": data for number in range(8) for name, data in files.items()}
    written = []
    for threads in (1, 4):
        folder = tmp_path / str(threads)
        folder.mkdir()
        cached(folder, many, threads=threads)
        written.append([(folder / name).read_bytes() for name in ("a.npy", "a.csv")])
    assert written[0] == written[1]


def test_progress_is_reported_for_every_image(tmp_path: Path, files: dict[str, bytes]):
    told = []

    def note(name: str, done: int, total: int, detail: str = "") -> None:
        told.append((name, done, total))

    members = zip_of(tmp_path / "in.zip", files)
    outs = tmp_path / "a.npy", tmp_path / "a.csv"
    build_cache(tmp_path / "in.zip", members, 24, *outs, 1, note)
    assert told == [("images resized", done, 7) for done in range(1, 8)]


def test_all_bad_images_come_in_one_report(tmp_path: Path, files: dict[str, bytes]):
    bad = {"b.png": encoded(rgba()), "x.jpg": b"<html>", "z.png": files["z.png"][:100], "y.png": b""}
    with pytest.raises(DataError, match="4 of 9 images cannot be used") as caught:
        cached(tmp_path, files | bad)
    assert [problem.where for problem in caught.value.problems] == [f"{name} in in.zip" for name in "bxyz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zip"]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_a_bad_image_like_others(tmp_path: Path, compression: int):
    with zipfile.ZipFile(tmp_path / "in.zip", "w", compression) as archive:
        archive.writestr("a.bmp", encoded(Image.fromarray(noise(50, 50)), "BMP"))
        archive.writestr("b.bmp", b"no picture")
    data = bytearray((tmp_path / "in.zip").read_bytes())
    data[100] ^= 0xFF
    (tmp_path / "in.zip").write_bytes(data)
    with pytest.raises(DataError) as caught:
        build_cache(tmp_path / "in.zip", {"a": "a.bmp", "b": "b.bmp"}, 24, tmp_path / "a.npy", tmp_path / "a.csv", 2)
    assert caught.value.problems == (
        ("a in in.zip", "is damaged"),
        ("b in in.zip", "cannot be decoded: not in any known image format"),
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zip"]


def test_rows_are_found_by_name(tmp_path: Path, files: dict[str, bytes]):
    cache = cached(tmp_path, files)
    assert cache.rows(["z", "a", "m", "a"]).tolist() == [6, 0, 4, 0]
    assert cache.rows([]).tolist() == []
    with pytest.raises(DataError, match="run the resize stage again") as caught:
        cache.rows(["z", "nobody", "a", "nothing"])
    assert [problem.where for problem in caught.value.problems] == ["nobody", "nothing"]


# crops


def test_crops_are_those_of_a_slow_loop(tmp_path: Path, files: dict[str, bytes]):
    cache, size = cached(tmp_path, files), 17
    random = np.random.default_rng(1)
    rows = random.integers(len(cache.images), size=40)
    tops = random.integers(0, cache.heights[rows] - size + 1)
    lefts = random.integers(0, cache.widths[rows] - size + 1)
    crops = cache.crops(rows, size, tops, lefts)
    for number, row in enumerate(rows):
        for y in range(size):
            for x in range(size):
                assert np.array_equal(crops[number, y, x], cache[row][tops[number] + y, lefts[number] + x])


@pytest.mark.parametrize("size", [24, 23, 20, 17])
def test_central_crops_are_torchvisions(tmp_path: Path, files: dict[str, bytes], size: int):
    cache = cached(tmp_path, files)
    for row in range(len(cache.images)):
        theirs = functional.center_crop(torch.tensor(cache[row]).permute(2, 0, 1), [size])
        assert np.array_equal(central_crop(cache[row], size), theirs.permute(1, 2, 0).numpy())
