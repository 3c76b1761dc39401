"""``cclnet check``."""

import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from cclnet.dataset.isic import CLASSES, GROUND_TRUTH_ZIP, INPUT_ZIP, LESION_TABLE
from tests.cli.builders import COUNTS, NO_IMAGE, PICTURE, without_notes
from tests.dataset.builders import HEADER, row
from tests.images.builders import bomb, encoded, noise, png_of_16_bits, rgba

# a dataset with a fault of every kind that leaves the others visible

LARGE_PICTURE = encoded(Image.fromarray(noise(90, 80)), "JPEG")
EIGHT_BITS = "only grey and colour images of 8 unsigned bits a channel can be used"
SEE_THROUGH = "with transparent pixels: put it on the background that it needs"
LEADS_OUT = "is a path that may lead out of a folder"

PICTURES_AT_FAULT: dict[str, tuple[bytes, str]] = {
    "ISIC_CUT": (LARGE_PICTURE[:-200], "cannot be decoded: image file is truncated (82 bytes not processed)"),
    "ISIC_EMPTY": (b"", NO_IMAGE),
    "ISIC_PAGE": (b"<!DOCTYPE html><html><body>sign in</body></html>", NO_IMAGE),
    "ISIC_EPS": (encoded(Image.fromarray(noise(12, 9)), "EPS"), NO_IMAGE),
    "ISIC_RGBA": (encoded(rgba()), f"mode RGBA {SEE_THROUGH}"),
    "ISIC_GREY_ALPHA": (encoded(rgba().convert("LA")), f"mode LA {SEE_THROUGH}"),
    "ISIC_GREY_16": (encoded(Image.fromarray(noise(7, 5)[:, :, 0].astype("u2") * 257)), f"mode I;16: {EIGHT_BITS}"),
    "ISIC_COLOUR_16": (png_of_16_bits(), f"mode RGB;16B: {EIGHT_BITS}"),
    "ISIC_WIDE": (encoded(Image.new("1", (10_000, 6_401))), "10000 × 6401 pixels are more than 64,000,000"),
}
"""What is in an image's file, and what is wrong with it."""

MEMBERS_AT_FAULT: dict[str, str] = {
    "Input/ISIC_STORED.jpg": "is damaged",
    "Input/ISIC_DEFLATED.jpg": "is damaged",
    "Input/ISIC_LZMA.jpg": "is damaged",
    "Input/ISIC_RENAMED.jpg": "is damaged",
    "Input/ISIC_ENCRYPTED.jpg": "is encrypted",
    "Input/ISIC_METHOD.jpg": "is compressed by an unknown method (99)",
    "Input/ISIC_OVERLAP.jpg": "overlaps another part of the zip",
    "../ISIC_UP.jpg": LEADS_OUT,
    "/etc/ISIC_ABSOLUTE.jpg": LEADS_OUT,
    "C:/ISIC_DRIVE.jpg": LEADS_OUT,
    "..\\ISIC_BACKSLASH.jpg": LEADS_OUT,
    "Input/thumbs.db": "is neither .jpg, .jpeg, .png, .tif, .tiff, .bmp, .gif, .webp nor a note",
    "Input/ISIC_SUFFIX.jpeg": "is the same image as 'Input/ISIC_SUFFIX.jpg'",
    "Input/isic_letters.jpg": "is the same image as 'Input/ISIC_LETTERS.jpg'",
}
"""Members of the images' zip that are wrong by what the zip says of them."""

ROWS_AT_FAULT: dict[str, tuple[str, str]] = {
    "ISIC_TWO": (row("ISIC_TWO", "NV", "DF"), "is labelled NV and DF instead of with one class"),
    "ISIC_NONE": (row("ISIC_NONE"), "is labelled with no class instead of with one class"),
    "ISIC_NAN": (row("ISIC_NAN", "MEL").replace("1.0", "nan"), "MEL is 'nan' instead of 0 or 1"),
    "ISIC_INFINITE": (row("ISIC_INFINITE", "MEL").replace("1.0", "inf"), "MEL is 'inf' instead of 0 or 1"),
    "ISIC_BLANK": (row("ISIC_BLANK", "MEL").replace("1.0", ""), "MEL is '' instead of 0 or 1"),
    "ISIC_HALF": (row("ISIC_HALF", "MEL").replace("1.0", "0.5"), "MEL is '0.5' instead of 0 or 1"),
    "ISIC_NEGATIVE": (row("ISIC_NEGATIVE", "MEL").replace("1.0", "-1.0"), "MEL is '-1.0' instead of 0 or 1"),
    "ISIC_TEXT": (row("ISIC_TEXT", "MEL").replace("1.0", "yes"), "MEL is 'yes' instead of 0 or 1"),
    "ISIC_SHORT": (row("ISIC_SHORT", "MEL")[:-4], "has 7 values instead of 8"),
    "ISIC_LONG": (row("ISIC_LONG", "MEL") + ",0.0", "has 9 values instead of 8"),
}
"""The label table's row of an image, and what is wrong with it."""

LESIONS_AT_FAULT: dict[str, tuple[str, str]] = {
    "ISIC_LESION_EMPTY": ("ISIC_LESION_EMPTY,,x", "names no lesion"),
    "ISIC_LESION_BLANK": ("ISIC_LESION_BLANK, ,x", "names no lesion"),
    "ISIC_LESION_SHORT": ("ISIC_LESION_SHORT,HAM_1", "has 2 values instead of 3"),
}
"""The lesion table's row of an image, and what is wrong with it."""

GOOD = ["ISIC_GOOD", "ISIC_AGAIN", "ISIC_UNLESIONED"]
UNLABELLED = "ISIC_UNLABELLED"


def damage(path: Path, member: str) -> None:
    """Flip a bit in the middle of a member's bytes."""
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(member)
    contents = bytearray(path.read_bytes())
    contents[entry.header_offset + 30 + len(member) + entry.compress_size // 2] ^= 1
    path.write_bytes(contents)


def write_faulty_images(path: Path) -> None:
    methods = {"STORED": zipfile.ZIP_STORED, "LZMA": zipfile.ZIP_LZMA}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for image in [*GOOD, UNLABELLED, *ROWS_AT_FAULT, *LESIONS_AT_FAULT, "ISIC_SUFFIX", "ISIC_LETTERS"]:
            archive.writestr(f"Input/{image}.jpg", PICTURE)
        for image, (data, _) in PICTURES_AT_FAULT.items():
            archive.writestr(f"Input/{image}.jpg", data)
        for name in MEMBERS_AT_FAULT:
            method = methods.get(Path(name).stem.removeprefix("ISIC_"), zipfile.ZIP_DEFLATED)
            archive.writestr(name, LARGE_PICTURE, method)
        archive.writestr("Input/isic_case.jpg", PICTURE)
        archive.writestr("Input/ISIC_HUGE.jpg", bomb())
        archive.writestr("Input/ISIC_BOMB.jpg", bytes(10_000_000))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("Input/ISIC_AGAIN.jpg", PICTURE)
        # the directory is written when the zip is closed
        archive.getinfo("Input/ISIC_ENCRYPTED.jpg").flag_bits |= 1
        archive.getinfo("Input/ISIC_METHOD.jpg").compress_type = 99
        archive.getinfo("Input/ISIC_OVERLAP.jpg").header_offset -= 1
    for name in ("STORED", "DEFLATED", "LZMA"):
        damage(path, f"Input/ISIC_{name}.jpg")
    contents = path.read_bytes()
    path.write_bytes(contents.replace(b"Input/ISIC_RENAMED.jpg", b"Input/ISIC_UNNAMED.jpg", 1))


def numbered(where: str, rows: list[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]]:
    """The lines of a table below its header, and the problems of those that are given one."""
    places = [f"{where}, line {number}, {line.split(',')[0]!r}" for number, (line, _) in enumerate(rows, start=2)]
    text = "".join(f"{line}\n" for line, _ in rows)
    return text, [(place, what) for place, (_, what) in zip(places, rows, strict=True) if what]


def write_faulty_dataset(folder: Path) -> list[tuple[str, str]]:
    """Write a dataset with all of these faults, and give the problems that a whole report of it consists of."""
    write_faulty_images(folder / INPUT_ZIP)
    with zipfile.ZipFile(folder / INPUT_ZIP) as archive:
        bomb_size = archive.getinfo("Input/ISIC_BOMB.jpg").compress_size
    labels = f"{GROUND_TRUTH_ZIP}: 'Truth/labels.csv'"
    of_members = [Path(name).stem for name in MEMBERS_AT_FAULT if name.endswith(".jpg") and "isic" not in name]
    images = [*GOOD, *PICTURES_AT_FAULT, *LESIONS_AT_FAULT, *of_members, "ISIC_SUFFIX", "ISIC_LETTERS"]
    images += ["ISIC_HUGE", "ISIC_BOMB", "ISIC_MISSING", "ISIC_CASE"]
    label_rows, label_problems = numbered(
        labels,
        [
            *((row(image, "NV"), "") for image in images),
            *ROWS_AT_FAULT.values(),
            (row("ISIC_GOOD", "NV"), f"is there a second time, after {labels}, line 2, 'ISIC_GOOD'"),
            (row("isic_good", "MEL"), f"is there a second time, after {labels}, line 2, 'ISIC_GOOD'"),
            (row("", "NV"), "names no image"),
        ],
    )
    with_lesion = [image for image in images if image not in ("ISIC_UNLESIONED", *LESIONS_AT_FAULT)]
    lesion_rows, lesion_problems = numbered(
        LESION_TABLE,
        [
            *((f"{image},HAM_{image},x", "") for image in [*with_lesion, *ROWS_AT_FAULT]),
            *LESIONS_AT_FAULT.values(),
            ("ISIC_GOOD,HAM_2,x", f"is there a second time, after {LESION_TABLE}, line 2, 'ISIC_GOOD'"),
            (",HAM_3,x", "names no image"),
        ],
    )
    with zipfile.ZipFile(folder / GROUND_TRUTH_ZIP, "w") as archive:
        archive.writestr("Truth/labels.csv", f"{HEADER}\n{label_rows}")
    (folder / LESION_TABLE).write_text(f"image,lesion_id,diagnosis_confirm_type\n{lesion_rows}", encoding="utf-8")
    of_files = {f"Input/{image}.jpg": what for image, (_, what) in PICTURES_AT_FAULT.items()} | MEMBERS_AT_FAULT
    of_files["Input/ISIC_BOMB.jpg"] = f"would unpack {bomb_size:,} bytes to 10,000,000"
    of_files["Input/ISIC_HUGE.jpg"] = (
        "cannot be decoded: Image size (3600000000 pixels) exceeds limit of 178956970 pixels, "
        "could be decompression bomb DOS attack."
    )
    return [
        *((f"{INPUT_ZIP}: {name!r}", what) for name, what in of_files.items()),
        *[(f"{INPUT_ZIP}: 'Input/ISIC_AGAIN.jpg'", "is there more than once")] * 2,
        *label_problems,
        *lesion_problems,
        (INPUT_ZIP, "has no image 'ISIC_MISSING'"),
        (INPUT_ZIP, "has no image ''"),
        (INPUT_ZIP, "has no image 'ISIC_CASE', but one of 'isic_case': mind the letter case"),
        (GROUND_TRUTH_ZIP, "has no label of image 'isic_case', but one of 'ISIC_CASE': mind the letter case"),
        (GROUND_TRUTH_ZIP, "has no label of image 'isic_letters', but one of 'ISIC_LETTERS': mind the letter case"),
        (GROUND_TRUTH_ZIP, "has no label of image 'ISIC_UNLABELLED'"),
        (LESION_TABLE, "has no lesion of image 'ISIC_UNLESIONED'"),
    ]


def everything_in(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, b"" if path.is_dir() else path.read_bytes())
        for path in [folder, *folder.rglob("*")]
    }


def test_one_run_finds_every_fault_and_changes_nothing(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "work" / "data"
    folder.mkdir(parents=True)
    expected = write_faulty_dataset(folder)
    assert len(expected) >= 30
    monkeypatch.chdir(tmp_path / "work")
    before = everything_in(tmp_path)

    status, out, _ = run("check", "data", "--json", "-")
    found = json.loads(out)
    assert status == 1
    assert sorted((problem["where"], problem["what"]) for problem in found["problems"]) == sorted(expected)
    assert found["source"] == "data"
    assert found["labels"] == sum(found["class_counts"].values()) == found["class_counts"]["NV"]
    assert everything_in(tmp_path) == before

    status, out, err = run("check", "data")
    assert status == 1
    lines = without_notes(out).splitlines()
    assert sorted(lines[:-2]) == sorted(f"{where}: {what}" for where, what in expected)
    assert lines[-2].startswith(f"{len(expected)} problems in ")
    assert "images decoded" in err
    assert everything_in(tmp_path) == before


# what a script builds upon


def test_a_good_dataset_ends_with_0(run, good: Path):
    status, out, _ = run("check", good)
    assert (status, without_notes(out)) == (0, f"no problem: 7 images, 7 labels, 6 lesions\n{COUNTS}\n")
    assert "note: class MEL: has a single image, and each subset needs one\n" in out


def test_json_goes_into_a_file_beside_the_report(run, good: Path, tmp_path: Path):
    (good / LESION_TABLE).unlink()
    status, out, _ = run("check", good, "--json", tmp_path / "new" / "problems.json")
    assert (status, without_notes(out)) == (1, f"{LESION_TABLE}: is missing\n1 problem in 7 images\n{COUNTS}\n")
    written = (tmp_path / "new" / "problems.json").read_text(encoding="utf-8")
    found = json.loads(written)
    assert {"where": "the folder", "what": found["notes"][0]["what"]} == found["notes"][0]
    del found["notes"]
    assert found == {
        "source": str(good),
        "images": 7,
        "labels": 7,
        "lesions": 0,
        "class_counts": dict.fromkeys(CLASSES, 1),
        "problems": [{"where": LESION_TABLE, "what": "is missing"}],
    }
    assert run("check", good, "--json", "-").out == written


@pytest.mark.parametrize("source", ["https://example.org/data", "nothing"])
def test_what_is_no_folder_ends_in_one_line(run, source: str):
    status, out, err = run("check", source, "--json", "-")
    assert (status, out) == (2, "")
    assert err.startswith(f"cclnet: {source!r} is no folder: name the one that holds ")
    assert err.count("\n") == 1
