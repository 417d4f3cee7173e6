"""Row layouts of vendors, read with the keys of docs/recordings.md."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.feeds.replay.moments import variants
from marketfeed.feeds.replay.timeformat import TimeFormat
from tests.support.replay import make, names, refusal, replayed

NY = "America/New_York"
DAY = date(2024, 3, 8)

# By name: rows, settings, and per tick: UTC, then bid and ask, or price and size.
LAYOUTS: dict[str, tuple[str, dict[str, Any], list[Any]]] = {
    "MetaTrader 5, ticks": (
        "<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\n"
        "2024.03.08\t09:30:00.123\t1.09431\t1.09433\t\t\t6\n"
        "2024.03.08\t09:30:00.500\t1.09432\t\t\t\t2\n",
        {
            "symbol": "EURUSD", "delimiter": "\t", "header": True, "merge": "all",
            "time_format": "%H:%M:%S.%f",
            "columns": {"date": "<DATE>", "time": "<TIME>", "bid": "<BID>", "ask": "<ASK>"},
        },
        [("09:30:00.123", 1.09431, 1.09433), ("09:30:00.500", 1.09432, 1.09433)],
    ),
    "HistData, ASCII ticks": (
        "20240308 093000660,1.306600,1.306700,0\n20240308 093001013,1.306650,1.306750,0\n",
        {
            "symbol": "EURUSD", "zone": "Etc/GMT+5", "time_format": "%Y%m%d %H%M%S%3f",
            "columns": {"time": 0, "bid": 1, "ask": 2},
        },
        [("14:30:00.660", 1.3066, 1.3067), ("14:30:01.013", 1.30665, 1.30675)],
    ),
    "Kibot, trades": (
        "03/08/2024,09:30:00,170.10,200\n03/08/2024,09:30:01,170.11,100\n",
        {
            "symbol": "IBM", "zone": NY, "date_format": "%m/%d/%Y", "time_format": "%H:%M:%S",
            "columns": {"date": 0, "time": 1, "price": 2, "size": 3},
        },
        [("14:30:00", 170.10, 200), ("14:30:01", 170.11, 100)],
    ),
    "Kibot, bid and ask": (
        "03/08/2024,09:30:00,170.10,170.09,170.12,200\n",
        {
            "symbol": "IBM", "zone": NY, "date_format": "%m/%d/%Y", "time_format": "%H:%M:%S",
            "columns": {"date": 0, "time": 1, "bid": 3, "ask": 4},
        },
        [("14:30:00", 170.09, 170.12)],
    ),
    "Dukascopy, JForex": (
        "Time (EET),Ask,Bid,AskVolume,BidVolume\n2024.03.08 09:30:00.123,1.09433,1.09431,0.75,1.5\n",
        {
            "symbol": "EURUSD", "header": True, "zone": "EET", "time_format": "%Y.%m.%d %H:%M:%S.%f",
            "columns": {
                "time": "Time (EET)", "ask": "Ask", "bid": "Bid", "ask_size": "AskVolume",
                "bid_size": "BidVolume",
            },
        },
        [("07:30:00.123", 1.09431, 1.09433)],
    ),
    "Dukascopy, web": (
        "Local time;Ask;Bid\n08.03.2024 09:30:00.123 GMT+0100;1,09433;1,09431\n",
        {
            "symbol": "EURUSD", "header": True, "delimiter": ";", "decimal": ",",
            "time_format": "%d.%m.%Y %H:%M:%S.%f GMT%z",
            "columns": {"time": "Local time", "ask": "Ask", "bid": "Bid"},
        },
        [("08:30:00.123", 1.09431, 1.09433)],
    ),
    "NYSE Daily TAQ, quotes": (
        "Time|Exchange|Symbol|Bid_Price|Bid_Size|Offer_Price|Offer_Size\n"
        "093000012345678|P|IBM|170.1|3|170.2|5\n040000000000000|N|IBM|170|1|171|1\n",
        {
            "header": True, "delimiter": "|", "zone": NY, "day": DAY, "time_format": "%H%M%S%9f",
            "columns": {
                "time": "Time", "symbol": "Symbol", "bid": "Bid_Price", "bid_size": "Bid_Size",
                "ask": "Offer_Price", "ask_size": "Offer_Size",
            },
        },
        [("14:30:00.012345678", 170.1, 170.2), ("09:00:00", 170, 171)],
    ),
    "AlgoSeek": (
        "Date,Timestamp,EventType,Ticker,Price,Quantity,Exchange,Conditions\n"
        "20240308,09:30:00.123456789,TRADE,IBM,170.10,200,NYSE,00000000\n"
        "20240308,09:30:00.2,QUOTE BID,IBM,170.09,200,NYSE,00000000\n",
        {
            "header": True, "zone": NY, "time_format": "%H:%M:%S.%f", "where": {"EventType": "TRADE"},
            "columns": {
                "date": "Date", "time": "Timestamp", "symbol": "Ticker", "price": "Price", "size": "Quantity",
            },
        },
        [("14:30:00.123456789", 170.10, 200)],
    ),
    "CTP": (
        "TradingDay,InstrumentID,UpdateTime,UpdateMillisec,LastPrice,BidPrice1,BidVolume1,AskPrice1,AskVolume1\n"
        "20240308,rb2405,09:30:00,0,3700,3699,12,3700,7\n20240308,rb2405,09:30:00,500,3701,3700,3,3701,2\n",
        {
            "header": True, "zone": "Asia/Shanghai", "time_format": "%H:%M:%S",
            "columns": {
                "date": "TradingDay", "time": "UpdateTime", "millisecond": "UpdateMillisec",
                "symbol": "InstrumentID", "bid": "BidPrice1", "bid_size": "BidVolume1", "ask": "AskPrice1",
                "ask_size": "AskVolume1",
            },
        },
        [("01:30:00", 3699, 3700), ("01:30:00.500", 3700, 3701)],
    ),
    "TickData": (
        "03/08/2024,09:30:00.123,170.10,200,N,@,00\n",
        {
            "symbol": "IBM", "zone": NY, "date_format": "%m/%d/%Y", "time_format": "%H:%M:%S.%f",
            "columns": {"date": 0, "time": 1, "price": 2, "size": 3},
        },
        [("14:30:00.123", 170.10, 200)],
    ),
    "Finam": (
        "<TICKER>;<PER>;<DATE>;<TIME>;<LAST>;<VOL>\nSBER;0;20240308;093059;300,15;10\n"
        "SBER;0;20240308;93100;300,2;5\n",
        {
            "header": True, "delimiter": ";", "decimal": ",", "zone": "Europe/Moscow",
            "time_format": "%H%M%S",
            "columns": {
                "date": "<DATE>", "time": "<TIME>", "symbol": "<TICKER>", "price": "<LAST>", "size": "<VOL>",
            },
        },
        [("06:30:59", 300.15, 10), ("06:31:00", 300.2, 5)],
    ),
    "kdb+, timestamps": (
        "time,sym,price,size\n2024.03.08D09:30:00.123456789,IBM,170.1,200\n",
        {
            "header": True, "time_format": "%Y.%m.%dD%H:%M:%S.%f",
            "columns": {"time": "time", "symbol": "sym", "price": "price", "size": "size"},
        },
        [("09:30:00.123456789", 170.1, 200)],
    ),
    "kdb+, timespans": (
        "time,sym,price,size\n0D09:30:00.123456789,IBM,170.1,200\n0D09:30:01,IBM,170.2,1\n",
        {
            "header": True, "day": DAY, "zone": NY, "time_format": "0D%H:%M:%S.%f",
            "columns": {"time": "time", "symbol": "sym", "price": "price", "size": "size"},
        },
        [("14:30:00.123456789", 170.1, 200), ("14:30:01", 170.2, 1)],
    ),
}  # fmt: skip


def utc(clock):
    """Return nanoseconds since the epoch of a UTC time on 2024-03-08."""
    whole, _, decimals = clock.partition(".")
    at = datetime.combine(DAY, datetime.strptime(whole, "%H:%M:%S").time(), UTC)
    return round(at.timestamp()) * 10**9 + int(decimals.ljust(9, "0"))


@pytest.mark.parametrize("vendor", LAYOUTS)
async def test_the_layout_of(autojump_clock, tmp_path, vendor):
    rows, settings, expected = LAYOUTS[vendor]
    (tmp_path / "ticks.csv").write_text(rows)
    intake = await replayed(tmp_path, format="csv", path="ticks.csv", **settings)
    records = intake.quotes if len(intake.quotes) else intake.trades
    first, second = ("bid_px", "ask_px") if len(intake.quotes) else ("price", "size")
    scale = 1e9 if second == "ask_px" else 1
    got = [(int(r["ts_event"]), r[first] / 1e9, r[second] / scale) for r in records]
    assert got == [(utc(clock), *values) for clock, *values in expected]
    assert not {"broken_line", "rounded_price"} & set(intake.events)
    assert len(names(intake, records)[0]) >= 3


CLOCKS = {"format": "csv", "path": "t.csv", "symbol": "X", "columns": {"time": 0, "price": 1, "size": 2}}


def clocks(folder, *texts):
    (folder / "t.csv").write_text("".join(f"{text},1,1\n" for text in texts))


async def times_of(folder, **settings):
    intake = await replayed(folder, **CLOCKS, **settings)
    return intake.trades["ts_event"].tolist(), intake


async def test_hhmmss_numbers_are_clocks_with_or_without_their_leading_zeros(autojump_clock, tmp_path):
    clocks(tmp_path, "0", "59", "093059", "93100", "235959")
    got, intake = await times_of(tmp_path, time_format="%H%M%S", day=DAY)
    assert got == [utc(f"{c}") for c in ("00:00:00", "00:00:59", "09:30:59", "09:31:00", "23:59:59")]
    assert not intake.events


@pytest.mark.parametrize(
    ("text", "format"),
    [("093059123", "%H%M%S%3f"), ("93059123", "%H%M%S%3f"), ("093059123456", "%H%M%S%6f"),
     ("093059123456789", "%H%M%S%9f"), ("093059123456789", "%H%M%S%f"), ("0930591", "%H%M%S%f")],
)  # fmt: skip
async def test_hhmmss_numbers_with_decimals(autojump_clock, tmp_path, text, format):
    clocks(tmp_path, text)
    got, _ = await times_of(tmp_path, time_format=format, day=DAY)
    decimals = text[-(len(text) - 6 + (text[0] == "9")) :]
    assert got == [utc(f"09:30:59.{decimals}")]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_clock_that_is_configured_as_a_count_is_refused_and_the_way_out_named(tmp_path, unit):
    decimals = {"s": "", "ms": "000", "us": "000000", "ns": "000000000"}[unit]
    way_out = {"s": "%H%M%S", "ms": "%H%M%S%3f", "us": "%H%M%S%6f", "ns": "%H%M%S%9f"}[unit]
    # Read as counts of seconds, these lie within the day, 41 seconds apart.
    for rows in (("093059", "093100"), ("040059", "040100")):
        clocks(tmp_path, *(row + decimals for row in rows))
        said = refusal(tmp_path, **CLOCKS, time=unit, day=DAY, zone=NY)
        assert f'time_format = "{way_out}"' in said


async def test_a_time_more_than_25_hours_after_the_day_is_left_out_and_told(autojump_clock, tmp_path):
    clocks(tmp_path, 34200, 90000, 90001, 93059, -90001)
    got, intake = await times_of(tmp_path, time="s", day=DAY)
    assert [at - utc("00:00:00") for at in got] == [34200 * 10**9, 90000 * 10**9]
    assert intake.events == {"broken_line": 3}
    (reason, *_), at = [entry["reason"] for entry in intake.logged[1:]], "read by time = 's'"
    assert reason == f'a time more than 25 h after the day ({at}); use time_format = "%H%M%S": 93059,1,1'


@pytest.mark.parametrize(
    ("text", "settings", "way_out"),
    [
        ("09:30:00.123", {"time": "ms"}, 'time_format = "%H:%M:%S.%f", with day or columns.date'),
        ("2024-03-08 09:30:00", {"time": "ms"}, 'time = "iso"'),
        ("2024.03.08 09:30:00.1", {"time": "iso"}, 'time_format = "%Y.%m.%d %H:%M:%S.%f"'),
        ("08.03.2024 09:30:00", {"time": "iso"}, 'time_format = "%d.%m.%Y %H:%M:%S.%f"'),
        ("2024.03.08D09:30:00.1", {"time": "iso"}, 'time_format = "%Y.%m.%dD%H:%M:%S.%f"'),
        ("1709890200123", {"time": "iso"}, 'time = "ms", counted from 1970'),
        ("20240308093059", {"time": "ns"}, 'time_format = "%Y%m%d%H%M%S"'),
        ("20240308093059123", {"time": "us"}, 'time_format = "%Y%m%d%H%M%S%3f"'),
        ("1709890200.123", {"time": "ms"}, 'use time = "s", counted from 1970'),
        ("1709890200", {"time": "ns"}, 'use time = "s", counted from 1970'),
        ("93059", {"time": "s"}, 'use time_format = "%H%M%S", with day or columns.date'),
        ("9h30", {"time": "ms"}, "not a time (read by time = 'ms')"),
        (
            "9:30", {"time_format": "%H:%M:%S", "day": DAY},
            "not a time (read by time_format = '%H:%M:%S'); use time_format = ",
        ),
    ],
)  # fmt: skip
def test_what_is_no_time_is_shown_with_the_key_that_would_read_it(tmp_path, text, settings, way_out):
    clocks(tmp_path, text)
    said = refusal(tmp_path, **CLOCKS, **settings)
    assert way_out in said
    assert text in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"time_format": "%H:%M:%S"}, "time_format: '%H:%M:%S' has no date: set day, columns.date or member"),
        ({"time_format": "%Y-%m %H"}, "time_format: '%Y-%m %H' needs year, month and day, or none of them"),
        ({"time_format": "%Y%m%d"}, "time_format: '%Y%m%d' needs one hour, %H or %I, and at most one year"),
        ({"time_format": "%I:%M", "day": DAY}, "time_format: '%I:%M' needs %I and %p together"),
        (
            {"time_format": "%H:%M:%Q", "day": DAY},
            "time_format: '%Q' in '%H:%M:%Q' is not known; known are %Y",
        ),
        ({"time_format": "%H%H", "day": DAY}, "time_format: %H occurs twice in '%H%H'"),
        ({"time_format": "%z %H", "day": DAY}, "time_format: %z must be last, not as in '%z %H'"),
        ({"time_format": "", "day": DAY}, "time_format: 1 to 40 ASCII characters"),
        ({"time_format": "%H", "time": "ms", "day": DAY}, "time: not with time_format = '%H'"),
        ({"time_format": "%Y%m%d%H", "day": DAY}, "day: not with time_format = '%Y%m%d%H'"),
        ({"time": "iso", "day": DAY}, "day: not with time = 'iso'"),
        ({"date_format": "%Y", "day": DAY, "time": "s"}, "date_format: only with columns.date, or member"),
        ({"decimal": ","}, "decimal: ',' is the delimiter"),
    ],
)
def test_formats_that_cannot_be(tmp_path, settings, said):
    clocks(tmp_path, "09:30:00")
    assert refusal(tmp_path, **CLOCKS, **settings).startswith(said)


def test_dates_in_a_column_that_cannot_be(tmp_path):
    (tmp_path / "t.csv").write_text("31.12.2024,09:30:00,1,1\n")
    columns = {"date": 0, "time": 1, "price": 2, "size": 3}
    settings = CLOCKS | {"columns": columns, "time_format": "%H:%M:%S"}
    said = """not a date; use date_format = "%d.%m.%Y": '31.12.2024', of the row: 31.12.2024,09:30:00"""
    assert said in refusal(tmp_path, **settings)
    make(tmp_path, **settings, date_format="%d.%m.%Y")
    assert refusal(tmp_path, **settings, date_format="%Y").startswith(
        "date_format: '%Y' is no strptime format of a date, such as"
    )
    assert refusal(tmp_path, **settings, day=DAY).startswith("day: not with columns.date")


@pytest.mark.parametrize("mark", [".", ","])
@pytest.mark.parametrize(
    ("offset", "hours"), [("", 5), ("Z", 0), ("-05:00", 5), (" +0100", -1), ("+14", -14)]
)
async def test_iso_times_keep_the_decimals_of_the_second_whatever_the_decimals_of_numbers(
    autojump_clock, tmp_path, mark, offset, hours
):
    """With decimal commas, a point in a time was once invalid, and the text after it an offset of 0."""
    (tmp_path / "day.csv").write_text(f"2024-03-08 09:30:00{mark}78{offset};1,5\n")
    settings = {"decimal": ",", "time": "iso", "zone": "America/New_York", "delimiter": ";"}
    intake = await replayed(
        tmp_path, path="day.csv", format="csv", symbol="A", columns={"time": 0, "price": 1}, **settings
    )
    midnight_s = 1_709_856_000
    assert intake.trades["ts_event"].tolist() == [
        (midnight_s + (9 + hours) * 3600 + 1800) * 10**9 + 780_000_000
    ]
    assert intake.trades["price"].tolist() == [1_500_000_000]


@pytest.mark.parametrize(
    "text", ["09:30:00.5Z", "09:30:00,5", "09:30:00+1", "09:30:00+01:00.5", "09:30:00+24:00"]
)
def test_decimals_of_a_second_are_no_offset(tmp_path, text):
    (tmp_path / "day.csv").write_text(f'"2024-03-08T{text}",1.5\n')
    keys = {"format": "csv", "symbol": "A", "columns": {"time": 0, "price": 1}}
    said = refusal(tmp_path, path="day.csv", time_format="%Y-%m-%dT%H:%M:%S%z", **keys)
    assert "not a time" in said


async def test_decimal_commas_are_exact_and_a_point_is_no_number_then(autojump_clock, tmp_path):
    (tmp_path / "t.csv").write_text(
        "1709890200,5;1.234,5;1\n1709890200,5;0,000000001;1e3\n1709890200,5;-7,5;,5\n1;1.5;1\n"
    )
    settings = CLOCKS | {"delimiter": ";", "decimal": ",", "time": "s"}
    intake = await replayed(tmp_path, **settings)
    assert intake.trades["price"].tolist() == [1, -7_500_000_000]
    assert intake.trades["size"].tolist() == [1000, 0.5]
    assert set(intake.trades["ts_event"].tolist()) == {1_709_890_200_500_000_000}
    assert intake.events == {"broken_line": 2}


SEMICOLONS = CLOCKS | {"delimiter": ";"}


@pytest.mark.parametrize(
    ("format", "text", "way_out"),
    [
        ("%d.%m.%Y %H:%M:%S.%f", "08.05.2014 14:08:00,100", "%d.%m.%Y %H:%M:%S,%f"),
        ("%d.%m.%Y %H:%M:%S,%f", "08.05.2014 14:08:00.100", "%d.%m.%Y %H:%M:%S.%f"),
        ("%d.%m.%Y %H:%M:%S", "08.05.2014 14:08:00,100", "%d.%m.%Y %H:%M:%S,%f"),
        ("%d.%m.%Y %H:%M:%S", "08.05.2014 14:08:00.100", "%d.%m.%Y %H:%M:%S.%f"),
        ("%d.%m.%Y %H:%M:%S.%f", "08.05.2014 14:08:00:100", "%d.%m.%Y %H:%M:%S:%3f"),
        ("%d/%m/%Y %H:%M:%S.%f", "08.05.2014 14:08:00.5", "%d.%m.%Y %H:%M:%S.%f"),
        ("%d.%m.%Y %H:%M:%S.%f", "05.28.2014 14:08:00.5", "%m.%d.%Y %H:%M:%S.%f"),
        ("%d.%m.%Y %H:%M:%S.%f", "08.05.2014T14:08:00.5", "%d.%m.%YT%H:%M:%S.%f"),
        ("%d/%m/%Y %H:%M:%S", "28-05-2014T14:08:00,5", "%d-%m-%YT%H:%M:%S,%f"),
    ],
)
def test_what_is_no_time_is_singled_out_with_the_format_that_reads_it(tmp_path, format, text, way_out):
    (tmp_path / "t.csv").write_text(f"{text};1;1\n")
    said = refusal(tmp_path, **SEMICOLONS, time_format=format)
    told = f'not a time (read by time_format = {format!r}); use time_format = "{way_out}"'
    assert said.endswith(f"{told}: {text!r}, of the row: {text};1;1")
    make(tmp_path, **SEMICOLONS, time_format=way_out)  # accepts it


def test_a_field_that_is_long_or_holds_control_bytes_is_shown_cut_and_escaped(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\x1b[31m" + b"9" * 100 + b";1;1\n")
    said = refusal(tmp_path, **SEMICOLONS, time="s", day=DAY)
    assert f"'\\x1b[31m{'9' * 52}…', of the row: \\x1b[31m999" in said


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("34200;1,5;1", """not a price; use decimal = ",": '1,5', of the row: 34200;1,5;1"""),
        ("34200;1;1,5", """not a size; use decimal = ",": '1,5', of the row: 34200;1;1,5"""),
        ("34200;x;1", "not a price: 'x', of the row: 34200;x;1"),
        ("34200;1;-1", "not a size: '-1', of the row: 34200;1;-1"),
        ("34200;1;", "a trade without price or size: 34200;1;"),
    ],
)
def test_the_field_that_has_a_row_left_out_is_singled_out(tmp_path, row, told):
    (tmp_path / "t.csv").write_text(f"{row}\n")
    assert refusal(tmp_path, **SEMICOLONS, time="s", day=DAY).endswith(told)


@given(
    st.permutations(["%d", "%m", "%Y"]), st.sampled_from("./-"), st.sampled_from(" T"),
    st.sampled_from(["", ".%f", ",%f"]), st.datetimes(datetime(1981, 1, 1), datetime(2037, 1, 1)),
)  # fmt: skip
def test_a_variant_of_a_format_is_a_format_and_the_other_fraction_is_among_them(
    date, sign, between, fraction, at
):
    layout = f"{sign.join(date)}{between}%H:%M:%S{fraction}"
    found = variants(layout)
    assert layout not in found
    assert all(TimeFormat(one).has_date for one in found)
    assert {f"{sign.join(date)}{between}%H:%M:%S{other}" for other in ("", ".%f", ",%f")} - {layout} <= set(
        found
    )


async def test_in_parquet_too_a_clock_that_is_configured_as_a_count_is_told_with_the_way_out(
    autojump_clock, tmp_path
):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = {"t": pa.array([34200, 93059, 93100], pa.int64()), "p": [1.5] * 3, "s": [2.0] * 3}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    settings = {"columns": {"time": "t", "price": "p", "size": "s"}, "symbol": "X", "time": "s", "day": DAY}
    intake = await replayed(tmp_path, format="parquet", path="t.parquet", **settings)
    assert intake.trades["ts_event"].tolist() == [utc("09:30:00")]
    assert intake.events == {"broken_record": 2}
    assert intake.logged[0]["reason"].endswith("(read by time = 's'); use time_format = \"%H%M%S\"")


async def test_parquet_with_dates_and_clocks_in_columns_of_their_own(autojump_clock, tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = {"price": "p", "size": "s", "date": "d", "time": "t"}
    tables = [
        ({"d": ["20240308"], "t": ["09:30:00.5"]}, {"time_format": "%H:%M:%S.%f"}),
        ({"d": pa.array([DAY]), "t": pa.array([93000500], pa.int64())}, {"time_format": "%H%M%S%3f"}),
        ({"d": pa.array([20240308]), "t": pa.array([34200500], pa.int64())}, {"time": "ms"}),
        ({"d": [""], "t": ["2024-03-08 09:30:00.5"]}, {"time": "iso"}),
    ]
    for table, settings in tables:
        pq.write_table(pa.table(table | {"p": [1.5], "s": [2.0]}), tmp_path / "t.parquet")
        used = {k: v for k, v in columns.items() if not (k == "date" and settings == {"time": "iso"})}
        intake = await replayed(
            tmp_path, format="parquet", path="t.parquet", symbol="X", columns=used, **settings
        )
        assert intake.trades["ts_event"].tolist() == [utc("09:30:00.5")]
