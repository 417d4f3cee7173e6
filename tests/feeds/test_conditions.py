"""Trade conditions from cells of CSV and Parquet."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marketfeed.feeds.replay.conditions import condition_letters
from tests.support.replay import refusal, replayed

START = 1_700_000_000_000_000_000
COLUMNS = {"time": "t", "price": "p", "size": "n", "condition": "c"}


def write(folder, format, cells):
    """Write trades with these cells; return the keys that read them."""
    count = len(cells)
    table = {"t": range(START, START + count), "p": [1.5] * count, "n": [2] * count, "c": cells}
    if format == "parquet":
        pq.write_table(pa.table(table), folder / "day.parquet")
        return {"path": "day.parquet", "format": "parquet", "symbol": "X", "columns": COLUMNS}
    rows = [f'{at};1.5;2;"{cell}"\n' for at, cell in enumerate(cells, START)]
    (folder / "day.csv").write_text("t;p;n;c\n" + "".join(rows))
    keys = {"path": "day.csv", "format": "csv", "symbol": "X", "header": True, "delimiter": ";"}
    return {**keys, "columns": COLUMNS}


def conditions(intake):
    return [letters.decode() for letters in intake.trades["cond"].tolist()]


@pytest.mark.parametrize("format", ["csv", "parquet"])
async def test_letters_of_cells_are_conditions(tmp_path, format):
    cells = ["@", "@ TI", "", "null", "@FTI", "T,I", "F|4", "@;F", " Z ", "'@I"]
    intake = await replayed(tmp_path, **write(tmp_path, format, cells))
    assert conditions(intake) == ["@", "@TI", "", "", "@FTI", "TI", "F4", "@F", "Z", "@I"]
    assert not intake.events


@pytest.mark.parametrize("format", ["csv", "parquet"])
async def test_a_cell_that_holds_no_conditions_is_counted_and_the_trade_is_taken(tmp_path, format):
    cells = ["@FTIX", "14,41", "é", "@", "back\\", "@FTIX"]
    intake = await replayed(tmp_path, **write(tmp_path, format, cells))
    assert conditions(intake) == ["", "", "", "@", "", ""]
    assert intake.events == {"unknown_condition": 5}
    words = [entry["word"] for entry in intake.logged if entry["event"] == "unknown condition"]
    assert sorted(words) == sorted({"@FTIX", "14,41", "é", "back\\"})
    assert all("one to 4 conditions" in entry["reason"] for entry in intake.logged)


@pytest.mark.parametrize("format", ["csv", "parquet"])
async def test_rows_that_are_broken_keep_conditions_with_their_trades(tmp_path, format):
    keys = write(tmp_path, format, ["@", "F", "T"])
    if format == "csv":
        text = (tmp_path / "day.csv").read_text().splitlines()
        text[2] = text[2].replace("1.5", "x")
        (tmp_path / "day.csv").write_text("\n".join(text))
    else:
        table = {"t": range(START, START + 3), "p": [1.5, None, 1.5], "n": [2] * 3, "c": ["@", "F", "T"]}
        pq.write_table(pa.table(table), tmp_path / "day.parquet")
    assert conditions(await replayed(tmp_path, **keys)) == ["@", "T"]


async def test_a_parquet_column_of_conditions_may_be_null_and_is_text(tmp_path):
    intake = await replayed(tmp_path, **write(tmp_path, "parquet", ["@", None]))
    assert conditions(intake) == ["@", ""]
    said = refusal(tmp_path, **write(tmp_path, "parquet", [12, 14]))
    assert "columns.condition: c is int64" in said
    assert "it may be a text" in said


def test_quotes_have_no_conditions(tmp_path):
    columns = {"time": 0, "bid": 1, "ask": 2, "condition": 3}
    (tmp_path / "x.csv").write_text("1,2,3,@\n")
    said = refusal(tmp_path, path="x.csv", format="csv", symbol="X", columns=columns)
    assert "columns.condition: needs columns.price" in said


@pytest.mark.parametrize("text", ["@FTIX", "ab,c", '"', "\\", "\x7f", "é", "☃"])
def test_what_is_no_condition_is_none(text):
    assert condition_letters(text) is None
