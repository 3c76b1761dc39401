import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from cclnet import __version__
from cclnet.dataset.isic import CLASSES, GROUND_TRUTH_ZIP, INPUT_ZIP, LESION_TABLE
from cclnet.inference.onnx import onnxruntime_probabilities, to_onnx
from cclnet.inference.probabilities import class_probabilities
from cclnet.networks.model import CCLNet, build_model, load_model
from cclnet.networks.model_file import save_model
from tests.dataset.builders import HEADER, row
from tests.images.builders import bomb, encoded, noise, png_of_16_bits, rgba
from tests.networks.builders import description

PROJECT = Path(__file__).parents[2]


# the program


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_the_commands(run, arguments: list[str]):
    shown = run(*arguments)
    for words in ("Usage: cclnet", "check", "predict", "evaluate", "matrix", "compare", "--version"):
        assert words in shown.out


@pytest.mark.parametrize(
    ("command", "example"),
    [
        ("check", "cclnet check data/raw --json problems.json"),
        ("init", "cclnet init my-project --data photos"),
        ("predict", "cclnet predict models/model.safetensors photos/ more.zip one.png -o predictions.csv"),
        ("evaluate", "cclnet evaluate models/model.safetensors --images ISIC2018_Task3_Test_Input.zip --labels"),
        ("info", "cclnet info models/model.safetensors --json -"),
        ("matrix", "cclnet matrix models/model.safetensors --csv matrix.csv --figure matrix.png"),
        ("compare", "cclnet compare HEAD muggy-tuna --html difference.html --json difference.json"),
    ],
)
def test_help_of_a_command_has_an_example(run, command: str, example: str):
    status, out, _ = run(command, "--help")
    assert status == 0
    assert example in out


@pytest.mark.parametrize(
    "command", ["check", "init", "predict", "evaluate", "info", "matrix", "compare", "export", "similar"]
)
def test_h_is_short_for_help(run, command: str):
    assert run(command, "-h") == run(command, "--help")
    assert f"Usage: cclnet {command}" in run(command, "-h").out


def test_the_command_is_installed():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"cclnet": "cclnet.__main__:main"}


def test_the_version(run):
    assert run("--version") == (0, f"cclnet {__version__}\n", "")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("cclnet in", ["info", "init"]), ("cclnet export m --on", ["--onnx"]), ("cclnet info --j", ["--json"])],
)
def test_a_shell_completes_commands_and_options(run, monkeypatch: pytest.MonkeyPatch, typed: str, offered: list[str]):
    monkeypatch.setenv("_CCLNET_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    status, out, err = run()
    assert (status, sorted(out.split()), err) == (0, offered, "")


@pytest.mark.parametrize(("shell", "line"), [("bash", "complete -o default -F"), ("zsh", "#compdef cclnet")])
def test_completion_can_be_shown_for_a_shell(run, monkeypatch: pytest.MonkeyPatch, shell: str, line: str):
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    status, out, err = run("--show-completion")
    assert (status, err) == (0, "")
    assert line in out


@pytest.mark.parametrize(
    "arguments", [["check", ""], ["predict", "model", ""], ["compare", "", "b"], ["compare", "a", "b", "--labels="]]
)
def test_an_empty_argument_is_not_taken_for_the_current_folder(run, arguments: list[str]):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "an argument is empty" in err


@pytest.mark.parametrize(
    "arguments", [["chekc"], ["check"], ["check", "data", "--jsn"], ["check", "a", "b"], ["compare", "a"]]
)
def test_wrong_usage(run, arguments: list[str]):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "Usage: cclnet" in err


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["check", "nothing"], 2),
        (["predict", "model", "nothing"], 1),
        (["compare", "a.csv", "b.csv"], 1),
    ],
)
def test_light_commands_do_without_torch(arguments: list[str], status: int):
    code = (
        "import sys\nfrom cclnet.__main__ import main\n"
        "try: main(sys.argv[1:])\nfinally: assert 'torch' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", code, *arguments], cwd=PROJECT, capture_output=True, text=True)
    assert "AssertionError" not in ended.stderr
    assert ended.returncode == status


# check: a dataset with a fault of every kind that leaves the others visible

PICTURE = encoded(Image.fromarray(noise(12, 9)), "JPEG")
LARGE_PICTURE = encoded(Image.fromarray(noise(90, 80)), "JPEG")
EIGHT_BITS = "only grey and colour images of 8 unsigned bits a channel can be used"
SEE_THROUGH = "with transparent pixels: put it on the background that it needs"
NO_IMAGE = "cannot be decoded: not in any known image format"
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


# check: what a script builds upon


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A dataset without a fault: an image of each class, two of them of one lesion."""
    folder = tmp_path / "good"
    folder.mkdir()
    images = [f"ISIC_{number}" for number in range(len(CLASSES))]
    with zipfile.ZipFile(folder / INPUT_ZIP, "w") as archive:
        for image in images:
            archive.writestr(f"{image}.jpg", PICTURE)
    rows = [row(image, label) for image, label in zip(images, CLASSES, strict=True)]
    with zipfile.ZipFile(folder / GROUND_TRUTH_ZIP, "w") as archive:
        archive.writestr("labels.csv", "\n".join([HEADER, *rows]))
    lesions = [f"{image},HAM_{max(number, 1)}" for number, image in enumerate(images)]
    (folder / LESION_TABLE).write_text("\n".join(["image,lesion_id", *lesions]), encoding="utf-8")
    return folder


def without_notes(out: str) -> str:
    """What ``check`` prints besides its notes."""
    return "".join(line for line in out.splitlines(keepends=True) if not line.startswith("note: "))


COUNTS = "MEL 1, NV 1, BCC 1, AKIEC 1, BKL 1, DF 1, VASC 1"


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


# export


def test_help_of_export_says_what_stays_outside(run):
    status, out, _ = run("export", "--help")
    assert status == 0
    for words in ("resized to the metadata's `short_side`", "--with-preprocessing", "--onnx", "probabilities"):
        assert words in out


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    described = replace(description("baseline"), backbone="timm/test_vit")
    save_model(tmp_path / "model.safetensors", build_model("timm/test_vit", None, 32, 3, with_head=False), described)
    return tmp_path / "model.safetensors"


def test_export_writes_the_checked_file(run, trained: Path, tmp_path: Path):
    file = tmp_path / "new" / "model.onnx"
    status, out, err = run("export", trained, "--onnx", file, "--with-preprocessing")
    assert (status, err) == (0, "")
    assert re.fullmatch(rf"{file}: timm/test_vit, differs from torch by \S+ at most\n", out)
    assert file.read_bytes() == to_onnx(*load_model(trained), with_preprocessing=True).content


def test_a_file_that_fails_the_check_is_not_written(
    run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cclnet.inference.onnx.TOLERANCE", -1.0)
    (tmp_path / "model.onnx").write_bytes(b"the one before")
    status, out, err = run("export", trained, "--onnx", tmp_path / "model.onnx")
    assert (status, out) == (1, "")
    assert err.startswith("cclnet: timm/test_vit as ONNX differs from torch by ")
    assert (tmp_path / "model.onnx").read_bytes() == b"the one before"


def test_export_of_what_is_no_model_ends_in_one_line(run, tmp_path: Path):
    missing = tmp_path / "model.safetensors"
    assert run("export", missing, "--onnx", tmp_path / "x") == (
        1,
        "",
        f"cclnet: there is no model {missing}; train one first\n",
    )


def test_the_module_is_the_program(good: Path):
    command = [sys.executable, "-m", "cclnet", "check", str(good)]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert ended.returncode == 0
    assert without_notes(ended.stdout) == f"no problem: 7 images, 7 labels, 6 lesions\n{COUNTS}\n"
    assert ended.stderr == "images decoded: 7 of 7 (100%)\n"


# predict, evaluate, matrix

MODEL = replace(description(), short_side=36, params=description().params | {"head_balance": "weights"})
CONTENTS = {f"ISIC_{number}": encoded(Image.fromarray(noise(50, 40, number)), "JPEG") for number in range(4)}
LABELS = dict(zip(CONTENTS, ["MEL", "NV", "BCC", "NV"], strict=True))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, in the working folder with ``in.zip``, four images in a folder of their own there, and their labels."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    made = build_model(MODEL.backbone, None, MODEL.crop, len(MODEL.classes), with_head=True)
    save_model(tmp_path / "model", made, MODEL)
    with zipfile.ZipFile("in.zip", "w") as archive:
        for image, data in CONTENTS.items():
            archive.writestr(f"Input/{image}.jpg", data)
    rows = [",".join([image, *(str(int(name == label)) for name in MODEL.classes)]) for image, label in LABELS.items()]
    Path("truth.csv").write_text("\n".join([",".join(["image", *MODEL.classes]), *rows]), encoding="utf-8")
    lesions = [f"{image},HAM_{number // 2}" for number, image in enumerate(CONTENTS)]
    Path("lesions.csv").write_text("\n".join(["image,lesion_id", *lesions]), encoding="utf-8")
    return tmp_path / "model"


def test_predictions_go_to_the_screen_and_into_a_file(run, model: Path):
    status, out, err = run("predict", model, "in.zip", "-o", "new/p.csv", "--device", "cpu")
    assert (status, err) == (0, "images predicted: 4 of 4 (100%)\n")
    written = pd.read_csv("new/p.csv")
    assert list(written) == ["image", *MODEL.classes]
    assert written["image"].tolist() == list(CONTENTS)
    best = written[MODEL.classes].to_numpy().argmax(axis=1)
    expected = [[image, MODEL.classes[label]] for image, label in zip(CONTENTS, best, strict=True)]
    assert [line.split()[:2] for line in out.splitlines()[1:5]] == expected
    assert [path.name for path in Path("new").iterdir()] == ["p.csv"]


def test_images_that_cannot_be_predicted_end_with_1_and_the_others_are_there(run, model: Path):
    Path("page.jpg").write_bytes(b"<html>")
    status, out, err = run("predict", model, "page.jpg", "lost", "in.zip", "-o", "p.csv")
    assert status == 1
    assert "4 predicted: " in out
    assert len(pd.read_csv("p.csv")) == 4
    assert err.splitlines()[-3:] == [
        "cclnet: the rest could not be predicted:",
        "  lost: is missing",
        f"  page.jpg: {NO_IMAGE}",
    ]


def test_predictions_as_json_are_those_of_the_table(run, model: Path):
    Path("page.jpg").write_bytes(b"<html>")
    assert run("predict", model, "page.jpg", "in.zip", "-o", "p.csv", "--json", "p.json").status == 1
    table = pd.read_csv("p.csv").set_index("image")
    found = json.loads(Path("p.json").read_text(encoding="utf-8"))
    assert [it["image"] for it in found["images"]] == list(table.index)
    assert [it["predicted"] for it in found["images"]] == table.idxmax(axis=1).tolist()
    assert [list(it["probabilities"]) for it in found["images"]] == [sorted(MODEL.classes)] * 4
    probabilities = [[it["probabilities"][name] for name in MODEL.classes] for it in found["images"]]
    np.testing.assert_allclose(probabilities, table.to_numpy(), rtol=0, atol=1e-15)
    assert found["problems"] == [{"where": "page.jpg", "what": NO_IMAGE}]


def test_the_suffix_of_the_output_decides_its_format(run, model: Path):
    assert run("predict", model, "in.zip", "-o", "o.json", "--json", "p.json").status == 0
    assert Path("o.json").read_bytes() == Path("p.json").read_bytes()
    assert run("predict", model, "in.zip", "-o", "o.txt").status == 0
    assert list(pd.read_csv("o.txt")) == ["image", *MODEL.classes]


def test_the_batch_size_is_that_of_the_network(run, model: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = []

    def count(model: CCLNet, inputs: torch.Tensor) -> NDArray[np.float64]:
        sizes.append(len(inputs))
        return class_probabilities(model, inputs)

    monkeypatch.setattr("cclnet.inference.prediction.class_probabilities", count)
    assert run("predict", model, "in.zip", "--batch-size", "3", "-o", "three.csv").status == 0
    assert run("predict", model, "in.zip", "-o", "all.csv").status == 0
    assert sizes == [3, 1, 4]
    three, all_at_once = (pd.read_csv(name).set_index("image") for name in ("three.csv", "all.csv"))
    pd.testing.assert_frame_equal(three, all_at_once, rtol=1e-4)
    status, _, err = run("predict", model, "in.zip", "--batch-size", "0")
    assert status == 2
    assert "--batch-size" in err


@pytest.fixture
def computed_by_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets the number of images of each batch that onnxruntime computes."""
    sizes = []

    def counting(*arguments: Any) -> Callable[[torch.Tensor], NDArray[np.float64]]:
        compute = onnxruntime_probabilities(*arguments)

        def count(inputs: torch.Tensor) -> NDArray[np.float64]:
            sizes.append(len(inputs))
            return compute(inputs)

        return count

    monkeypatch.setattr("cclnet.inference.prediction.onnxruntime_probabilities", counting)
    return sizes


def test_the_runtime_changes_neither_files_nor_decisions(run, model: Path, computed_by_onnxruntime: list[int]):
    Path("page.jpg").write_bytes(b"<html>")
    written = {}
    for runtime in ("torch", "onnxruntime"):
        command = ["predict", model, "page.jpg", "in.zip", "--runtime", runtime, "--batch-size", 3]
        ended = run(*command, "-o", "p.csv", "--json", "p.json")
        found = json.loads(Path("p.json").read_text(encoding="utf-8"))
        probabilities = [list(image.pop("probabilities").values()) for image in found["images"]]
        written[runtime] = ended.status, ended.err, found, probabilities, pd.read_csv("p.csv").set_index("image")
    *same, probabilities, table = written["torch"]
    *others, others_probabilities, others_table = written["onnxruntime"]
    assert others == same
    np.testing.assert_allclose(others_probabilities, probabilities, rtol=0, atol=1e-5)
    pd.testing.assert_frame_equal(others_table, table, rtol=0, atol=1e-5)
    assert computed_by_onnxruntime == [3, 1]
    status, _, err = run("predict", model, "in.zip", "--runtime", "tensorrt")
    assert status == 2
    assert "--runtime" in err


def test_a_labelled_set_is_evaluated_by_onnxruntime(run, model: Path, computed_by_onnxruntime: list[int]):
    figures = {}
    for runtime in ("torch", "onnxruntime"):
        command = ["evaluate", model, "--images", "in.zip", "--labels", "truth.csv", "--runtime", runtime]
        assert run(*command, "-o", "m.json").status == 0
        figures[runtime] = json.loads(Path("m.json").read_text(encoding="utf-8"))
    assert figures["onnxruntime"].keys() == figures["torch"].keys()
    assert figures["onnxruntime"]["accuracy"] == figures["torch"]["accuracy"]
    assert figures["onnxruntime"]["nll"] == pytest.approx(figures["torch"]["nll"], abs=1e-5)
    assert computed_by_onnxruntime == [4]


def test_onnxruntime_computes_on_the_cpu(run, model: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def select(name: str) -> torch.device:
        asked.append(str(name))
        return torch.device("mps" if name == "mps" else "cpu")

    monkeypatch.setattr("cclnet.system.machine.select_device", select)
    for runtime in ("torch", "onnxruntime"):
        assert run("predict", model, "in.zip", "--runtime", runtime).status == 0
    monkeypatch.setattr(CCLNet, "to", lambda model, device: model)
    said = "cclnet: device: mps is set, but onnxruntime computes on the CPU; set device: auto or cpu\n"
    assert run("predict", model, "in.zip", "--runtime", "onnxruntime", "--device", "mps") == (1, "", said)
    assert asked == ["auto", "cpu", "mps"]


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_without_a_package_of_onnxruntime_one_line_says_what_to_install(
    run, model: Path, package: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    said = (
        f"cclnet: the export to ONNX needs {package}, which is not installed: pip install onnx onnxruntime onnxscript\n"
    )
    assert run("predict", model, "in.zip", "--runtime", "onnxruntime", "-o", "p.csv") == (1, "", said)
    assert not Path("p.csv").exists()


def test_onnxruntime_adds_nothing_to_what_a_process_prints(model: Path):
    command = [sys.executable, "-m", "cclnet", "predict", "model", "in.zip", "--runtime", "onnxruntime", "-o", "p.csv"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "images predicted: 4 of 4 (100%)\n")
    assert len(ended.stdout.splitlines()) == 7


def test_a_gpu_of_apple_is_asked_for_in_vain_here(run, model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    said = "cclnet: device: mps is asked for, and torch sees no GPU of Apple; set device: auto or cpu\n"
    assert run("predict", model, "in.zip", "--device", "mps") == (1, "", said)


def test_no_file_is_written_if_ids_are_repeated(run, model: Path):
    Path("ISIC_1.png").write_bytes(CONTENTS["ISIC_1"])
    status, out, err = run("predict", model, "in.zip", "ISIC_1.png", "-o", "p.csv")
    assert (status, out) == (1, "")
    assert err == (
        "cclnet: images go by their files' names; rename or leave out:\n"
        "  ISIC_1.png: is called 'ISIC_1' like in.zip: 'Input/ISIC_1.jpg'\n"
    )
    assert not Path("p.csv").exists()


@contextmanager
def standard_output_in(file: Path) -> Iterator[None]:
    """Redirect the process's standard output below Python, as a shell does."""
    before = os.dup(1)
    with file.open("wb") as stream:
        os.dup2(stream.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)


@pytest.mark.parametrize("output", ["-", "/dev/stdout"])
def test_standard_output_gets_nothing_but_what_it_is_asked_for(run, model: Path, output: str):
    commands: dict[str, list[str]] = {
        "p.csv": ["predict", "model", "in.zip", "-o"],
        "p.json": ["predict", "model", "in.zip", "--json"],
        "m.json": ["evaluate", "model", "--images", "in.zip", "--labels", "truth.csv", "-o"],
        "m.csv": ["matrix", "model", "--csv"],
    }
    for name, command in commands.items():
        with standard_output_in(Path("out")):
            ended = run(*command, output)
        assert (ended.status, ended.out) == (0, "")
        assert run(*command, name).status == 0
        assert Path("out").read_bytes() == Path(name).read_bytes()
    assert not Path("-").exists()
    assert Path("/dev/stdout").is_symlink()


def test_predictions_go_through_a_link_and_into_a_pipe(run, model: Path):
    Path("real.csv").write_bytes(b"before")
    Path("link.csv").symlink_to("real.csv")
    assert run("predict", model, "in.zip", "-o", "link.csv").status == 0
    assert Path("link.csv").is_symlink()
    os.mkfifo("pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_bytes()))
    reader.start()
    assert run("predict", model, "in.zip", "-o", "pipe").status == 0
    reader.join(timeout=60)
    assert read == [Path("real.csv").read_bytes()]
    assert Path("pipe").is_fifo()


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("model", "model is also read"),
        ("truth.csv/x", "truth.csv/x cannot be written: FOLDER/truth.csv is no folder"),
        ("protected", "protected is write-protected"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["predict", "model", "in.zip", "-o"],
        ["predict", "model", "in.zip", "--json"],
        ["evaluate", "model", "--images", "in.zip", "--labels", "truth.csv", "-o"],
        ["evaluate", "model", "--images", "in.zip", "--labels", "truth.csv", "--predictions"],
        ["export", "model", "--onnx"],
        ["matrix", "model", "--csv"],
    ],
    ids=" ".join,
)
def test_an_output_that_cannot_be_written_is_found_out_before_the_work(
    run, model: Path, command: list[str], output: str, problem: str, monkeypatch: pytest.MonkeyPatch
):
    Path("protected").write_bytes(b"precious")
    Path("protected").chmod(0o444)
    before = {path: path.read_bytes() for path in Path.cwd().iterdir()}
    monkeypatch.setattr("cclnet.networks.model.load_model", None)  # the work
    ended = run(*command, output)
    said = f"cclnet: {problem.replace('FOLDER', str(Path.cwd()))}: choose another file to write\n"
    assert ended == (1, "", said)
    assert {path: path.read_bytes() for path in Path.cwd().iterdir()} == before


@pytest.mark.parametrize("lesions", [[], ["--lesions", "lesions.csv"]])
def test_a_labelled_set_is_evaluated(run, model: Path, lesions: list[str]):
    files = ["-o", "metrics.json", "--predictions", "p.csv"]
    status, out, err = run("evaluate", model, "--images", "in.zip", "--labels", "truth.csv", *lesions, *files)
    assert (status, err) == (0, "images predicted: 4 of 4 (100%)\n")
    figures = json.loads(Path("metrics.json").read_text(encoding="utf-8"))
    predicted = pd.read_csv("p.csv").set_index("image").idxmax(axis=1)
    hits = [predicted[image] == label for image, label in LABELS.items()]
    assert figures["accuracy"] == sum(hits) / 4
    assert figures["lesions"] == (2 if lesions else None)
    assert f"accuracy           {figures['accuracy']:.4f}" in out
    assert [row["images"] for row in figures["classes"]] == [1, 2, 1]


def test_a_labelled_set_with_bad_images_is_not_evaluated(run, model: Path):
    with zipfile.ZipFile("in.zip", "w") as archive:
        for image, data in CONTENTS.items():
            archive.writestr(f"{image}.jpg", data if image == "ISIC_0" else b"")
    status, out, err = run("evaluate", model, "--images", "in.zip", "--labels", "truth.csv", "-o", "metrics.json")
    assert (status, out) == (1, "")
    assert [line.split("'")[1] for line in err.splitlines()[-3:]] == ["ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg"]
    assert not Path("metrics.json").exists()


@pytest.mark.parametrize("figure", ["m.png", "m.svg"])
def test_the_matrix_on_the_screen_and_in_files(run, model: Path, figure: str):
    status, out, err = run("matrix", model, "--csv", "m.csv", "--figure", figure)
    assert (status, err) == (0, "")
    assert pd.read_csv("m.csv", index_col="label").to_numpy().tolist() == MODEL.label_matrix
    assert "looks most like" in out
    assert Path(figure).read_bytes().startswith(b"\x89PNG" if figure == "m.png" else b"<?xml")


def test_a_figure_is_png_or_svg(run, model: Path):
    status, out, err = run("matrix", model, "--figure", "m.pdf")
    assert (status, out) == (2, "")
    assert "m.pdf ends neither in .png nor in .svg" in err


def test_ctrl_c_and_a_reader_that_is_gone_end_without_a_traceback(run, model: Path, monkeypatch: pytest.MonkeyPatch):
    for error, status, said in (
        (KeyboardInterrupt, 130, "cclnet: interrupted; run it again\n"),
        (BrokenPipeError, 141, ""),
    ):

        def fail(*_: object, error: type[BaseException] = error) -> None:
            raise error

        monkeypatch.setattr("cclnet.cli.model.show_matrix", fail)
        assert run("matrix", model, "--csv", "m.csv") == (status, "", said)
        assert Path("m.csv").exists()


SLOW = """
import sys, time
print("loading", file=sys.stderr, flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    raise ImportError("a part of it cannot be loaded")
"""


@pytest.mark.parametrize(
    ("module", "library", "status", "said"),
    [
        ("cclnet", "typer", 130, "cclnet: interrupted; run it again\n"),
        ("cclnet", "torch", 130, "cclnet: interrupted; run it again\n"),
        ("stages.split", "pydantic", 130, "params: interrupted; run it again\n"),
        ("stages.split", "pandas", -signal.SIGINT, ""),
    ],
)
def test_ctrl_c_while_libraries_load_is_no_traceback(tmp_path: Path, module: str, library: str, status: int, said: str):
    (tmp_path / f"{library}.py").write_text(SLOW, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"}
    shutil.copy(PROJECT / "params.yaml", tmp_path)
    command = [sys.executable, "-m", module, *(["matrix", "none"] if module == "cclnet" else [])]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert process.stderr.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, said)


def test_no_model(run, model: Path):
    for command in (["predict", "none", "in.zip"], ["matrix", "none"]):
        assert run(*command) == (1, "", "cclnet: there is no model none; train one first\n")


# compare

PREDICTIONS = "image,MEL,NV\na,0.75,0.25\nb,0.5,0.5\nc,0.25,0.75\n"
SPLIT = "image,label,lesion,subset\na,MEL,L1,validation\nb,NV,L2,validation\nc,NV,L3,validation\nd,NV,L4,train\n"


@pytest.fixture
def predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the process runs: a.csv and b.csv, that alone predicts all three images, and the labels."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text(PREDICTIONS)
    (tmp_path / "b.csv").write_text(PREDICTIONS.replace("0.5,0.5", "0.25,0.75"))
    (tmp_path / "labels.csv").write_text(SPLIT)
    return tmp_path


def test_compare_prints_and_writes_what_it_finds(run, predictions: Path):
    status, out, err = run("compare", "a.csv", "b.csv", "--labels", "labels.csv", "--json", "new/difference.json")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "A a.csv, B b.csv: 3 validation images of 3 lesions"
    assert lines[2].split()[:4] == ["accuracy", "0.6667", "1.0000", "+0.3333"]
    written = (predictions / "new" / "difference.json").read_text(encoding="utf-8")
    found = json.loads(written)
    assert list(found) == [
        *("a", "b", "conclusion", "images", "lesions"),
        *("mcnemar", "metrics", "sensitivity", "soft_labels"),
    ]
    assert (found["a"], found["b"], found["images"]) == ("a.csv", "b.csv", 3)
    assert found["mcnemar"] == {"only_a": 0, "only_b": 1, "p": 1}
    assert found["conclusion"] == lines[-1]
    alone = run("compare", "a.csv", "b.csv", "--labels", "labels.csv", "--json", "-")
    assert (alone.status, alone.out) == (0, written)


def test_compare_writes_a_page(run, predictions: Path):
    printed = run("compare", "a.csv", "b.csv", "--labels", "labels.csv")
    arguments = ("compare", "a.csv", "b.csv", "--labels", "labels.csv", "--html")
    assert run(*arguments, "new/difference.html") == printed
    page = (predictions / "new" / "difference.html").read_text(encoding="utf-8")
    assert "<h1>a.csv and b.csv</h1>" in page
    assert printed.out.splitlines()[-1].replace("<", "&lt;").replace("'", "&#39;") in page
    command = [sys.executable, "-m", "cclnet", *arguments, "-", "--json", "difference.json"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    alone = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (alone.returncode, alone.stdout, alone.stderr) == (0, page, "")
    assert json.loads((predictions / "difference.json").read_text(encoding="utf-8"))["images"] == 3


def test_compare_does_not_write_over_its_input(run, predictions: Path):
    status, out, err = run("compare", "a.csv", "b.csv", "--labels", "labels.csv", "--html", "b.csv")
    assert (status, out) == (1, "")
    assert err == "cclnet: b.csv is also read: choose another file to write\n"


def test_compare_of_what_cannot_be_read_ends_with_1(run, predictions: Path):
    status, out, err = run("compare", "a.csv", "b.csv", "--json", "-")
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        "cclnet: a.csv cannot be read: correct what follows or name another experiment",
        "  split.csv: is missing; --labels names another for prediction files",
    ]
