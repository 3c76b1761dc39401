import json
from pathlib import Path

import pandas as pd
import pytest

from cclnet.system.files import read_csv, read_json, write_bytes, write_csv, write_json


def test_the_parts_are_written_one_after_the_other_into_new_folders(tmp_path: Path):
    write_bytes(tmp_path / "a" / "b" / "file", b"one", b"", b"two")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"onetwo"
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path):
    path = tmp_path / "file"
    write_bytes(path, b"the old and longer content")
    with path.open("rb") as reader:
        write_bytes(path, b"new")
        assert reader.read() == b"the old and longer content"
    assert path.read_bytes() == b"new"


def test_json_is_sorted_and_ends_its_line(tmp_path: Path):
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None], "a": {"p̄": 0.1, "A": True}})
    write_json(tmp_path / "b.json", {"a": {"A": True, "p̄": 0.1}, "b": [1, 2.5, None]})
    text = (tmp_path / "a.json").read_bytes()
    assert text == (tmp_path / "b.json").read_bytes()
    assert text.endswith(b"}\n")
    assert b"\r" not in text
    assert json.loads(text) == {"a": {"p̄": 0.1, "A": True}, "b": [1, 2.5, None]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_has_no_such_number(tmp_path: Path, value: float):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": value})
    assert list(tmp_path.iterdir()) == []


def test_a_table_has_a_header_and_empty_cells(tmp_path: Path):
    rows = [{"epoch": 1, "loss": 0.1, "name": "a,b"}, {"epoch": 2, "loss": None, "name": None}]
    write_csv(tmp_path / "rows.csv", rows)
    write_csv(tmp_path / "table.csv", pd.DataFrame(rows))
    expected = b'epoch,loss,name\n1,0.1,"a,b"\n2,,\n'
    assert (tmp_path / "rows.csv").read_bytes() == (tmp_path / "table.csv").read_bytes() == expected


def test_a_table_gives_its_numbers_back_to_the_last_bit(tmp_path: Path):
    numbers = [0.1 + 0.2, 1 / 3, 1e-300, 123456789.123456789]
    write_csv(tmp_path / "numbers.csv", [{"number": number} for number in numbers])
    _, *lines = (tmp_path / "numbers.csv").read_text().splitlines()
    assert [float(line) for line in lines] == numbers


def test_what_is_written_is_read(tmp_path: Path):
    value = {"b": [1, 2.5, None], "ä": "p̄"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    rows = [{"image": "007", "label": "NA", "value": 0.1 + 0.2}, {"image": "1e5", "label": "", "value": 2}]
    write_csv(tmp_path / "a.csv", rows)
    assert read_csv(tmp_path / "a.csv", ["image", "label"]).to_dict("records") == rows
