import os
import zipfile
from pathlib import Path

import pytest

from cclnet.dataset.archives import LARGEST_MEMBER
from cclnet.inference.pictures import Picture, map_pictures, passed_over, pictures_in, read_pictures, repeated_images
from cclnet.system.errors import DataError, Problem
from tests.dataset.builders import write_zip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(*names: str) -> None:
    """Write files that hold their own names."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name, encoding="utf-8")


def found(*sources: str) -> list[tuple[str, str]]:
    """The ids and places of what is found where nothing is wrong."""
    pictures, problems = pictures_in([Path(source) for source in sources])
    assert problems == []
    return [(picture.image, picture.where) for picture in pictures]


def problems_of(*sources: str) -> list[Problem]:
    return pictures_in([Path(source) for source in sources])[1]


def test_a_folder_gives_the_pictures_below_it_sorted_by_their_ids(folder: Path):
    suffixes = (".jpg", ".JPEG", ".png", ".tif", ".TIFF", ".bmp", ".gif", ".webp")
    write(*(f"in/{7 - number}/{number}{suffix}" for number, suffix in enumerate(suffixes)), "in/a.b.jpg")
    write("in/notes.txt", "in/data.zip", "in/jpg", "in/._0.jpg", "in/.hidden.png", "in/.trash/8.jpg")
    named = [(f"{7 - number}_{number}", f"in/{7 - number}/{number}{suffix}") for number, suffix in enumerate(suffixes)]
    assert found("in") == [*sorted(named), ("a.b", "in/a.b.jpg")]


def test_a_known_table_names_the_pictures_of_its_folder_also_in_zips(folder: Path):
    write("in/part_1/I_1.jpg", "in/part_1/I_2.jpg", "in/part_1/more.jpg", "in/notes.txt", "in/other.zip")
    write_zip(Path("in/part_2.zip"), {"I_3.jpg": b"3", "LICENSE.txt": b""})
    rows = ["lesion_id,image_id,dx", "L_1,I_1,nv", "L_2,I_2,mel", "L_3,I_3,nv"]
    Path("in/HAM10000_metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    assert found("in") == [
        ("I_1", "in/part_1/I_1.jpg"),
        ("I_2", "in/part_1/I_2.jpg"),
        ("I_3", "in/part_2.zip: 'I_3.jpg'"),
        ("part_1_more", "in/part_1/more.jpg"),
    ]
    pictures, _ = pictures_in([Path("in")])
    assert passed_over([Path("in")], pictures) == ".csv 1, .txt 1, .zip 1"
    assert passed_over([Path("in")]) == ".csv 1, .txt 1, .zip 2"
    assert [*map_pictures(pictures[2:3], bytes, 1)] == [b"3"]


def test_a_zip_gives_its_pictures_sorted_by_their_ids(folder: Path):
    write_zip(
        folder / "in.ZIP",
        {
            "Input/": b"",
            "Input/b.jpg": b"",
            "a.PNG": b"",
            "LICENSE.txt": b"",
            "__MACOSX/Input/._b.jpg": b"",
            ".trash/c.jpg": b"",
        },
    )
    assert found("in.ZIP") == [("Input_b", "in.ZIP: 'Input/b.jpg'"), ("a", "in.ZIP: 'a.PNG'")]


def test_a_file_that_is_named_may_have_any_name(folder: Path):
    write("photo", "b.dat", ".c.jpg")
    assert found("b.dat", "photo", ".c.jpg") == [("b", "b.dat"), ("photo", "photo"), (".c", ".c.jpg")]


def test_sources_come_in_their_order(folder: Path):
    write("z.jpg", "f/y.jpg", "f/x.jpg", "a.jpg")
    write_zip(folder / "m.zip", {"n.jpg": b"", "m.jpg": b""})
    assert [image for image, _ in found("z.jpg", "f", "m.zip", "a.jpg")] == ["z", "x", "y", "m", "n", "a"]


def test_every_picture_is_read_from_its_source_in_order(folder: Path):
    names = [f"f/{number}.jpg" for number in range(20)]
    write(*names, "one.jpg", "lost.jpg")
    members = {f"{number}.jpg": f"member {number}" for number in range(100, 120)}
    write_zip(folder / "a.zip", members)
    write_zip(folder / "b.zip", {"b.jpg": "member of b"})
    pictures, _ = pictures_in([Path(source) for source in ("one.jpg", "a.zip", "lost.jpg", "f", "b.zip")])
    Path("lost.jpg").unlink()
    contents = list(map_pictures(pictures, bytes.decode, 3))
    assert str(contents.pop(21)) == "cannot be read: No such file or directory"
    assert contents == ["one.jpg", *members.values(), *sorted(names), "member of b"]


FORMULA = "reads as a formula, which a spreadsheet would compute as it opens a table: call it otherwise"


def test_names_that_a_spreadsheet_would_compute_are_refused(folder: Path):
    write("in/=1+cmd|'a'!A0.png", "in/-1.png")
    write_zip(Path("in.zip"), {"@SUM(1).png": b"", "b.png": b""})
    pictures, problems = pictures_in([Path("in"), Path("in.zip")])
    assert [picture.image for picture in pictures] == ["-1", "b"]
    assert problems == [("in/=1+cmd|'a'!A0.png", FORMULA), ("in.zip: '@SUM(1).png'", FORMULA)]


def test_unsafe_members_are_named_and_the_others_found(folder: Path):
    with zipfile.ZipFile("in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("good.jpg", "../up.jpg", "secret.jpg"):
            archive.writestr(name, name)
        archive.writestr("bomb.jpg", bytes(10_000_000))
        archive.getinfo("secret.jpg").flag_bits |= 1
    pictures, problems = pictures_in([Path("in.zip")])
    assert [picture.image for picture in pictures] == ["good"]
    assert [problem.where for problem in problems] == [f"in.zip: '{name}'" for name in (
        "../up.jpg", "secret.jpg", "bomb.jpg"
    )]  # fmt: skip
    assert list(map_pictures(pictures, bytes.decode, 1)) == ["good.jpg"]


def test_what_is_wrong_with_sources_is_said_of_each(folder: Path):
    write("empty/notes.txt", "cut.zip", "good.jpg")
    os.mkfifo("pipe.jpg")
    with Path("large.jpg").open("wb") as large:
        large.truncate(LARGEST_MEMBER + 1)
    write_zip(folder / "text.zip", {"notes.txt": b"x"})
    suffixes = "(.jpg, .jpeg, .png, .tif, .tiff, .bmp, .gif, .webp)"
    sources = ["empty", "absent.jpg", "absent.zip", "cut.zip", "pipe.jpg", "large.jpg", "good.jpg", "text.zip"]
    assert problems_of(*sources) == [
        ("empty", f"holds no picture {suffixes}"),
        ("absent.jpg", "is missing"),
        ("absent.zip", "cannot be read: No such file or directory"),
        ("cut.zip", "is no zip, or not the whole of one"),
        ("pipe.jpg", "is not a regular file"),
        ("large.jpg", "has 268,435,457 bytes, more than 268,435,456"),
        ("text.zip", f"holds no picture {suffixes}"),
    ]


def test_a_folder_that_cannot_be_read_is_no_empty_one(folder: Path, monkeypatch: pytest.MonkeyPatch):
    write("in/a.jpg", "in/locked/b.jpg")
    scan = os.scandir

    def refuse(path: str):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert problems_of("in") == [("in/locked", "cannot be read: Permission denied")]


def test_links_are_followed(folder: Path):
    write("in/a.jpg", "out/b.jpg")
    Path("in/again").symlink_to("../out", target_is_directory=True)
    Path("in/c.jpg").symlink_to("nowhere.jpg")
    pictures, problems = pictures_in([Path("in")])
    assert [picture.where for picture in pictures] == ["in/a.jpg", "in/again/b.jpg"]
    assert problems == [("in/c.jpg", "is missing")]


# ids


def test_two_pictures_of_one_id_are_both_named(folder: Path):
    write("f/a.jpg", "f/g/a.png", "b.jpg", "A.jpg")
    write_zip(folder / "m.zip", {"x/b.jpg": b""})
    pictures, _ = pictures_in([Path(source) for source in ("f", "b.jpg", "m.zip", "A.jpg", "b.jpg")])
    assert repeated_images(pictures) == [
        ("m.zip: 'x/b.jpg'", "is called 'b' like b.jpg"),
        ("b.jpg", "is called 'b' like b.jpg"),
    ]


def test_a_table_of_pictures_needs_ids_of_their_own(folder: Path):
    write("f/a.jpg", "a.jpg", "b.jpg")
    pictures, problems = read_pictures([Path("a.jpg"), Path("b.jpg"), Path("c.jpg")])
    assert [picture[:3] for picture in pictures] == [("a", "a.jpg", Path("a.jpg")), ("b", "b.jpg", Path("b.jpg"))]
    assert problems == [("c.jpg", "is missing")]
    with pytest.raises(DataError, match=r"^images go by their files' names; rename or leave out:") as caught:
        read_pictures([Path("a.jpg"), Path("c.jpg"), Path("f")])
    assert caught.value.problems == (("c.jpg", "is missing"), ("f/a.jpg", "is called 'a' like a.jpg"))


def test_no_picture_at_all(folder: Path):
    with pytest.raises(DataError) as caught:
        read_pictures([Path("c.jpg")])
    assert str(caught.value) == "there is nothing to predict:\n  c.jpg: is missing"


def test_a_picture_is_known_by_its_name(folder: Path):
    write("a.jpg")
    assert pictures_in([folder / "a.jpg"])[0] == [Picture("a", str(folder / "a.jpg"), folder / "a.jpg")]
