import json
import os
import socket
from pathlib import Path

import pandas as pd
import pytest

from cclnet.system.errors import DataError
from cclnet.system.files import (
    LARGEST_FILE,
    file_fault,
    read_csv,
    read_json,
    read_text_table,
    write_bytes,
    write_csv,
    write_json,
)


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


def test_what_is_no_file_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    (tmp_path / "good").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        found = {path.name: file_fault(path) for path in sorted(tmp_path.iterdir())}
    assert found == {
        "dangling": "is missing",
        "folder": "is not a regular file",
        "good": "",
        "large": "has 268,435,457 bytes, more than 268,435,456",
        "pipe": "is not a regular file",
        "socket": "is not a regular file",
    }
    assert file_fault(Path("/dev/zero")) == "is not a regular file"


def test_a_table_of_a_user_is_text_as_written_in_one_spelling(tmp_path: Path):
    path = tmp_path / "votes.csv"
    path.write_bytes('\ufefflabel, e\u0301 ,NA\r\n007,1.0,\r\n\r\n"a,""b",nan,x\r\n'.encode())
    table = read_text_table(path)
    assert table.columns.tolist() == ["label", "\xe9", "NA"]
    assert table.to_numpy().tolist() == [["007", "1.0", ""], ['a,"b', "nan", "x"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a CSV table: it is empty"),
        (b"\n\n", "is not a CSV table: it is empty"),
        (b"a,b\n\xff,1\n", "is not a CSV table in UTF-8: 'utf-8' codec can't decode byte 0xff"),
        (b'a,b\n"1,2\n', "is not a CSV table in UTF-8: unexpected end of data"),
        (b"a,b\n1,2,3\n4\n5,6\n", "2 rows have not one value for each of the 2 columns, the first is row 1"),
        (b"a,b, a\n1,2,3\n", "several columns are called a"),
        (b"a,b\n" + b"x" * 200_000 + b",1\n", "field larger than field limit"),
    ],
)
def test_a_table_of_a_user_that_is_none_is_refused(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "votes.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_text_table(path)
    assert "\n" not in str(error.value)


def test_a_table_of_a_user_that_is_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "votes.csv")
    with pytest.raises(DataError, match=r"votes\.csv is not a regular file: a CSV table is needed"):
        read_text_table(tmp_path / "votes.csv")
