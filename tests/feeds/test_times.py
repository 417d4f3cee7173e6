"""Times of day are readings of a clock on the wall, whatever the zone did that day."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replaykit import replayed

from feeds.replay.times import clock_ns, of_day

ZONES = ["UTC", "America/New_York", "Europe/London", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"]
MS = 10**6
CSV = {"format": "csv", "path": "day.csv", "symbol": "X", "columns": {"time": 0, "price": 1, "size": 2}}


def moment(reading, zone):
    """Return the moment of a clock's reading by zoneinfo, in nanoseconds; the first one if it came twice."""
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
        (date(2024, 3, 10), "02:30", "07:30"),  # left out: 03:30
        (date(2024, 3, 10), "03:00", "07:00"),
        (date(2024, 11, 3), "18:00", "23:00"),  # a day of 25 hours
        (date(2024, 11, 3), "00:59", "04:59"),
        (date(2024, 11, 3), "01:30", "05:30"),  # came twice: the first
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
