"""Pages of the history of alerts: together they are everything wanted, once, newest first."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.alerts import history
from marketfeed.alerts.history import LOOKED_AT, MAX_REST_S, PAGE_BYTES, READ, Histories, Wanted, look_back
from marketfeed.alerts.log import Entry
from marketfeed.testing_alert_log import example


class Kept:
    """The part of an alert log that is read, with ``holes`` as retention leaves them."""

    def __init__(self, *entries: Entry) -> None:
        self.entries = list(entries)
        self.reads = 0

    async def find(self, alert: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.alert.id == alert), None)

    async def read_back(self, before: int | None, limit: int) -> list[Entry]:
        self.reads += 1
        older = [entry for entry in self.entries if before is None or entry.position < before]
        return older[::-1][:limit]


def log(*alerts, marks=(), start=1, holes=0):
    marks = dict(enumerate(marks))
    entries = [
        Entry(start + place * (holes + 1), alert, 0, marks.get(place)) for place, alert in enumerate(alerts)
    ]
    kept: Any = Kept(*entries)
    return kept


async def pages(kept, wanted, limit):
    """Return the pages from the newest alert to the oldest."""
    found, before = [], ""
    while True:
        page = await look_back(kept, wanted, before, limit)
        assert page is not None
        found.append(page)
        if page.next is None:
            return found
        before = str(page.next)


async def ids(kept, before="", limit=10, **wanted):
    page = await look_back(kept, Wanted(**wanted), before, limit)
    return None if page is None else [alert.id for alert in page.alerts]


ALERTS = [
    example(1, "wide", symbol="AAPL", severity="info"),
    example(2, "wide.night", symbol="BTC-USD", severity="critical"),
    example(3, "notice", symbol="", severity="warning"),
    example(4, "move", symbol="BTC-EUR", severity="warning"),
]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, [4, 3, 2, 1]),
        ({"rules": ("wide",)}, [1]),
        ({"rules": ("wide*",)}, [2, 1]),
        ({"rules": ("move", "notice")}, [4, 3]),
        ({"symbols": ("BTC*",)}, [4, 2]),
        ({"symbols": ("AAPL", "BTC-EUR")}, [4, 1]),
        ({"severities": ("critical", "info")}, [2, 1]),
        ({"entitled": ("BTC*",)}, [4, 3, 2]),
        ({"entitled": ()}, [3]),
        ({"entitled": ("BTC*",), "symbols": ("AAPL",)}, []),
        ({"rules": ("wide*",), "symbols": ("B*",), "severities": ("warning",)}, []),
    ],
)
async def test_filters_have_to_match_all(wanted, numbers):
    assert await ids(log(*ALERTS), **wanted) == [ALERTS[number - 1].id for number in numbers]


async def test_what_no_live_view_shows_is_left_out():
    to_one = example(9, "notice", to="risk-1")
    kept = log(*ALERTS, to_one, marks=("silenced", None, "inhibited"))
    assert await ids(kept) == [ALERTS[3].id, ALERTS[1].id]
    assert await ids(kept, to_one.id) is None
    assert await ids(kept, ALERTS[0].id) is None


async def test_before_is_an_id_or_a_position():
    kept = log(*ALERTS, start=40)
    assert await ids(kept, ALERTS[2].id) == [ALERTS[1].id, ALERTS[0].id]
    assert await ids(kept, "42") == [ALERTS[1].id, ALERTS[0].id]
    assert await ids(kept, "9" * 18, limit=1) == [ALERTS[3].id]
    assert await ids(kept, "1") == []
    assert await ids(kept, example(77).id) is None
    digits = msgspec.structs.replace(example(5), id="0" * 26)
    assert await ids(log(ALERTS[0], digits, ALERTS[1]), "0" * 26) == [ALERTS[0].id]
    assert await ids(kept, ALERTS[0].id, entitled=("BTC*",)) is None  # it is not to be known that it is there


async def test_a_page_looks_at_so_many_entries_at_most():
    rare = example(0, "rare")
    kept = log(rare, *(example(n) for n in range(1, 2 * LOOKED_AT + 10)))
    found = await pages(kept, Wanted(rules=("rare",)), 10)
    assert [len(page.alerts) for page in found] == [0, 0, 1]
    assert kept.reads == 2 * LOOKED_AT // READ + 1


async def test_a_page_ends_at_so_many_bytes():
    notices = [example(n, "notice", data={"text": "x" * 16_000}) for n in range(200)]
    found = await pages(log(*notices), Wanted(), 1000)
    assert len(found) == 4
    assert all(len(msgspec.json.encode(page.alerts)) < PAGE_BYTES + 20_000 for page in found)
    assert [alert for page in found for alert in page.alerts] == notices[::-1]


@pytest.mark.parametrize("wrong", [{"symbols": ("BT*C",)}, {"entitled": ("",)}])
async def test_what_is_no_symbol_is_refused(wrong):
    with pytest.raises(ValueError, match="not a symbol"):
        await look_back(log(), Wanted(**wrong), "", 1)


MADE = st.builds(
    example,
    number=st.integers(0, 10**6),
    rule=st.sampled_from(["wide", "move", "notice"]),
    symbol=st.sampled_from(["", "AAPL", "BTC-USD", "BTC-EUR"]),
    severity=st.sampled_from(["info", "warning", "critical"]),
    to=st.sampled_from([None, None, None, "risk"]),
)
WANTED = st.builds(
    Wanted,
    rules=st.sampled_from([("*",), ("w*",), ("move", "notice")]),
    symbols=st.sampled_from([("*",), ("BTC*",), ("AAPL",)]),
    severities=st.sampled_from([("info", "warning", "critical"), ("critical",)]),
    entitled=st.sampled_from([("*",), ("BTC-U*", "AAPL"), ()]),
)


@given(
    st.lists(MADE, max_size=30, unique_by=lambda alert: alert.id),
    st.lists(st.sampled_from([None, None, "silenced", "inhibited"]), max_size=30),
    WANTED,
    st.integers(1, 5),
    st.integers(0, 3),
)
def test_pages_together_are_what_is_wanted_newest_first(alerts, marks, wanted, limit, holes):
    kept = log(*alerts, marks=marks, holes=holes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "READ", 4)
        patch.setattr(history, "LOOKED_AT", 9)
        found = trio.run(pages, kept, wanted, limit)
    shown, matching = wanted.shown(), wanted.matching()
    expected = [entry.alert for entry in kept.entries[::-1] if shown(entry) and matching(entry.alert)]
    assert [alert for page in found for alert in page.alerts] == expected
    assert all(len(page.alerts) <= limit for page in found)


class Slow(Kept):
    """Takes a tenth of a second for a read, of which the clock of the test knows."""

    async def read_back(self, before: int | None, limit: int) -> list[Entry]:
        await trio.sleep(0.1)
        return await super().read_back(before, limit)


async def test_histories_are_read_one_at_a_time_with_pauses(autojump_clock):
    slow: Any = Slow(*(Entry(position, alert, 0) for position, alert in enumerate(ALERTS, 1)))
    histories = Histories(slow)
    ended: list[float] = []

    async def ask():
        page = await histories.page(Wanted(), "", 10)
        assert page is not None
        assert len(page.alerts) == 4
        ended.append(round(trio.current_time(), 3))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert ended == pytest.approx([0.1, 0.2 + MAX_REST_S, 0.3 + 2 * MAX_REST_S])
