import os
import unicodedata
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from cclnet.dataset.folders import import_folder
from cclnet.dataset.isic import CLASSES, class_order
from cclnet.dataset.layouts import Kind, LabelledFolder, Place, read_layout
from cclnet.dataset.splits import divide
from cclnet.dataset.tables import dataset_problems, read_classes, read_table
from cclnet.system.errors import Problem

IDS = [f"ISIC_{number:07d}" for number in range(12)]
DX = ("nv", "mel", "bkl")


def write(folder: Path, files: Mapping[str, str] | Iterable[str]) -> None:
    """Files with these contents, or with their own names; none of them has to be an image."""
    contents = files if isinstance(files, Mapping) else {name: name for name in files}
    for name, text in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def good(folder: Path) -> LabelledFolder:
    found = read_layout(folder)
    assert found.problems == []
    assert list(found.places) == list(found.kinds) == sorted(found.kinds)
    return found


def notes(found: LabelledFolder) -> list[str]:
    return [what for _, what in found.notes]


def lines(header: str, rows: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in [header, *rows])


def one_hot(classes: Iterable[str], labels: Mapping[str, str]) -> str:
    classes = list(classes)
    rows = (
        f"{image}," + ",".join("1.0" if name == label else "0.0" for name in classes) for image, label in labels.items()
    )
    return lines(",".join(["image", *classes]), rows)


# HAM10000


def ham_rows() -> list[tuple[str, str, str]]:
    """Lesion, image and diagnosis."""
    return [(f"HAM_{number // 2}", image, DX[number // 2 % 3]) for number, image in enumerate(IDS)]


HAM_KINDS = {image: Kind(dx.upper(), lesion) for lesion, image, dx in ham_rows()}


@pytest.mark.parametrize(
    ("name", "table"),
    [
        (
            "HAM10000_metadata.csv",
            lines("lesion_id,image_id,dx,dx_type,age", (f"{','.join(row)},histo,50" for row in ham_rows())),
        ),
        ("HAM10000_metadata", lines("lesion_id,image_id,dx", (",".join(row) for row in ham_rows()))),
        (
            "HAM10000_metadata.tab",
            lines('"lesion_id"\t"image_id"\t"dx"', ("\t".join(f'"{value}"' for value in row) for row in ham_rows())),
        ),
        ("HAM10000_metadata.csv", "\ufeff" + lines("lesion_id;image_id;dx", (";".join(row) for row in ham_rows()))),
    ],
    ids=["Kaggle", "Dataverse", "Dataverse's own format", "a spreadsheet"],
)
def test_ham10000(tmp_path: Path, name: str, table: str):
    parts = {image: f"HAM10000_images_part_{1 + number // 6}/{image}.jpg" for number, image in enumerate(IDS)}
    write(tmp_path, parts.values())
    write(tmp_path, {name: table})
    found = good(tmp_path)
    assert found.kinds == HAM_KINDS
    assert found.places == {image: Place(tmp_path / path) for image, path in parts.items()}
    assert found.tables == [tmp_path / name]
    assert "is grouped by lesion_id" in notes(found)


def test_ham10000_with_kaggles_second_copy_and_pixel_tables(tmp_path: Path):
    write(tmp_path, (f"HAM10000_images_part_1/{image}.jpg" for image in IDS))
    write(tmp_path, {f"ham10000_images_part_1/{image}.jpg": f"HAM10000_images_part_1/{image}.jpg" for image in IDS[:5]})
    write(tmp_path, {"HAM10000_metadata.csv": lines("lesion_id,image_id,dx", (",".join(row) for row in ham_rows()))})
    write(tmp_path, {"hmnist_8_8_L.csv": "pixel0000,label\n1,2\n", "hmnist_28_28_RGB.csv": "pixel0000,label\n1,2\n"})
    found = good(tmp_path)
    assert found.kinds == HAM_KINDS
    assert "holds 5 images a second time, byte for byte, which are passed over" in notes(found)
    assert "holds other files, which are passed over: .csv 2" in notes(found)


def test_ham10000_in_its_zips(tmp_path: Path):
    for part in (1, 2):
        with zipfile.ZipFile(tmp_path / f"HAM10000_images_part_{part}.zip", "w") as archive:
            for image in IDS[6 * part - 6 : 6 * part]:
                archive.writestr(f"{image}.jpg", image)
    write(tmp_path, {"HAM10000_metadata": lines("lesion_id,image_id,dx", (",".join(row) for row in ham_rows()))})
    found = good(tmp_path)
    assert found.kinds == HAM_KINDS
    assert found.places[IDS[7]] == Place(tmp_path / "HAM10000_images_part_2.zip", f"{IDS[7]}.jpg")
    assert "passed over" not in "".join(notes(found))
    import_folder(str(tmp_path), tmp_path / "raw")
    with zipfile.ZipFile(tmp_path / "raw" / "ISIC2018_Task3_Training_Input.zip") as archive:
        assert {Path(name).stem: archive.read(name).decode() for name in archive.namelist()} == dict(
            zip(IDS, IDS, strict=True)
        )


def test_ham10000_has_the_challenge_s_classes_and_lesions(tmp_path: Path):
    every = [f"HAM_{number},{image},{CLASSES[number % 7].lower()}" for number, image in enumerate(IDS)]
    write(tmp_path, (f"images/{image}.jpg" for image in IDS))
    write(tmp_path, {"HAM10000_metadata": lines("lesion_id,image_id,dx", every)})
    import_folder(str(tmp_path), tmp_path / ".raw")
    assert dataset_problems(tmp_path / ".raw") == []
    assert read_classes(tmp_path / ".raw" / "ISIC2018_Task3_Training_GroundTruth.zip") == list(CLASSES)
    assert read_table(tmp_path / ".raw")["lesion"].tolist() == [f"HAM_{number}" for number in range(12)]


def test_parts_of_a_download_without_their_table_are_no_classes(tmp_path: Path):
    write(tmp_path, (f"HAM10000_images_part_{1 + number % 2}/{image}.jpg" for number, image in enumerate(IDS)))
    assert read_layout(tmp_path).problems == [
        (
            "the folder",
            "holds 'HAM10000_images_part_1', 'HAM10000_images_part_2', which look like parts of one download rather "
            "than classes: write labels.csv (image,label,group) beside them",
        )
    ]


def test_what_a_table_and_the_images_lack_is_said(tmp_path: Path):
    write(tmp_path, (f"part_1/{image}.jpg" for image in [*IDS[:8], "ISIC_9999999"]))
    write(tmp_path, {f"part_2/{IDS[0]}.jpg": "other pixels"})
    write(tmp_path, {"HAM10000_metadata": lines("lesion_id,image_id,dx", (",".join(row) for row in ham_rows()))})
    found = read_layout(tmp_path)
    assert found.problems == [
        (f"part_2/{IDS[0]}.jpg", f"is another image than '{IDS[0]}.jpg' of the same name"),
        ("HAM10000_metadata", f"names 4 images that are not here, such as '{IDS[8]}'"),
    ]
    assert "holds 1 images without a label, which are passed over" in notes(found)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("metadata.csv", "isic_id,diagnosis\nI0,a\nI1,b\nI0,a\nI0,b\nI2,b\n", "has several rows of 'I0' that differ"),
        ("it.csv", "image,MEL,NV\nI0,1,1\nI1,0,1\nI2,1,0\n", "does not give 'I0' one class"),
        ("it.csv", "image,MEL,NV\nI0,x,1\nI1,0,1\nI2,1,0\n", "does not give 'I0' one class"),
        ("it.csv", "image,MEL,NV\nI0,.5,.5\nI1,0,1\nI2,1,0\n", "does not give 'I0' one class"),
    ],
)
def test_rows_of_known_tables_that_contradict_are_named(tmp_path: Path, name: str, text: str, problem: str):
    write(tmp_path, {"I0.jpg": "0", "I1.jpg": "1", "I2.jpg": "2", name: text})
    assert read_layout(tmp_path).problems == [(name, problem)]


def test_rows_that_are_equal_or_name_no_class_are_no_problem(tmp_path: Path):
    write(tmp_path, {"I0.jpg": "0", "I1.jpg": "1", "I2.jpg": "2"})
    write(tmp_path, {"it.csv": "image,MEL,NV\nI0,1,0\nI0,1,0\nI1,,1\nI2,0,0\n"})
    found = good(tmp_path)
    assert {image: kind.label for image, kind in found.kinds.items()} == {"I0": "MEL", "I1": "NV"}
    assert "holds 1 images without a label, which are passed over" in notes(found)


# the ISIC archive and its other challenges


def test_the_archive_s_own_tool(tmp_path: Path):
    """A metadata table beside the images, with patients and lesions, both unknown for some."""
    rows = []
    for number, image in enumerate(IDS):
        label = ("Nevus", '"Melanoma, NOS"', "")[number % 3]
        lesion = "" if number % 4 == 0 else f"IL_{number // 2}"
        patient = f"IP_{number // 4}" if number < 8 else ""
        rows.append(f"{image},CC-0,Benign,,{label},{lesion},{patient}")
    header = "isic_id,copyright_license,diagnosis_1,diagnosis_2,diagnosis_3,lesion_id,patient_id"
    write(tmp_path, (f"{image}.JPG" for image in IDS))
    write(tmp_path, {"metadata.csv": lines(header, rows), "attribution.txt": "", "licenses/CC-0.txt": ""})
    found = good(tmp_path)
    assert {image: kind.label for image, kind in found.kinds.items()} == {
        image: ("Nevus", "Melanoma, NOS")[number % 3] for number, image in enumerate(IDS) if number % 3 < 2
    }
    groups = {image: kind.group for image, kind in found.kinds.items()}
    assert len({groups[IDS[number]] for number in (0, 1, 3)}) == 1, "one patient, whether a lesion is named or not"
    assert len({groups[IDS[number]] for number in (0, 4, 9, 10)}) == 4
    assert "holds 4 images without a label, which are passed over" in notes(found)
    assert "is grouped by lesion_id and patient_id" in notes(found)


def test_isic_2019(tmp_path: Path):
    """Eight classes and an empty one, some smaller images under a longer name, lesions in a table of their own."""
    names = {image: f"{image}_downsampled" if number % 2 else image for number, image in enumerate(IDS)}
    classes = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
    labels = {names[image]: classes[number % 8] for number, image in enumerate(IDS)}
    write(tmp_path, (f"ISIC_2019_Training_Input/{name}.jpg" for name in names.values()))
    write(tmp_path, {"ISIC_2019_Training_Input/ATTRIBUTION.txt": "", "ISIC_2019_Training_Input/LICENSE.txt": ""})
    write(tmp_path, {"ISIC_2019_Training_GroundTruth.csv": one_hot(classes, labels)})
    lesions = [
        f"{image},50,torso,{'' if number % 5 == 0 else f'BCN_{number // 2}'},male" for number, image in enumerate(IDS)
    ]
    header = "image,age_approx,anatom_site_general,lesion_id,sex"
    write(tmp_path, {"ISIC_2019_Training_Metadata.csv": lines(header, lesions)})
    found = good(tmp_path)
    assert {image: kind.label for image, kind in found.kinds.items()} == labels
    assert [found.kinds[names[image]].group for image in IDS[:4]] == [None, "BCN_0", "BCN_1", "BCN_1"]
    assert class_order({kind.label for kind in found.kinds.values()}) == list(classes[:8])
    assert found.tables == [tmp_path / f"ISIC_2019_Training_{name}.csv" for name in ("GroundTruth", "Metadata")]


def test_the_official_files_unpacked(tmp_path: Path):
    labels = {image: CLASSES[number % 7] for number, image in enumerate(IDS)}
    write(tmp_path, (f"ISIC2018_Task3_Training_Input/{image}.jpg" for image in IDS))
    folder = "ISIC2018_Task3_Training_GroundTruth"
    write(tmp_path, {f"{folder}/{folder}.csv": one_hot(CLASSES, labels)})
    lesions = [f"{image},HAM_{number // 3},histopathology" for number, image in enumerate(IDS)]
    name = "ISIC2018_Task3_Training_LesionGroupings.csv"
    write(tmp_path, {name: lines("image,lesion_id,diagnosis_confirm_type", lesions)})
    kinds = {image: Kind(labels[image], f"HAM_{number // 3}") for number, image in enumerate(IDS)}
    assert good(tmp_path).kinds == kinds
    with zipfile.ZipFile(tmp_path / f"{folder}.zip", "w") as archive:
        archive.write(tmp_path / folder / f"{folder}.csv", f"{folder}/{folder}.csv")
    (tmp_path / folder / f"{folder}.csv").unlink()
    assert good(tmp_path).kinds == kinds


def test_tables_of_training_and_test_images_give_a_split(tmp_path: Path):
    tables = {"ISIC2018_Task3_Training_GroundTruth.csv": IDS[:8], "ISIC2018_Task3_Test_GroundTruth.csv": IDS[8:]}
    write(tmp_path, (f"images/{image}.jpg" for image in IDS))
    for name, images in tables.items():
        write(tmp_path, {name: one_hot(CLASSES, {image: CLASSES[int(image[-1]) % 2] for image in images})})
    subsets = {image: kind.subset for image, kind in good(tmp_path).kinds.items()}
    assert subsets == dict.fromkeys(IDS[:8], "train") | dict.fromkeys(IDS[8:], "test")


def test_a_table_about_other_images_is_passed_over(tmp_path: Path):
    write(tmp_path, ["cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png"])
    write(tmp_path, {"train.csv": "image,label\nsomething else,cat\n", "results.csv": "image,label\n1,cat\n"})
    assert {image: kind.label for image, kind in good(tmp_path).kinds.items()} == {
        "cat_1": "cat", "cat_2": "cat", "dog_3": "dog", "dog_4": "dog",
    }  # fmt: skip


# a given split


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "Validation", "Testing"), ("train", "valid", "test")]
)
def test_train_val_and_test_folders_are_kept(tmp_path: Path, names: tuple[str, str, str]):
    for name in names:
        write(tmp_path / "mine", (f"{name}/{label}/{number}.png" for label in ("cat", "dog") for number in range(3)))
    write(tmp_path / "mine", ["@eaDir/SYNOPHOTO_THUMB_M.jpg", f"{names[0]}/cat/Thumbs.db"])
    found = good(tmp_path / "mine")
    (note,) = notes(found)
    assert note.startswith("gives a split, which is kept: ")
    assert set(note.removeprefix("gives a split, which is kept: ").split(", ")) == {"train 6", "validation 6", "test 6"}
    import_folder(str(tmp_path / "mine"), tmp_path / "raw")
    assert dataset_problems(tmp_path / "raw") == []
    split = divide(read_table(tmp_path / "raw"), "image", 0.2, 0)
    expected = dict(zip(names, ("train", "validation", "test"), strict=True))
    assert split["subset"].tolist() == [expected[image.split("_")[0]] for image in split["image"]]


def test_subsets_without_classes_are_no_classes(tmp_path: Path):
    write(tmp_path, (f"{name}/cat.{number}.jpg" for name in ("train", "test") for number in range(3)))
    ((where, what),) = read_layout(tmp_path).problems
    assert where == "the folder"
    assert what.startswith("holds images in 'test', 'train', in no class's folder: write labels.csv")


def test_a_class_may_be_called_as_a_subset_beside_others(tmp_path: Path):
    write(tmp_path, ["train/1.png", "train/2.png", "bus/1.png", "bus/2.png"])
    assert {kind.label for kind in good(tmp_path).kinds.values()} == {"train", "bus"}


# folders within folders


def test_many_folders_within_few_classes_are_groups(tmp_path: Path):
    write(
        tmp_path, (f"{label}/p{patient}/{n}.png" for label in ("ill", "well") for patient in range(5) for n in range(2))
    )
    found = good(tmp_path)
    assert found.kinds["ill_p3_1"] == Kind("ill", "p3")
    assert {kind.group for kind in found.kinds.values()} == {f"p{patient}" for patient in range(5)}
    assert "holds 5 folders within 2 classes, taken for groups" in notes(found)


def test_few_classes_within_many_folders_have_these_as_groups(tmp_path: Path):
    write(
        tmp_path, (f"p{patient}/{label}/{n}.png" for label in ("ill", "well") for patient in range(5) for n in range(2))
    )
    assert good(tmp_path).kinds["p3_ill_1"] == Kind("ill", "p3")


@pytest.mark.parametrize(
    "names",
    [
        [f"{label}/part_{part}/1.png" for label in "abcd" for part in (1, 2)],
        [f"{label}/{part}/1.png" for label in ("a", "b") for part in ("x", "y")],
        ["a/1.png", "a/deeper/2.png", "b/1.png"],
        ["a/b/c/1.png", "a/b/c/2.png", "d/b/c/1.png"],
    ],
    ids=["parts", "two by two", "mixed", "deep"],
)
def test_folders_that_do_not_say_what_they_are_get_no_guess_and_no_harmful_advice(tmp_path: Path, names: list[str]):
    write(tmp_path, names)
    ((where, what),) = read_layout(tmp_path).problems
    assert where == "the folder"
    assert "of which neither is surely the class: write labels.csv (image,label,group) beside them" in what
    assert "move" not in what


def test_a_single_folder_around_the_classes_is_none(tmp_path: Path):
    write(tmp_path, [f"dataset/{label}/{number}.png" for label in ("cat", "dog") for number in range(2)])
    found = good(tmp_path)
    assert found.kinds["dataset_cat_0"] == Kind("cat")
    assert found.notes == [Problem("dataset", "is the only folder, and taken for no class: what it holds is read")]


# names


def test_groups_are_normalised_and_what_coincides_is_named(tmp_path: Path):
    decomposed = unicodedata.normalize("NFD", "Mü")
    spelt = ["Mü", decomposed, "Mü ", "mü", "other", "other"]
    write(tmp_path, (f"{number}.png" for number in range(6)))
    write(
        tmp_path,
        {"labels.csv": lines("image,label,group", (f"{n}.png,{'ab'[n % 2]},{name}" for n, name in enumerate(spelt)))},
    )
    found = good(tmp_path)
    assert [kind.group for kind in found.kinds.values()] == ["Mü", "Mü", "Mü", "mü", "other", "other"]
    assert found.notes == [
        ("labels.csv", f"writes group 'Mü' in 3 ways, which count as one: {decomposed!a}, 'M\\xfc', 'M\\xfc '"),
        ("labels.csv", "has the groups 'M\\xfc', 'm\\xfc', which count as 2: check whether they are one"),
    ]


def test_blanks_around_images_and_labels_are_no_part_of_them(tmp_path: Path):
    write(tmp_path, ["1.png", "2.png"])
    write(tmp_path, {"labels.csv": "image,label\n 1.png , cat\n2.png,dog \n"})
    assert good(tmp_path).kinds == {"1": Kind("cat"), "2": Kind("dog")}


def test_two_rows_that_are_one_image_after_normalising_are_named(tmp_path: Path):
    write(tmp_path, ["1.png", "2.png"])
    write(tmp_path, {"labels.csv": "image,label\n1.png,cat\n1.png ,dog\n2.png,dog\n"})
    assert read_layout(tmp_path).problems == [
        ("labels.csv, line 3, '1.png '", "is there a second time, after labels.csv, line 2, '1.png'")
    ]


@pytest.mark.parametrize("group", ["a\x1b[31m", "a\u202eb"])
def test_a_group_with_control_characters_is_refused(tmp_path: Path, group: str):
    write(tmp_path, ["1.png", "2.png"])
    write(tmp_path, {"labels.csv": f"image,label,group\n1.png,cat,{group}\n2.png,dog,b\n"})
    assert read_layout(tmp_path).problems == [("labels.csv, line 2, '1.png'", "has control characters in its group")]


def test_names_that_a_spreadsheet_would_compute_are_refused(tmp_path: Path):
    write(tmp_path, ["=1|a!b.png", "2.png", "-3.png"])
    write(tmp_path, {"labels.csv": "image,label,group\n2.png,@A(1),=B(2)\n-3.png,dog,b\n"})
    formula = "reads as a formula, which a spreadsheet would compute as it opens a table: call it otherwise"
    assert set(read_layout(tmp_path).problems) == {
        ("=1|a!b.png", formula),
        ("labels.csv, line 2, '2.png'", f"has a group that {formula}"),
        ("labels.csv", f"has a class '@A(1)' that {formula}"),
    }


# files


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    write(tmp_path, ["cat/1.png", "dog/1.png"])
    os.mkfifo(tmp_path / "labels.csv")
    assert read_layout(tmp_path).problems == [
        ("labels.csv", "is not a regular file"),
    ]
    (tmp_path / "labels.csv").unlink()
    os.mkfifo(tmp_path / "metadata.csv")
    os.mkfifo(tmp_path / "cat" / "2.png")
    assert read_layout(tmp_path).problems == [("cat/2.png", "is not a regular file")]


def test_links_in_a_loop_are_named(tmp_path: Path):
    write(tmp_path, ["cat/1.png", "dog/1.png"])
    (tmp_path / "dog" / "again").symlink_to(tmp_path)
    where, what = read_layout(tmp_path).problems[0]
    assert where == str(tmp_path / "dog" / "again")
    assert what.startswith("is the same folder as")


def test_other_files_are_counted_by_suffix(tmp_path: Path):
    write(
        tmp_path,
        ["cat/1.png", "dog/1.png", "cat/a.txt", "b.txt", "dog/c.pdf", "README", "LICENSE", "cat/attribution.md"],
    )
    assert notes(good(tmp_path)) == ["holds other files, which are passed over: .pdf 1, .txt 2, no suffix 1"]


@pytest.mark.parametrize("name", ["photo.heic", "photo.JFIF", "scan.dcm"])
def test_an_image_that_is_not_read_is_no_other_file(tmp_path: Path, name: str):
    write(tmp_path, ["cat/1.png", "dog/1.png", f"cat/{name}"])
    ((where, what),) = read_layout(tmp_path).problems
    assert where == f"cat/{name}"
    assert what.startswith("is an image that is not read: convert it to one of .jpg, .jpeg, .png")
