import io
import re
import struct
import zipfile
from pathlib import Path

import pytest

from cclnet.dataset.isic import CLASSES, GROUND_TRUTH_ZIP, INPUT_ZIP, LESION_TABLE
from cclnet.dataset.tables import (
    OWN_LABELS,
    dataset_problems,
    image_members,
    images_in,
    labels_in,
    lesions_in,
    read_classes,
    read_table,
)
from cclnet.system.errors import DataError, Problem
from tests.dataset.builders import HEADER, LABELS, LESIONS, good_rows, row, write_labels, write_lesions, write_zip


def good_images() -> dict[str, bytes]:
    suffixes = ("jpg", "JPG", "jpeg", "jpg")
    images = {
        f"Input/{image}.{suffix}": b"pixels of " + image.encode()
        for image, suffix in zip(LABELS, suffixes, strict=True)
    }
    return {"Input/": b"", "Input/ATTRIBUTION.txt": b"by", "Input/LICENSE.txt": b"CC", **images}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small dataset without a fault."""
    write_zip(tmp_path / INPUT_ZIP, good_images())
    write_labels(tmp_path, good_rows())
    write_lesions(tmp_path, [f"{image},{lesion},consensus" for image, lesion in LESIONS.items()])
    return tmp_path


def only_problem(folder: Path) -> Problem:
    problems = dataset_problems(folder)
    assert len(problems) == 1, problems
    return problems[0]


def rewrite(path: Path, pattern: bytes, position: int, data: bytes) -> None:
    """Write over ``data`` at a position after every place where the pattern occurs."""
    contents = bytearray(path.read_bytes())
    at = contents.find(pattern)
    while at >= 0:
        contents[at + position : at + position + len(data)] = data
        at = contents.find(pattern, at + 1)
    path.write_bytes(contents)


def test_a_good_dataset_is_read(folder):
    assert dataset_problems(folder) == []
    assert labels_in(folder / GROUND_TRUTH_ZIP) == (CLASSES, LABELS, [])
    assert lesions_in(folder / LESION_TABLE) == (LESIONS, [])
    table = read_table(folder)
    assert list(table.itertuples(index=False, name=None)) == [(i, LABELS[i], LESIONS[i]) for i in LABELS]
    members = image_members(folder / INPUT_ZIP)
    assert list(members) == list(LABELS)
    with zipfile.ZipFile(folder / INPUT_ZIP) as archive:
        assert archive.read(members["ISIC_0000002"]) == b"pixels of ISIC_0000002"


OWN_CLASSES = ["Röhre, lang", "NA", "10", "$x$"]
OWN_TABLE = 'image,"Röhre, lang",NA,10,$x$\n' + "".join(
    f"{image},{','.join('1' if place == own else '0' for place in range(4))}\n" for own, image in enumerate(LABELS)
)


def write_own_labels(folder: Path, table: str, name: str = OWN_LABELS) -> None:
    write_zip(folder / GROUND_TRUTH_ZIP, {f"Truth/{name}": table})


def test_a_table_may_have_classes_of_its_own(folder):
    write_own_labels(folder, OWN_TABLE)
    assert dataset_problems(folder) == []
    assert read_classes(folder / GROUND_TRUTH_ZIP) == OWN_CLASSES
    assert read_table(folder)["label"].tolist() == OWN_CLASSES
    write_own_labels(folder, OWN_TABLE, "labels.csv")
    where, what = only_problem(folder)
    assert where == f"{GROUND_TRUTH_ZIP}: 'Truth/labels.csv'"
    assert what.endswith(f"instead of {HEADER!r}")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("image", ["has fewer than two classes"]),
        ("image,cat", ["has fewer than two classes"]),
        ("image,cat,dog,cat", ["has the class 'cat' more than once"]),
        ("image,cat,Cat", ["has the classes 'cat' and 'Cat': mind the letter case"]),
        (
            "image,label, cat,",
            [
                "has a class 'label', which is the name of a column: call it otherwise",
                "has a class ' cat': no empty name, no space at its ends, no control character",
                "has a class '': no empty name, no space at its ends, no control character",
            ],
        ),
        ("picture,cat,dog", ["has the columns 'picture,cat,dog' instead of 'image,cat,dog'"]),
    ],
)
def test_names_that_no_classes_may_have(folder, header, said):
    write_own_labels(folder, f"{header}\nISIC_0000001{',0' * header.count(',')}\n")
    assert dataset_problems(folder) == [(f"{GROUND_TRUTH_ZIP}: 'Truth/{OWN_LABELS}'", fault) for fault in said]
    with pytest.raises(DataError):
        read_classes(folder / GROUND_TRUTH_ZIP)


@pytest.mark.parametrize("table", ["", "image,'\"a\n", "\0"])
def test_own_classes_that_cannot_be_read(folder, table):
    write_own_labels(folder, table)
    assert only_problem(folder).where == f"{GROUND_TRUTH_ZIP}: 'Truth/{OWN_LABELS}'"


@pytest.mark.parametrize("name", [OWN_LABELS, "labels.csv"])
def test_labels_of_given_classes_from_a_zip_or_the_table_itself(folder, name):
    write_own_labels(folder, OWN_TABLE, name)
    (folder / name).write_text(OWN_TABLE, encoding="utf-8")
    for path in (folder / GROUND_TRUTH_ZIP, folder / name):
        assert labels_in(path, OWN_CLASSES) == (OWN_CLASSES, dict(zip(LABELS, OWN_CLASSES, strict=True)), [])
        _, labels, [problem] = labels_in(path, ["cat", "dog"])
        assert labels == {}
        assert re.fullmatch(r"has the columns 'image,.* instead of 'image,cat,dog'", problem.what)
    assert labels_in(folder / "absent.csv", OWN_CLASSES)[2] == [("absent.csv", "is missing")]


def test_the_tables_are_sorted_and_their_form_is_free(folder):
    """A byte-order mark, CRLF, integers, blank lines and a column more change nothing."""
    expected = read_table(folder).to_csv()
    rows = [line.replace(".0", "") + ",note" for line in reversed(good_rows())]
    write_labels(folder, [*rows, ""], header=HEADER + ",remark", encoding="utf-8-sig", end="\r\n")
    write_lesions(folder, [f"{i},{lesion}" for i, lesion in reversed(LESIONS.items())], header="\ufeffimage,lesion_id")
    assert dataset_problems(folder) == []
    assert read_table(folder).to_csv() == expected


def test_the_lesion_table_may_know_more_images(folder):
    write_lesions(folder, [f"{image},{lesion},x" for image, lesion in [*LESIONS.items(), ("ISIC_0000009", "HAM_9")]])
    assert dataset_problems(folder) == []
    assert len(read_table(folder)) == len(LABELS)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("image,MEL,NV,BCC,AKIEC,BKL,DF", "'image,MEL,NV,BCC,AKIEC,BKL,DF' instead of"),
        ("image,mel,nv,bcc,akiec,bkl,df,vasc", "image,mel"),
        ("image,NV,MEL,BCC,AKIEC,BKL,DF,VASC", "image,NV,MEL"),
        ("<html>", "<html>"),
    ],
)
def test_a_wrong_header_of_the_labels(folder, header, said):
    write_labels(folder, good_rows(), header=header)
    where, what = only_problem(folder)
    assert where == f"{GROUND_TRUTH_ZIP}: 'Truth/labels.csv'"
    assert said in what
    assert f"instead of {HEADER!r}" in what


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (row("ISIC_0000002", "MEL", "BCC"), "is labelled MEL and BCC instead of with one class"),
        (row("ISIC_0000002"), "is labelled with no class"),
        (row("ISIC_0000002", "MEL").replace("1.0", "nan"), "MEL is 'nan' instead of 0 or 1"),
        (row("ISIC_0000002", "MEL").replace("1.0", ""), "MEL is '' instead of 0 or 1"),
        (row("ISIC_0000002", "MEL").replace("1.0", "0.5"), "MEL is '0.5'"),
        (row("ISIC_0000002", "MEL").replace("1.0", "inf"), "MEL is 'inf'"),
        (row("ISIC_0000002", "MEL").replace("1.0", "yes"), "MEL is 'yes'"),
        (row("ISIC_0000002", "MEL")[:-4], "has 7 values instead of 8"),
        (row("ISIC_0000002", "MEL") + ",0.0", "has 9 values instead of 8"),
    ],
)
def test_a_broken_row_of_the_labels(folder, broken, said):
    rows = good_rows()
    rows[1] = broken
    write_labels(folder, rows)
    where, what = only_problem(folder)
    assert where == f"{GROUND_TRUTH_ZIP}: 'Truth/labels.csv', line 3, 'ISIC_0000002'"
    assert said in what
    with pytest.raises(DataError) as error:
        read_table(folder)
    assert error.value.problems == (Problem(where, what),)


@pytest.mark.parametrize("again", ["ISIC_0000001", "isic_0000001"])
def test_an_image_labelled_twice(folder, again):
    write_labels(folder, [*good_rows(), row(again, "MEL")])
    where, what = only_problem(folder)
    assert f"line 6, {again!r}" in where
    assert "is there a second time" in what
    assert "line 2" in what


def test_a_row_without_an_image(folder):
    write_labels(folder, [*good_rows(), row(" ", "MEL")])
    assert "names no image" in [what for _, what in dataset_problems(folder)]


@pytest.mark.parametrize("table", [b"\xff\xfe\x00", b'image,"MEL\n', b"image,MEL\0\n"])
def test_bytes_that_are_no_table(folder, table):
    write_zip(folder / GROUND_TRUTH_ZIP, {"labels.csv": table})
    (folder / LESION_TABLE).write_bytes(table)
    found = dataset_problems(folder)
    assert [where for where, _ in found] == [f"{GROUND_TRUTH_ZIP}: 'labels.csv'", LESION_TABLE]
    assert all("\n" not in what for _, what in found)


def test_empty_tables(folder):
    write_labels(folder, [])
    (folder / LESION_TABLE).write_bytes(b"")
    assert [what for _, what in dataset_problems(folder)] == [
        "has no rows",
        "has the columns '' instead of 'image,lesion_id'",
    ]


@pytest.mark.parametrize("members", [{"ATTRIBUTION.txt": b"by"}, {"a.csv": b"image", "b.csv": b"image"}])
def test_the_labels_zip_needs_one_table(folder, members):
    write_zip(folder / GROUND_TRUTH_ZIP, members)
    where, what = only_problem(folder)
    assert where == GROUND_TRUTH_ZIP
    assert what in ("holds no file with the suffix .csv", "holds 2 tables instead of one")


def test_a_damaged_label_table(folder):
    write_labels(folder, good_rows())
    with zipfile.ZipFile(folder / GROUND_TRUTH_ZIP) as archive:
        start = archive.getinfo("Truth/labels.csv").header_offset + 30 + len("Truth/labels.csv")
    contents = bytearray((folder / GROUND_TRUTH_ZIP).read_bytes())
    contents[start + 20] ^= 0xFF
    (folder / GROUND_TRUTH_ZIP).write_bytes(contents)
    assert only_problem(folder) == (f"{GROUND_TRUTH_ZIP}: 'Truth/labels.csv'", "is damaged")


def test_a_wrong_header_of_the_lesions(folder):
    write_lesions(folder, ["ISIC_0000001,HAM_1"], header="image,Lesion_ID")
    assert only_problem(folder) == (LESION_TABLE, "has the columns 'image,Lesion_ID' instead of 'image,lesion_id'")


def test_broken_rows_of_the_lesions(folder):
    rows = [f"{image},{lesion},x" for image, lesion in LESIONS.items()]
    write_lesions(folder, [*rows[:2], "ISIC_0000003,,x", "ISIC_0000004", rows[0]])
    assert [(where.removeprefix(f"{LESION_TABLE}, "), what[:22]) for where, what in dataset_problems(folder)] == [
        ("line 5, 'ISIC_0000004'", "has 1 values instead o"),
        ("line 6, 'ISIC_0000001'", "is there a second time"),
        ("line 4, 'ISIC_0000003'", "names no lesion"),
    ]


def test_an_image_without_a_lesion(folder):
    write_lesions(folder, [f"{image},{lesion},x" for image, lesion in LESIONS.items()][:3])
    expected = Problem(LESION_TABLE, "has no lesion of image 'ISIC_0000004'")
    assert only_problem(folder) == expected
    with pytest.raises(DataError, match="fix what follows") as error:
        read_table(folder)
    assert error.value.problems == (expected,)


def test_labels_and_images_that_do_not_meet(folder):
    images = good_images()
    images["Input/ISIC_0000009.jpg"] = images.pop("Input/ISIC_0000001.jpg")
    images["Input/isic_0000004.jpg"] = images.pop("Input/ISIC_0000004.jpg")
    write_zip(folder / INPUT_ZIP, images)
    assert dataset_problems(folder) == [
        (INPUT_ZIP, "has no image 'ISIC_0000001'"),
        (INPUT_ZIP, "has no image 'ISIC_0000004', but one of 'isic_0000004': mind the letter case"),
        (GROUND_TRUTH_ZIP, "has no label of image 'ISIC_0000009'"),
        (GROUND_TRUTH_ZIP, "has no label of image 'isic_0000004', but one of 'ISIC_0000004': mind the letter case"),
    ]


@pytest.mark.parametrize("name", [INPUT_ZIP, GROUND_TRUTH_ZIP])
@pytest.mark.parametrize(
    "contents", [b"", b"<!doctype html><html>sign in</html>", b"PK\x03\x04 and then nothing", None], ids=repr
)
def test_what_is_no_zip(folder, name, contents):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-30] if contents is None else contents)
    assert only_problem(folder) == (name, "is no zip, or not the whole of one")


def test_files_that_are_missing(tmp_path):
    expected = [(name, "is missing") for name in (INPUT_ZIP, GROUND_TRUTH_ZIP, LESION_TABLE)]
    assert dataset_problems(tmp_path) == expected
    for read in (read_classes, image_members):
        with pytest.raises(DataError, match="is missing"):
            read(tmp_path / "absent")
    assert lesions_in(tmp_path / "absent") == ({}, [("absent", "is missing")])


@pytest.mark.parametrize("members", [{}, {"Input/": b""}])
def test_an_empty_zip(folder, members):
    write_zip(folder / INPUT_ZIP, members)
    assert only_problem(folder) == (INPUT_ZIP, "holds no files")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice(folder):
    with zipfile.ZipFile(folder / INPUT_ZIP, "a") as archive:
        archive.writestr("Input/ISIC_0000001.jpg", b"other pixels")
    problem = (f"{INPUT_ZIP}: 'Input/ISIC_0000001.jpg'", "is there more than once")
    assert dataset_problems(folder) == [problem, problem]


@pytest.mark.parametrize("name", ["Input/ISIC_0000001.JPEG", "Other/isic_0000001.jpg"])
def test_an_image_that_is_there_under_two_names(folder, name):
    write_zip(folder / INPUT_ZIP, {**good_images(), name: b"pixels"})
    assert (f"{INPUT_ZIP}: {name!r}", "is the same image as 'Input/ISIC_0000001.jpg'") in dataset_problems(folder)


@pytest.mark.parametrize("name", ["Input/thumbs.db", "Input/ISIC_0000005.heic", "__MACOSX/ATTRIBUTION2.txt"])
def test_a_member_that_does_not_belong_there(folder, name):
    write_zip(folder / INPUT_ZIP, {**good_images(), name: b"?"})
    said = "is neither .jpg, .jpeg, .png, .tif, .tiff, .bmp, .gif, .webp nor a note"
    assert only_problem(folder) == (f"{INPUT_ZIP}: {name!r}", said)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/ISIC_0000001.jpg",
        "../ISIC_0000001.jpg",
        "Input/../../ISIC_0000001.jpg",
        "C:/ISIC_0000001.jpg",
        "..\\ISIC_0000001.jpg",
    ],
)
def test_a_hostile_member_name(folder, name):
    images = {member: data for member, data in good_images().items() if "ISIC_0000001" not in member}
    write_zip(folder / INPUT_ZIP, {**images, name: b"pixels"})
    problems = dataset_problems(folder)
    assert problems[0] == (f"{INPUT_ZIP}: {name!r}", "is a path that may lead out of a folder")
    with pytest.raises(DataError, match="lead out of a folder"):
        image_members(folder / INPUT_ZIP)


CENTRAL_HEADER = b"PK\x01\x02"


def test_encrypted_members(folder):
    rewrite(folder / INPUT_ZIP, CENTRAL_HEADER, 8, b"\x01\x00")
    problems = dataset_problems(folder)
    assert (f"{INPUT_ZIP}: 'Input/ISIC_0000001.jpg'", "is encrypted") in problems
    assert {what for _, what in problems} == {"is encrypted"}


def test_an_unknown_compression(folder):
    rewrite(folder / GROUND_TRUTH_ZIP, CENTRAL_HEADER, 10, struct.pack("<H", 99))
    assert {what for _, what in dataset_problems(folder)} == {"is compressed by an unknown method (99)"}


def test_a_bomb(folder):
    write_zip(folder / INPUT_ZIP, {**good_images(), "Input/ISIC_0000001.jpg": bytes(1_000_000)})
    where, what = only_problem(folder)
    assert where == f"{INPUT_ZIP}: 'Input/ISIC_0000001.jpg'"
    assert what.endswith("bytes to 1,000,000")


def test_a_member_of_an_absurd_size(folder):
    """Half a gigabyte claimed by each member, with as many packed bytes as make the ratio harmless."""
    rewrite(folder / INPUT_ZIP, CENTRAL_HEADER, 20, struct.pack("<LL", 2**29, 2**29))
    assert any("would unpack 536,870,912 bytes to 536,870,912" in what for _, what in dataset_problems(folder))


def test_overlapping_members(folder):
    """Two entries of the directory that share one kernel of packed bytes: the way to bombs of any ratio."""
    with zipfile.ZipFile(folder / INPUT_ZIP) as archive:
        offsets = {entry.filename: entry.header_offset for entry in archive.infolist()}
    contents = (folder / INPUT_ZIP).read_bytes()
    at = contents.rfind(b"Input/ISIC_0000003.jpeg") - 46
    offset = struct.pack("<L", offsets["Input/ISIC_0000002.JPG"])
    (folder / INPUT_ZIP).write_bytes(contents[: at + 42] + offset + contents[at + 46 :])
    assert only_problem(folder) == (f"{INPUT_ZIP}: 'Input/ISIC_0000003.jpeg'", "overlaps another part of the zip")


def test_all_problems_come_in_one_report(folder):
    images = {**good_images(), "Input/thumbs.db": b"?"}
    del images["Input/ISIC_0000003.jpeg"]
    write_zip(folder / INPUT_ZIP, images)
    write_labels(folder, [row("ISIC_0000001", "NV", "DF"), row("ISIC_0000002"), *good_rows()[2:]])
    write_lesions(folder, ["ISIC_0000001,HAM_1,x", "ISIC_0000002,,x", "ISIC_0000003,HAM_1,x"])
    whats = [what for _, what in dataset_problems(folder)]
    assert whats == [
        "is neither .jpg, .jpeg, .png, .tif, .tiff, .bmp, .gif, .webp nor a note",
        "is labelled NV and DF instead of with one class",
        "is labelled with no class instead of with one class",
        "names no lesion",
        "has no image 'ISIC_0000003'",
        "has no lesion of image 'ISIC_0000004'",
    ]


def test_the_order_of_members_and_rows_does_not_matter(folder):
    images = dict(reversed(good_images().items()))
    write_zip(folder / INPUT_ZIP, images)
    write_labels(folder, good_rows()[::-1])
    assert list(image_members(folder / INPUT_ZIP)) == sorted(LABELS)
    assert read_table(folder)["image"].tolist() == sorted(LABELS)


def test_a_stored_zip_within_a_zip_is_not_unpacked(folder):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("ISIC_0000001.jpg", b"pixels")
    write_zip(folder / INPUT_ZIP, {**good_images(), "Input/more.zip": inner.getvalue()})
    assert only_problem(folder)[0] == f"{INPUT_ZIP}: 'Input/more.zip'"


def test_lesions_and_images_that_a_spreadsheet_would_compute_are_refused(tmp_path: Path):
    formula = "reads as a formula, which a spreadsheet would compute as it opens a table: call it otherwise"
    write_lesions(tmp_path, ["a,=H(1),x", "b,-2,y"])
    assert lesions_in(tmp_path / LESION_TABLE)[1] == [(f"{LESION_TABLE}, line 2, 'a'", f"has a lesion that {formula}")]
    write_zip(tmp_path / "a.zip", {"in/+1|2!.png": b"", "in/-2.png": b""})
    assert images_in(tmp_path / "a.zip")[1] == [("a.zip: 'in/+1|2!.png'", formula)]
