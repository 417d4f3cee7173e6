"""Times of day are local times, on days with changes of the UTC offset, too."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.feeds.replay.fields import PAD, Fields
from marketfeed.feeds.replay.timeformat import TimeFormat
from marketfeed.feeds.replay.times import clock_ns, of_day
from tests.support.replay import replayed

ZONES = ["UTC", "America/New_York", "Europe/London", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"]
MS = 10**6
CSV = {"format": "csv", "path": "day.csv", "symbol": "X", "columns": {"time": 0, "price": 1, "size": 2}}


def column(values):
    """Return texts as a column."""
    data = [value.encode() for value in values]
    ends = np.cumsum([len(value) + 1 for value in data]) - 1
    starts = ends - [len(value) for value in data]
    return Fields(np.frombuffer(b",".join(data) + PAD, np.uint8), starts, ends)


def moment(reading, zone):
    """Convert a local time to UTC nanoseconds by zoneinfo; a repeated time means its first occurrence."""
    aware = reading.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


@given(
    zone=st.sampled_from(ZONES),
    day=st.dates(date(1990, 1, 1), date(2037, 12, 31)),
    after=st.timedeltas(timedelta(0), timedelta(hours=25)),
)
def test_time_since_midnight_is_what_the_clock_showed(zone, day, after):
    elapsed = np.array([after // timedelta(microseconds=1) * 1000])
    times, beyond = of_day(elapsed, clock_ns(day), ZoneInfo(zone))
    assert not beyond.any()
    assert times.tolist() == [moment(datetime.combine(day, time()) + after, zone)]


@pytest.mark.parametrize(
    ("day", "clock", "utc"),
    [
        (date(2024, 3, 10), "18:00", "22:00"),  # a day of 23 hours
        (date(2024, 3, 10), "01:59", "06:59"),
        (date(2024, 3, 10), "02:30", "07:30"),  # skipped: means 03:30
        (date(2024, 3, 10), "03:00", "07:00"),
        (date(2024, 11, 3), "18:00", "23:00"),  # a day of 25 hours
        (date(2024, 11, 3), "00:59", "04:59"),
        (date(2024, 11, 3), "01:30", "05:30"),  # repeated: the first
        (date(2024, 11, 3), "02:00", "07:00"),
        (date(2024, 7, 1), "09:30", "13:30"),
    ],
)
@pytest.mark.parametrize(("unit", "per_s"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
async def test_days_with_a_change_of_the_clock_in_every_unit(
    autojump_clock, tmp_path, day, clock, utc, unit, per_s
):
    since = time.fromisoformat(clock)
    (tmp_path / "day.csv").write_text(f"{(since.hour * 3600 + since.minute * 60) * per_s},1,1\n")
    intake = await replayed(tmp_path, **CSV, time=unit, day=day, zone="America/New_York")
    (got,) = intake.trades["ts_event"].tolist()
    assert datetime.fromtimestamp(got / 1e9, UTC) == datetime.combine(day, time.fromisoformat(utc), UTC)


FORMATS = [
    "%Y-%m-%d %H:%M:%S.%f",
    "%d/%m/%Y %H:%M:%S,%f",
    "%Y%m%d%H%M%S%6f",
    "%d-%b-%Y %I:%M:%S.%f %p",
    "%y%m%d %H%M%S%f",
]


@given(
    format=st.sampled_from(FORMATS),
    moments=st.lists(st.datetimes(datetime(1980, 1, 2), datetime(2037, 12, 31)), min_size=1, max_size=5),
    blanks=st.integers(0, 2),
)
def test_what_strftime_wrote_is_read_to_the_microsecond(format, moments, blanks):
    written = [" " * blanks + at.strftime(format.replace("%6f", "%f")) + " " * blanks for at in moments]
    reading = TimeFormat(format).read(column(written))
    assert not reading.broken.any()
    epoch = datetime(1970, 1, 1)
    assert reading.day is not None
    got = reading.day * 86_400_000_000 + reading.clock_ns // 1000
    assert got.tolist() == [(at - epoch) // timedelta(microseconds=1) for at in moments]


@given(
    format=st.sampled_from([*FORMATS, "%H%M%S", "%H:%M:%S", "0D%H:%M:%S.%f", "%d.%m.%Y %H:%M %z"]),
    text=st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=30)
    | st.from_regex(r"[0-9 :.\-/D]{1,26}", fullmatch=True),
)
def test_what_is_read_is_what_strptime_reads_or_nothing(format, text):
    reading = TimeFormat(format).read(column([text, "x"]))
    assert reading.broken[1]
    if reading.broken[0]:
        return
    # strptime accepts six decimals, and requires zeros that are optional here.
    assert reading.clock_ns[0] >= 0
    if "f" in format:
        return
    digits = text.strip()
    padded = digits.zfill(6) if format == "%H%M%S" else digits
    parsed = datetime.strptime(padded, format)
    assert reading.clock_ns[0] == ((parsed.hour * 60 + parsed.minute) * 60 + parsed.second) * 10**9


@pytest.mark.parametrize(
    "text", ["2024-02-30 00:00:00", "2023-02-29 00:00:00", "2024-13-01 00:00:00", "2024-00-01 00:00:00",
             "2024-01-01 24:00:00", "2024-01-01 00:60:00", "2024-01-01 00:00:60", "2024-01-01 00:00:00.",
             "2024-01-01 00:00:00.1x", "2024-01-01 00:00", "24-01-01 00:00:00", "", "   ", "2024-01-01",
             "2024-01-01 00:00:00 1", "2024-01-0100:00:00", "١٢٣٤-01-01 00:00:00"],
)  # fmt: skip
def test_texts_that_a_format_does_not_have(text):
    reading = TimeFormat("%Y-%m-%d %H:%M:%S.%f").read(column(["2024-01-01 00:00:00", text]))
    assert reading.broken.tolist() == [False, True]
