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
from cclnet.system.errors import Problem
from tests.dataset.test_tables import LABELS, LESIONS, good_rows, row, write_labels, write_lesions, write_zip
from tests.images.test_decoding import encoded, noise


def pictures(files: Mapping[str, bytes] = {}) -> dict[str, bytes]:
    """A JPEG for each labelled image, with some files added or replaced."""
    images = {f"Input/{image}.jpg": encoded(Image.fromarray(noise(12, 9)), "JPEG") for image in LABELS}
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
    assert check_dataset(str(folder)) == Findings(str(folder), 4, 4, 3, counts, [])


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


def test_an_empty_folder_lacks_all_three_files(tmp_path: Path):
    findings = check_dataset(str(tmp_path))
    assert findings.problems == [(name, "is missing") for name in (INPUT_ZIP, GROUND_TRUTH_ZIP, LESION_TABLE)]
    assert (findings.images, findings.labels, findings.lesions) == (0, 0, 0)


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


def test_one_is_not_many():
    one = Findings("data", 1, 1, 1, {"MEL": 1}, [])
    assert one.summary() == "no problem: 1 image, 1 label, 1 lesion\nMEL 1"
