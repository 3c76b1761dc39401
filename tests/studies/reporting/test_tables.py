"""Tables of the reports."""

from studies.reporting.tables import markdown_table


def test_rows_become_a_github_table():
    rows = [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert markdown_table(rows) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |"


def test_a_table_without_rows_says_so():
    assert markdown_table([]) == "No cell gives a value here."
