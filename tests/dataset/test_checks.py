import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from cclnet.cli.check import show_findings
from cclnet.dataset.checks import Findings, UncheckedError, check_dataset
from cclnet.dataset.isic import GROUND_TRUTH_ZIP, INPUT_ZIP, LESION_TABLE
from cclnet.dataset.tables import read_table
from cclnet.system.errors import Problem
from tests.dataset.builders import LABELS, LESIONS, good_rows, row, write_labels, write_lesions, write_zip
from tests.images.builders import blobs, encoded, noise


def pictures(files: Mapping[str, bytes] = {}) -> dict[str, bytes]:
    """A JPEG for each labelled image, with some files added or replaced."""
    images = {
        f"Input/{image}.jpg": encoded(Image.fromarray(noise(12, 9, seed)), "JPEG") for seed, image in enumerate(LABELS)
    }
    return {"Input/ATTRIBUTION.txt": b"by", **images, **files}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small dataset without a fault."""
    write_zip(tmp_path / INPUT_ZIP, pictures())
    write_labels(tmp_path, good_rows())
    write_lesions(tmp_path, [f"{image},{lesion},consensus" for image, lesion in LESIONS.items()])
    return tmp_path


def problems(folder: Path) -> list[Problem]:
    return list(check_dataset(str(folder)).problems)


def test_a_good_dataset_is_counted(folder: Path):
    counts = {"MEL": 1, "NV": 2, "BCC": 0, "AKIEC": 0, "BKL": 0, "DF": 1, "VASC": 0}
    notes = [
        Problem("class MEL", "has a single image, and each subset needs one"),
        Problem("class NV", "has a single lesion or group, which split: lesion cannot divide"),
        Problem("class DF", "has a single image, and each subset needs one"),
    ]
    assert check_dataset(str(folder)) == Findings(str(folder), 4, 4, 3, counts, [], notes)


def test_a_subset_has_its_own_lesions_only(folder: Path):
    write_lesions(folder, [*(f"{i},{lesion},x" for i, lesion in LESIONS.items()), "ISIC_0000009,HAM_9,x"])
    assert check_dataset(str(folder)).lesions == 3


def test_every_image_is_told_of_and_decoded_once(folder: Path):
    told = []

    def note(name: str, done: int, total: int, detail: str = "") -> None:
        told.append((name, done, total))

    check_dataset(str(folder), note)
    assert told == [("images decoded", done, 4) for done in range(1, 5)]


GREY = noise(12, 9)[:, :, 0]
TURNED = Image.Exif()
TURNED[0x0112] = 6


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(GREY), "JPEG"),
        encoded(Image.fromarray(noise(12, 9)).convert("CMYK"), "JPEG"),
        encoded(Image.fromarray(noise(12, 9)), "JPEG", exif=TURNED),
        encoded(Image.fromarray(noise(12, 9)), "JPEG", progressive=True),
        encoded(Image.fromarray(noise(12, 9)), "PNG"),
    ],
    ids=["grey", "CMYK", "turned", "progressive", "PNG"],
)
def test_pictures_that_are_no_fault(folder: Path, data: bytes):
    write_zip(folder / INPUT_ZIP, pictures({"Input/ISIC_0000001.jpg": data}))
    assert problems(folder) == []


def test_tables_whose_form_is_no_fault(folder: Path):
    write_labels(folder, good_rows()[::-1], encoding="utf-8-sig", end="\r\n")
    write_lesions(folder, [f"{i},{lesion}" for i, lesion in LESIONS.items()], header="\ufeffimage,lesion_id")
    findings = check_dataset(str(folder))
    assert (findings.labels, findings.lesions, findings.problems) == (4, 3, [])


def test_images_are_decoded_although_both_tables_cannot_be_read(folder: Path):
    write_zip(folder / INPUT_ZIP, pictures({"Input/ISIC_0000003.jpg": b"<html>"}))
    write_labels(folder, good_rows(), header="image,melanoma")
    (folder / LESION_TABLE).unlink()
    findings = check_dataset(str(folder))
    assert [where for where, _ in findings.problems] == [
        f"{GROUND_TRUTH_ZIP}: 'Truth/labels.csv'",
        LESION_TABLE,
        f"{INPUT_ZIP}: 'Input/ISIC_0000003.jpg'",
    ]
    assert (findings.images, findings.labels, findings.lesions) == (4, 0, 0)


def test_rows_without_a_class_are_no_labels(folder: Path):
    write_labels(folder, [row("ISIC_0000001", "NV", "DF"), *good_rows()[1:]])
    findings = check_dataset(str(folder))
    assert (findings.images, findings.labels, findings.lesions) == (4, 3, 3)
    assert sum(findings.class_counts.values()) == 3
    assert len(findings.problems) == 1


@pytest.mark.parametrize("contents", [b"", b"<html>sign in</html>", b"PK\x03\x04 and then nothing"])
def test_images_that_are_no_zip(folder: Path, contents: bytes):
    (folder / INPUT_ZIP).write_bytes(contents)
    assert problems(folder) == [(INPUT_ZIP, "is no zip, or not the whole of one")]


def test_an_empty_folder_lacks_everything(tmp_path: Path):
    findings = check_dataset(str(tmp_path))
    lacking = "holds neither the official files nor labels.csv nor a folder for each class"
    assert findings.problems == [("the folder", lacking)]
    assert (findings.images, findings.labels, findings.lesions) == (0, 0, 0)
    (tmp_path / LESION_TABLE).write_bytes(b"image,lesion_id\na,b\n")
    findings = check_dataset(str(tmp_path))
    assert findings.problems == [(name, "is missing") for name in (INPUT_ZIP, GROUND_TRUTH_ZIP)]


def test_both_files_of_one_image_are_decoded(folder: Path):
    write_zip(folder / INPUT_ZIP, {"Input/ISIC_0000001.jpeg": b"<html>", **pictures()})
    assert problems(folder) == [
        (f"{INPUT_ZIP}: 'Input/ISIC_0000001.jpg'", "is the same image as 'Input/ISIC_0000001.jpeg'"),
        (f"{INPUT_ZIP}: 'Input/ISIC_0000001.jpeg'", "cannot be decoded: not in any known image format"),
    ]


def test_a_bomb_is_never_unpacked(folder: Path, monkeypatch: pytest.MonkeyPatch):
    write_zip(folder / INPUT_ZIP, pictures({"Input/ISIC_0000001.jpg": bytes(10_000_000)}))
    unpacked = []
    unpack = zipfile.ZipFile.open

    def watched(archive: zipfile.ZipFile, member: str | zipfile.ZipInfo, *rest: object):
        unpacked.append(member if isinstance(member, str) else member.filename)
        return unpack(archive, member, *rest)  # pyright: ignore[reportArgumentType, reportCallIssue]

    monkeypatch.setattr(zipfile.ZipFile, "open", watched)
    assert [what.split(" bytes ")[1] for _, what in problems(folder)] == ["to 10,000,000"]
    opened = sorted(name for name in unpacked if name.startswith("Input/ISIC"))  # the threads' order is chance
    assert opened == [f"Input/{image}.jpg" for image in [*LABELS][1:]]


@pytest.mark.parametrize("source", ["https://example.org/data", "file:///", "nothing", INPUT_ZIP])
def test_what_is_no_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str):
    monkeypatch.chdir(folder)
    with pytest.raises(UncheckedError, match="is no folder: name the one that holds") as caught:
        check_dataset(source)
    assert "\n" not in str(caught.value)


def test_a_file_that_the_system_does_not_give(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UncheckedError, match=f"{LESION_TABLE}: Permission denied; fix that and run it again"):
        check_dataset(str(folder))


# what deserves a look


def notes(folder: Path) -> list[Problem]:
    """The notes apart from those about classes of one image or lesion."""
    return [
        note
        for note in check_dataset(str(folder)).notes
        if "each subset" not in note.what and "split:" not in note.what
    ]


def picture(seed: int) -> bytes:
    return encoded(blobs(seed))


def test_equal_files_and_copies_of_different_lesions_are_named(folder: Path):
    same = {"Input/ISIC_0000001.jpg": picture(1), "Input/ISIC_0000002.jpg": picture(1)}
    changed = encoded(blobs(2).transpose(Image.Transpose.FLIP_LEFT_RIGHT), "JPEG", quality=70)
    alike = {"Input/ISIC_0000003.jpg": picture(2), "Input/ISIC_0000004.jpg": changed}
    write_zip(folder / INPUT_ZIP, pictures(same | alike))
    assert notes(folder) == [
        ("ISIC_0000001, ISIC_0000002", "are the same file, but are labelled MEL and NV"),
        ("ISIC_0000003, ISIC_0000004", "hardly differ, but are labelled NV and DF"),
    ]
    assert check_dataset(str(folder)).problems == []


def test_copies_within_a_lesion_are_counted(folder: Path):
    same = {"Input/ISIC_0000001.jpg": picture(1), "Input/ISIC_0000003.jpg": picture(1)}
    write_zip(folder / INPUT_ZIP, pictures(same))
    assert notes(folder) == [("the folder", "has 1 image that another of the same lesion or group shows too")]


def test_a_lesion_of_several_classes_is_named(folder: Path):
    write_lesions(folder, [f"{image},{'HAM_9' if image != 'ISIC_0000004' else 'HAM_1'},x" for image in LABELS])
    assert notes(folder) == [("lesion or group 'HAM_9'", "has images of NV (2) and MEL (1)")]


def test_an_image_of_a_few_pixels_is_named(folder: Path):
    tiny = encoded(Image.fromarray(noise(5, 3)), "PNG")
    write_zip(folder / INPUT_ZIP, pictures({"Input/ISIC_0000002.jpg": tiny}))
    assert notes(folder) == [("ISIC_0000002", "has 5 × 3 pixels; half of the images have a shorter side of 9")]
    small = encoded(Image.fromarray(noise(30, 20)), "PNG")
    large = {f"Input/{image}.jpg": encoded(Image.fromarray(noise(400, 300, n))) for n, image in enumerate(LABELS)}
    write_zip(folder / INPUT_ZIP, pictures(large | {"Input/ISIC_0000002.jpg": small}))
    assert notes(folder) == [("ISIC_0000002", "has 30 × 20 pixels; half of the images have a shorter side of 300")]


def test_lesions_that_nobody_names_are_unknown_and_not_counted(folder: Path):
    write_lesions(folder, [f"{image},{image},x" for image in LABELS])
    findings = check_dataset(str(folder))
    assert findings.lesions is None
    assert findings.summary().startswith("no problem: 4 images, 4 labels, lesions unknown")
    unknown = "does not say the lesion or group of any image: leakage between subsets is unknown there"
    assert ("the folder", unknown) in findings.notes
    write_lesions(folder, [f"{image},{lesion if n else image},x" for n, (image, lesion) in enumerate(LESIONS.items())])
    findings = check_dataset(str(folder))
    assert findings.lesions == 4
    unknown = "does not say the lesion or group of 1 image: leakage between subsets is unknown there"
    assert ("the folder", unknown) in findings.notes


def test_lesions_count_as_the_split_counts_them(folder: Path):
    """One lesion in three spellings is one for both."""
    composed, decomposed = "H\u00e4M", "Ha\u0308M"
    spelt = dict(zip(LABELS, (composed, decomposed, f"{composed} ", "other"), strict=True))
    write_lesions(folder, [f"{image},{lesion},x" for image, lesion in spelt.items()])
    findings = check_dataset(str(folder))
    assert findings.lesions == 2 == read_table(folder)["lesion"].nunique()
    assert findings.notes[0] == (
        LESION_TABLE,
        "writes lesion 'HäM' in 3 ways, which count as one: 'Ha\\u0308M', 'H\\xe4M', 'H\\xe4M '",
    )


def test_many_notes_of_a_kind_are_counted(folder: Path):
    names = [f"ISIC_{number:07d}" for number in range(100)]
    write_zip(folder / INPUT_ZIP, {f"{name}.png": picture(number // 2) for number, name in enumerate(names)})
    write_labels(folder, [row(name, ("MEL", "NV")[number % 2]) for number, name in enumerate(names)])
    write_lesions(folder, [f"{name},HAM_{number},x" for number, name in enumerate(names)])
    found = notes(folder)
    assert len(found) == 21
    assert found[-1] == ("the folder", "has 30 more groups of images that are the same file")


def test_a_folder_of_images_is_checked_as_it_is(tmp_path: Path):
    for number in range(6):
        path = tmp_path / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(number))
    (tmp_path / "cat" / "0.png").write_bytes(b"<html>")
    (tmp_path / "cat" / "notes.txt").write_text("?")
    before = sorted(tmp_path.rglob("*"))
    findings = check_dataset(str(tmp_path))
    assert findings.class_counts == {"cat": 3, "dog": 3}
    assert (findings.images, findings.labels, findings.lesions) == (6, 6, None)
    assert findings.problems == [("cat/0.png", "cannot be decoded: not in any known image format")]
    assert ("the folder", "holds other files, which are passed over: .txt 1") in findings.notes
    assert sorted(tmp_path.rglob("*")) == before


# what is printed

LONG = Problem(f"{GROUND_TRUTH_ZIP}: 'Truth/{'long' * 60}.csv', line 5, '[bold]ISIC :smile:'", "NV is '[/]'" * 20)


def findings_with(*found: Problem) -> Findings:
    return Findings("data", 10_015, 10_000, 7_470, {"MEL": 1_113, "NV": 0}, found)


def printed(findings: Findings, terminal: bool = False) -> str:
    file = io.StringIO()
    show_findings(Console(file=file, width=60, color_system=None, force_terminal=terminal), findings)
    return file.getvalue()


def test_a_problem_is_one_whole_line_where_there_is_no_terminal():
    text = printed(findings_with(LONG, Problem("a.zip", "is missing")))
    assert text.splitlines() == [
        f"{LONG.where}: {LONG.what}",
        "a.zip: is missing",
        "2 problems in 10,015 images",
        "MEL 1,113, NV 0",
    ]


def test_a_terminal_gets_a_table_that_cuts_nothing():
    lines = printed(findings_with(LONG), terminal=True).splitlines()
    assert max(len(line) for line in lines) <= 60
    head = next(line for line in lines if "where" in line)
    rows = lines[lines.index(head) + 2 : -3]
    middle = head.index("what")
    where = "".join("".join(line[:middle].split()) for line in rows)
    what = "".join("".join(line[middle:].split()) for line in rows)
    assert where == "".join(LONG.where.split())
    assert what == "".join(LONG.what.split())
    assert lines[-2:] == ["1 problem in 10,015 images", "MEL 1,113, NV 0"]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_good_dataset_needs_no_table(terminal: bool):
    text = printed(findings_with(), terminal)
    assert text.splitlines() == ["no problem: 10,015 images, 10,000 labels, 7,470 lesions", "MEL 1,113, NV 0"]


def test_notes_come_between_problems_and_summary():
    findings = Findings("data", 2, 2, 2, {"MEL": 2}, [Problem("a", "is bad")], [Problem("b", "is\x1b[31m odd")])
    assert printed(findings).splitlines() == [
        "a: is bad",
        "note: b: 'is\\x1b[31m odd'",
        "1 problem in 2 images",
        "MEL 2",
    ]
    assert "note" in printed(findings, terminal=True)
    assert "\x1b[31m" not in printed(findings, terminal=True)


def test_one_is_not_many():
    one = Findings("data", 1, 1, 1, {"MEL": 1}, [])
    assert one.summary() == "no problem: 1 image, 1 label, 1 lesion\nMEL 1"
