"""Names cannot become formulas in a spreadsheet, and come back as they were."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cells import from_cell, read_cells, read_records, to_cell
from pipeline.files import write_csv

FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", "＝1", "-", "=", "+x", "-cat"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_become_text(text: str) -> None:
    assert to_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", [1, -1.5, "-0.123456", "+1", "-1e-05", "-inf", "", "cat", "a=b", "'quoted'", None])
def test_numbers_and_plain_text_stay_as_they_are(value: object) -> None:
    assert to_cell(value) == value


@given(st.text(alphabet="'=+-@\t\r\na1.e＝ ", max_size=6))
def test_every_text_comes_back(text: str) -> None:
    cell = str(to_cell(text))
    assert from_cell(cell) == text
    assert cell == text or cell == f"'{text}"


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [["path", "=label", "p"], ["'=a\nb.png", "+x", "-0.5"], ['@,"', "'", "2"]]
    write_csv(tmp_path / "x.csv", rows)
    assert list(read_cells(tmp_path / "x.csv")) == rows
    assert list(read_records(tmp_path / "x.csv")) == [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    cells = (tmp_path / "x.csv").read_text().splitlines()[0].split(",")
    assert cells == ["path", "'=label", "p"]
