"""Checks tables as text."""

from rich.table import Table

from wellseg.cli.console import table_text


def test_a_table_holds_all_its_cells_without_markup_or_trailing_space():
    table = Table(title="scores")
    for column in ("", "dice"):
        table.add_column(column)
    table.add_row("well_1", "0.1234")
    text = table_text(table)
    assert "scores" in text
    assert "dice" in text
    assert [line for line in text.splitlines() if "well_1" in line and "0.1234" in line]
    assert "\x1b" not in text
    assert text == text.rstrip()


def test_a_long_cell_is_not_cut_where_there_is_no_terminal():
    table = Table("", "")
    table.add_row("name", "x" * 100)
    assert "x" * 100 in table_text(table)
