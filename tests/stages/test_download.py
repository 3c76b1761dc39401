"""The three files of the sample, of a folder of images, and none of a source that cannot be used."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from cclnet.dataset.isic import GROUND_TRUTH_ZIP, INPUT_ZIP, LESION_TABLE
from cclnet.dataset.tables import dataset_problems, read_table
from cclnet.system.errors import DataError
from cclnet.system.files import read_json
from stages import download
from tests.dataset.builders import good_rows, write_labels, write_lesions, write_zip
from tests.experiments.builders import write_photos
from tests.stages.builders import Copied

RECORD = Path("data/provenance.json")


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_record_says_what_the_three_files_are(finished: Path):
    recorded = read_json(finished / RECORD)
    assert {file["name"] for file in recorded} == files_in(finished / "data/raw")
    assert files_in(finished / "data/raw") == {INPUT_ZIP, GROUND_TRUTH_ZIP, LESION_TABLE}
    for file in recorded:
        data = (finished / "data/raw" / file["name"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert file["source"] == "drawn"


def test_the_sample_is_a_dataset_of_as_many_images_as_asked_for(finished: Path):
    assert dataset_problems(finished / "data/raw") == []
    assert len(read_table(finished / "data/raw")) == 100


def test_images_of_one_s_own_are_stored_and_what_is_passed_over_is_said(
    copied: Copied, capsys: pytest.CaptureFixture[str]
):
    folder = copied(block={"source": "mine"})
    photos = write_photos(folder / "mine")
    (photos / "cat" / "notes.xyz").write_text("no image")
    download.main()
    assert {file["source"] for file in read_json(RECORD)} == {"mine"}
    with zipfile.ZipFile(f"data/raw/{INPUT_ZIP}") as archive:
        stored = sorted(hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist())
    assert stored == sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in photos.rglob("*.png"))
    assert ".xyz" in capsys.readouterr().out


def test_files_with_a_fault_are_not_put_in_place(copied: Copied):
    folder = copied(block={"source": "faulty"})
    (folder / "faulty").mkdir()
    write_zip(folder / "faulty" / INPUT_ZIP, {"Input/ISIC_0000001.jpg": b"jpeg"})  # of four images that are labelled
    write_labels(folder / "faulty", good_rows())
    write_lesions(folder / "faulty", [f"ISIC_000000{number},HAM_{number},x" for number in range(1, 5)])
    with pytest.raises(DataError) as caught:
        download.main()
    assert "has no image 'ISIC_0000002'" in [what for _, what in caught.value.problems]
    assert not RECORD.exists() and not Path("data/raw").exists()


def test_a_source_among_the_results_is_refused_and_kept(copied: Copied):
    folder = copied("data/raw", block={"source": "data/raw"})
    before = {path.name: path.read_bytes() for path in (folder / "data/raw").iterdir()}
    with pytest.raises(DataError, match="files of yours would be lost"):
        download.main()
    assert {path.name: path.read_bytes() for path in (folder / "data/raw").iterdir()} == before
