"""Words in cells: names of sides, row filters, and quoted fields."""

from __future__ import annotations

import csv
import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.errors import ConfigError
from marketfeed.feeds.replay.fields import Rows
from marketfeed.feeds.replay.quoting import unquoted
from marketfeed.ingest.registry import feed_specs
from tests.support.replay import names, outcome, refusal, replayed

START = 1_700_000_000_000_000_000
CSV = {
    "path": "day.csv",
    "format": "csv",
    "symbol": "A",
    "columns": {"time": 0, "price": 1, "size": 2, "side": 3},
}
PARQUET = {
    "path": "day.parquet", "format": "parquet", "symbol": "A",
    "columns": {"time": "t", "price": "p", "size": "n", "side": "d"},
}  # fmt: skip


def write_csv(folder, *lines, end="\n"):
    data = end.join(f"{START + n},{line}" for n, line in enumerate(lines)) + end
    (folder / "day.csv").write_bytes(data.encode("utf-8", "surrogateescape"))


def write(folder, format, sides):
    """Write trades with ``sides``; return the settings that replay them."""
    if format == "csv":
        write_csv(folder, *(f"100.5,2,{side}" for side in sides))
        return CSV
    count = len(sides)
    table = {"t": range(START, START + count), "p": [100.5] * count, "n": [2] * count, "d": sides}
    pq.write_table(pa.table(table), folder / "day.parquet")
    return PARQUET


def sides(intake):
    return bytes(intake.trades["side"].tolist()).decode()


@pytest.mark.parametrize("format", ["csv", "parquet"])
async def test_known_words_are_sides_in_any_case_and_some_say_that_there_is_none(tmp_path, format):
    words = [
        "b",
        "B",
        "buy",
        "BUY",
        "Buyer",
        "bid",
        "s",
        "S",
        "sell",
        "SELL",
        "Seller",
        "a",
        "Ask",
        "",
        "-",
        "N",
        "None",
    ]
    intake = await replayed(tmp_path, **write(tmp_path, format, words))
    assert sides(intake) == "bbbbbbsssssss----"
    assert not intake.events


@pytest.mark.parametrize("format", ["csv", "parquet"])
async def test_unknown_words_are_counted_and_each_is_told_once(tmp_path, format):
    words = ["1", "-1", "2", "sell_side", "b"] * 100
    intake = await replayed(tmp_path, **write(tmp_path, format, words))
    assert sides(intake) == "----b" * 100
    assert intake.events == {"unknown_side": 400}
    assert sorted(entry["word"] for entry in intake.logged) == ["-1", "1", "2", "sell_side"]
    assert all("sides = {" in entry["reason"] for entry in intake.logged)


@pytest.mark.parametrize("format", ["csv", "parquet"])
async def test_configured_words_are_sides_and_may_invert_the_known_ones(tmp_path, format):
    settings = write(tmp_path, format, ["1", "-1", "sell_side", "b", "sell", "x"])
    meant = {"1": "s", "-1": "buy", "sell_side": "sell", "b": "s", "sell": "b", "x": "-"}
    intake = await replayed(tmp_path, **settings, sides=meant)
    assert sides(intake) == "sbssb-"
    assert not intake.events


async def test_integers_and_booleans_are_words_too(tmp_path):
    table = {
        "t": range(START, START + 3),
        "p": [1.5] * 3,
        "n": [2] * 3,
        "d": pa.array([1, -1, None], pa.int8()),
    }
    pq.write_table(pa.table(table), tmp_path / "day.parquet")
    assert sides(await replayed(tmp_path, **PARQUET, sides={"1": "b", "-1": "s"})) == "bs-"
    pq.write_table(pa.table({**table, "d": [True, False, None]}), tmp_path / "day.parquet")
    columns = {"time": "t", "price": "p", "buyer_maker": "d"}
    assert sides(await replayed(tmp_path, **{**PARQUET, "columns": columns})) == "sb-"


async def test_a_maker_that_is_neither_true_nor_false_is_counted_and_told(tmp_path):
    write_csv(tmp_path, "1,2,true", "1,2,0", "1,2,maybe", "1,2,")
    columns = {"time": 0, "price": 1, "size": 2, "buyer_maker": 3}
    intake = await replayed(tmp_path, **{**CSV, "columns": columns})
    assert sides(intake) == "sb--"
    assert intake.events == {"unknown_buyer_maker": 1}
    assert intake.logged[0]["word"] == "maybe"


def test_sides_that_mean_nothing_are_mistakes(tmp_path):
    write_csv(tmp_path, "1,2,b")
    said = 'sides.1: "b" or "buy", "s" or "sell", or "-" for neither, not \'up\''
    assert refusal(tmp_path, **CSV, sides={"1": "up"}) == said
    columns = {"time": 0, "price": 1}
    said = refusal(tmp_path, **{**CSV, "columns": columns}, sides={"1": "b"})
    assert said == "sides: needs columns.side"
    assert refusal(tmp_path, path="day.csv", sides={"1": "b"}) == "sides: only with format csv or parquet"


KINDS = ["trade", "fill", "quote", "", "trade", "7"]


@pytest.mark.parametrize("format", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        ("trade", [0, 4]),
        (7, [5]),
        (["trade", "fill"], [0, 1, 4]),
        (["trade", 7], [0, 4, 5]),
        ({"not": "trade"}, [1, 2, 3, 5]),
        ({"not": ["trade", "", 7]}, [1, 2]),
        ("", [3]),
    ],
)
async def test_where_takes_a_text_several_and_not(tmp_path, format, wanted, kept):
    settings = write(tmp_path, format, KINDS)
    column = "3" if format == "csv" else "d"
    settings = {**settings, "columns": {k: v for k, v in settings["columns"].items() if k != "side"}}
    intake = await replayed(tmp_path, **settings, where={column: wanted})
    assert (intake.trades["ts_event"] - START).tolist() == kept
    assert intake.events == {"filtered": len(KINDS) - len(kept)}


@pytest.mark.parametrize("wanted", [1.5, True])
def test_a_value_of_where_that_is_no_text_is_told_with_all_that_it_may_be(wanted):
    table = {"name": "d", "type": "replay", "path": "day.csv", "where": {"3": wanted}}
    with pytest.raises(ConfigError) as caught:
        feed_specs([table])
    said = "feeds.0.where.3: must be a string or an integer or a list or a table, not "
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("wanted", [[], {"not": []}])
def test_an_empty_list_in_where_is_a_mistake(tmp_path, wanted):
    write_csv(tmp_path, "1,2,b")
    assert refusal(tmp_path, **CSV, where={"3": wanted}).startswith("where.3: an empty list keeps ")


def test_a_text_longer_than_cells_are_compared_is_a_mistake(tmp_path):
    write_csv(tmp_path, "1,2," + "x" * 100)
    said = refusal(tmp_path, **CSV, where={"3": "x" * 65})
    assert said == "where.3: a text of at most 64 bytes, not 65"


async def test_a_long_cell_is_not_taken_for_its_beginning(tmp_path):
    write_csv(tmp_path, "1,2," + "x" * 64, "1,2," + "x" * 65)
    columns = {"time": 0, "price": 1}
    intake = await replayed(tmp_path, **{**CSV, "columns": columns}, where={"3": "x" * 64})
    assert (intake.trades["ts_event"] - START).tolist() == [0]


QUOTED = '100.5,2,"buy"'


async def test_a_bare_carriage_return_is_a_character_whatever_other_lines_hold(tmp_path):
    # Line ends are \n and \r\n: the row is not split, and its side is unknown.
    for others in ([], [QUOTED]):
        write_csv(tmp_path, "100.6,2,b\rc", *others)
        intake = await replayed(tmp_path, **CSV)
        assert sides(intake) == "-" + "b" * len(others)
        assert intake.events == {"unknown_side": 1}
        assert intake.logged[0]["word"] == "b\\rc"


async def test_a_quoted_field_may_be_as_long_as_a_line(tmp_path):
    write_csv(tmp_path, QUOTED, f'1,2,b,"{"x," * 200_000}"', QUOTED, f'1,2,b,"{"x" * 1_200_000}"', QUOTED)
    intake = await replayed(tmp_path, **CSV)
    assert (intake.trades["ts_event"] - START).tolist() == [0, 1, 2, 4]
    assert intake.events == {"broken_line": 1}
    assert intake.logged[0]["at"].endswith("day.csv:4")
    assert "longer than 1048576 bytes: 1700000000000000003,1,2,b," in intake.logged[0]["reason"]


async def test_the_end_of_a_line_that_is_too_long_is_no_row(tmp_path):
    row = f"{START + 5},666,2,b"
    write_csv(tmp_path, QUOTED, f"1,2,b,{'x' * 1_200_000},{row}", QUOTED)
    intake = await replayed(tmp_path, **CSV)
    assert intake.trades["price"].tolist() == [100_500_000_000] * 2
    assert [entry["at"].rpartition(":")[2] for entry in intake.logged] == ["2"]


async def test_a_quote_that_is_not_closed_costs_its_own_line_alone(tmp_path):
    write_csv(tmp_path, QUOTED, '1,2,"buy', QUOTED, '1,2,b,"a ""note', QUOTED, end="\r\n")
    intake = await replayed(tmp_path, **CSV)
    assert (intake.trades["ts_event"] - START).tolist() == [0, 2, 4]
    assert sides(intake) == "bbb"
    assert intake.events == {"broken_line": 2}
    assert intake.logged[0]["reason"] == f'a quote that is not closed on its line: {START + 1},1,2,"buy'


async def test_a_broken_line_is_shown_as_it_stands_with_control_characters_escaped(tmp_path):
    write_csv(tmp_path, QUOTED, 'x\x1b[31m,"a, ""b""",é\udcff\u2028\0\t' + "z" * 200)
    intake = await replayed(tmp_path, **CSV)
    (told,) = intake.logged
    shown = (
        f'not a price: \'x\\x1b[31m\', of the row: {START + 1},x\\x1b[31m,"a, ""b""",é\\xff\\u2028\\x00\\tzzz'
    )
    assert told["reason"].startswith(shown)
    assert told["reason"].endswith("z…")
    assert len(told["reason"]) < 120


async def test_a_broken_frame_is_shown_as_it_stands_too(tmp_path):
    good = f'{START} {{"stream":"a@trade","data":{{"s":"A","p":"1","q":"1","t":1,"T":1,"m":true}}}}\n'
    (tmp_path / "day.gz").write_bytes(gzip.compress(good.encode() + b"17\x1b[2J \xff{}\r\n" + good.encode()))
    intake = await replayed(tmp_path, path="day.gz")
    (told,) = intake.logged
    assert told["reason"].endswith(": 17\\x1b[2J \\xff{}\\r")


async def test_a_symbol_that_is_no_utf8_costs_its_rows(tmp_path):
    write_csv(tmp_path, "1,2,A", "1,2,A\udcff", "1,2,A\udcff", "1,2,B")
    columns = {"time": 0, "price": 1, "symbol": 3}
    intake = await replayed(tmp_path, **{**CSV, "symbol": None, "columns": columns})
    assert names(intake, intake.trades) == ["A", "B"]
    assert intake.events == {"broken_line": 2}
    assert intake.logged[0]["reason"] == f"a symbol that is no UTF-8: {START + 1},1,2,A\\xff"


async def test_an_exchange_that_is_no_utf8_costs_its_rows(tmp_path):
    write_csv(tmp_path, "1,2,A", "1,2,A\udcff", "1,2,A\udcff", "1,2,B")
    columns = {"time": 0, "price": 1, "exchange": 3}
    intake = await replayed(tmp_path, **{**CSV, "symbol": "X.{exchange}", "columns": columns})
    assert names(intake, intake.trades) == ["X.A", "X.B"]
    assert intake.events == {"broken_line": 2}
    assert intake.logged[0]["reason"] == f"an exchange that is no UTF-8: {START + 1},1,2,A\\xff"


@pytest.mark.parametrize("delimiter", ["§", '"', "\n"])
def test_delimiters_that_cannot_be(tmp_path, delimiter):
    write_csv(tmp_path, "1,2,b")
    assert refusal(tmp_path, **CSV, delimiter=delimiter).startswith(
        "delimiter: one ASCII character except quotes"
    )


@pytest.mark.parametrize(
    "text", [b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40, b'"' * 3000, b'"\0\r\n' * 500]
)
async def test_a_binary_file_given_as_csv_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "day.csv").write_bytes(text)
    intake, said = await outcome(tmp_path, **CSV)
    assert intake is None
    assert said.startswith(f"path: {tmp_path}/day.csv does not look like csv with these columns")


fields = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12)


@given(st.lists(st.lists(fields, min_size=1, max_size=6), min_size=1, max_size=6), st.sampled_from(",;\t|"))
def test_what_a_csv_writer_wrote_is_read_as_it_was(rows, delimiter):
    class Out(list):
        write = list.append

    out = Out()
    csv.writer(out, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    plain, separator, unclosed = unquoted("".join(out).encode(), delimiter.encode())
    assert not unclosed
    assert [line.split(separator) for line in plain.split(b"\n")[:-1]] == [
        [f.encode() for f in row] for row in rows
    ]


@given(st.text(st.sampled_from('ab",\r\x1f'), max_size=20))
@example('a"",b')
def test_any_line_is_split_as_the_csv_module_splits_it_or_its_quote_is_not_closed(line):
    plain, separator, unclosed = unquoted(line.encode(), b",")
    assert b"\n" not in plain
    if "\r" in line:  # csv ends a line there, or fails
        return
    if not unclosed:
        (wanted,) = list(csv.reader([line])) or [[""]]
        assert plain.split(separator) == [field.encode() for field in wanted or [""]]
    if unclosed:
        assert next(csv.reader([line + "\n", '"\n']))[-1].count("\n")  # csv includes the next line


@given(st.binary(max_size=300))
def test_any_bytes_have_as_many_lines_split_as_they_had(data):
    data += b'"\n'
    rows = Rows(data, ",")
    assert rows.line_count == data.count(b"\n")
    for number in range(len(rows)):
        assert rows.row(number) == data.split(b"\n")[rows.lines[number]].removesuffix(b"\r")
