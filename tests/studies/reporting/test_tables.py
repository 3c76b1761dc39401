"""Numbers as text, and tables."""

from studies.reporting.tables import markdown_table, spread


def test_spread_is_mean_and_sample_deviation():
    assert spread([1.0, 2.0, None, 3.0]) == "2.000 ± 1.000"
    assert spread([0.25], digits=1) == "0.2"
    assert spread([None]) == "–"


def test_a_table_in_markdown():
    assert markdown_table([{"a": "1", "b": "2"}]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_table_without_rows_says_so() -> None:
    assert markdown_table([]) == "No cell gives a value here."
