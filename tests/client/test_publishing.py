"""A publisher's stream: what is taken arrives in order, or is counted, whatever is cut when."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.client.publishing import FRAME_TICKS, PublisherFullError, Publishing
from marketfeed.client.tick_records import quote_record, trade_record
from marketfeed.core.binary import FrameParser, Kind
from marketfeed.core.records import QUOTE, TRADE
from marketfeed.core.symbols import MAX_SYMBOLS
from marketfeed.feeds.push.publisher import Publisher
from tests.support.publishers import quotes

NAMES = [f"S{i}" for i in range(6)]
KERNEL = 1000  # bytes


def trades(*symbols, **fields):
    records = np.zeros(len(symbols), TRADE)
    records["symbol"] = symbols
    records["size"], records["side"] = 1, ord("b")
    for name, value in fields.items():
        records[name] = value
    return records


class Engine:
    """The other end: the engine's own parser of a publisher's stream, over several connections."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}
        self.ticks: list[tuple[str, int]] = []  # name, and bid_px or price
        self._publisher: Publisher | None = None

    def accept(self) -> None:
        self._publisher = Publisher(lambda name: self.ids.setdefault(name, len(self.ids)), lambda *_: None)

    def read(self, data: bytes) -> None:
        assert self._publisher is not None
        names = {}
        self._publisher.feed(data)
        while (batch := self._publisher.next_batch()) is not None:
            names = {number: name for name, number in self.ids.items()}
            self.ticks += [(names[int(q["symbol"])], int(q["bid_px"])) for q in batch.quotes]
            self.ticks += [(names[int(t["symbol"])], int(t["price"])) for t in batch.trades]


class Wire:
    """A publisher, the kernel between, which keeps up to KERNEL bytes, and an engine."""

    def __init__(self) -> None:
        self.out, self.engine = Publishing(10_000), Engine()
        self.kernel = b""
        self.open = False
        self.taken: list[tuple[str, int]] = []

    def connect(self) -> None:
        if not self.open:
            self.open = True
            self.engine.accept()
            self.out.connected(KERNEL, 1)

    def send(self, size: int) -> None:
        """Hand over up to ``size`` bytes; the kernel passes on what exceeds its room."""
        if not self.open:
            return
        data = b"".join(self.out.chunks())[:size]
        self.out.hand_over(len(data))
        self.kernel += data
        self.read(len(self.kernel) - KERNEL)

    def read(self, size: int) -> None:
        if size > 0 and self.open:
            data, self.kernel = self.kernel[:size], self.kernel[size:]
            self.engine.read(data)

    def confirm(self) -> None:
        """The kernel holds nothing: all of it was read."""
        if self.open and not self.kernel:
            self.out.confirm(self.out.handed_bytes)

    def cut(self) -> None:
        if self.open:
            self.open, self.kernel = False, b""
            self.out.cut("cut")

    def tick(self, name: str, ids: bool) -> None:
        """Publish the next quote, with an id of our own or by name."""
        number = len(self.taken)
        record = (
            quotes(*self.out.announce([name], 1), bid=number)
            if ids
            else quote_record(self.out.announce([name], 1)[0], f"0.{number:09}", None, 1, 1, 0)
        )
        try:
            self.out.quotes(record, 1)
        except PublisherFullError:
            return
        self.taken.append((name, number))


STEPS = st.one_of(
    st.tuples(st.just("tick"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("send"), st.integers(0, 400)),
    st.tuples(st.just("read"), st.integers(0, 400)),
    st.tuples(st.just("connect")),
    st.tuples(st.just("confirm")),
    st.tuples(st.just("cut")),
)


@given(st.lists(STEPS, max_size=200))
def test_every_tick_arrives_once_and_in_order_or_is_counted_as_in_doubt(steps):
    wire = Wire()
    for name, *arguments in steps:
        getattr(wire, name)(*arguments)
        assert sum(wire.out.taken.values()) == len(wire.taken)
        assert wire.out.handed + wire.out.waiting == len(wire.taken)
    wire.connect()
    while wire.out.pending:
        wire.send(1 << 20)
    wire.read(len(wire.kernel))
    arrived = wire.engine.ticks
    assert len(set(arrived)) == len(arrived)
    assert arrived == [tick for tick in wire.taken if tick in set(arrived)]
    assert len(wire.taken) - len(arrived) <= wire.out.in_doubt


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 300)), max_size=20))
def test_what_is_discarded_is_counted_and_the_stream_stays_whole(steps):
    wire = Wire()
    wire.connect()
    dropped = 0
    for ticks, size in steps:
        for _ in range(ticks):
            wire.tick("A", ids=True)
        wire.send(size)
        dropped += wire.out.discard()
    wire.send(1 << 20)
    wire.read(len(wire.kernel))
    assert wire.out.discarded == dropped
    assert len(wire.engine.ticks) + dropped == len(wire.taken)
    assert wire.out.waiting == wire.out.waiting_bytes == 0


def test_names_get_free_ids_and_are_announced_before_their_first_use():
    out = Publishing()
    assert out.announce({"A": 1}, 1).tolist() == [1]
    assert out.announce(["B", "A", "C"], 1).tolist() == [0, 1, 2]
    out.connected(KERNEL, 1)
    out.announce(["D"], 1)
    out.announce(["D"], 1)  # once is enough
    out.quotes(quotes(3), 1)
    parser = FrameParser()
    parser.feed(b"".join(out.chunks()))
    first, second, third = parser
    assert (first.symbols(), second.symbols(), third.kind) == (
        {"A": 1, "B": 0, "C": 2}, {"D": 3}, Kind.QUOTES,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ({"A": 2}, "A has the id 1 already, not 2"),
        ({"B": 1}, "the id 1 of B is that of another symbol"),
        ({"B": 5, "C": 5}, "the id 5 of C is that of another symbol"),
        ({"B": 65536}, "the id of B must be 0 to 65535, not 65536"),
        ({"B": -1}, "the id of B must be 0 to 65535, not -1"),
        (["B", "B B"], "not a symbol: 'B B'; it has 1 to 24 printable ASCII characters"),
        ([""], "not a symbol: ''"),
    ],
)
def test_names_that_cannot_be_announced_change_nothing(names, why):
    out = Publishing()
    out.announce({"A": 1}, 1)
    with pytest.raises(ValueError) as refused:
        out.announce(names, 1)
    assert str(refused.value).startswith(why)
    assert out.names == {"A": 1}
    assert out.announce({"B": 5}, 1).tolist() == [5]
    assert out.announce(["C"], 1).tolist() == [0]


def test_all_ids_can_be_used_and_no_more():
    out = Publishing()
    out.announce([f"N{i}" for i in range(MAX_SYMBOLS)], 1)
    with pytest.raises(ValueError, match="B: no id is free"):
        out.announce(["B"], 1)


@pytest.mark.parametrize(
    ("records", "why"),
    [
        (np.zeros(1, TRADE), r"quotes must be an array of marketfeed\.QUOTE, shape \(k,\)"),
        (np.zeros((1, 1), QUOTE), "shape"),
        (np.zeros(1), "float64"),
        (quotes(0, 7), "quotes use the id 7, which has no name: announce it first"),
    ],
)
def test_records_that_the_engine_would_not_take_are_refused(records, why):
    out = Publishing()
    out.announce(["A"], 1)
    with pytest.raises(ValueError, match=why):
        out.quotes(records, 1)
    assert not out.waiting


@pytest.mark.parametrize("size", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("field", ["bid_sz", "ask_sz", "size"])
def test_sizes_that_the_engine_would_leave_out_are_refused(size, field):
    out = Publishing()
    out.announce(["A"], 1)
    take, records = (out.trades, trades(0)) if field == "size" else (out.quotes, quotes(0))
    records[field] = size
    with pytest.raises(ValueError, match=f"{field} must be finite and at least 0, not {size}"):
        take(records, 1)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"side": ord("x")}, "trades have a side that is not b, s or -"),
        ({"kind": 3}, "trades have a kind that is not 0, 1 or 2"),
        ({"cond": b"a,"}, "trades have conditions that are not printable"),
    ],
)
def test_trades_that_the_engine_would_cut_us_for_are_refused(fields, why):
    out = Publishing()
    out.announce(["A"], 1)
    out.trades(trades(0), 1)
    with pytest.raises(ValueError, match=why):
        out.trades(trades(0, **fields), 1)
    assert out.waiting == 1


def test_a_full_buffer_says_so_takes_nothing_and_takes_again_once_there_is_room():
    out = Publishing(buffer_bytes=1000)
    out.announce(["A"], 1)
    for _ in range(12):  # 80 bytes each
        out.quotes(quotes(0), 1)
    with pytest.raises(PublisherFullError, match="no room for 1 tick: 12 ticks of 960 bytes wait in it"):
        out.quotes(quotes(0), 1)
    assert (out.taken[Kind.QUOTES], out.waiting) == (12, 12)
    assert out.discard() == 12
    out.quotes(quotes(*[0] * 100), 1)  # an empty buffer takes any array
    assert (out.waiting, out.waiting_bytes) == (100, 6416)


def test_a_large_array_is_cut_into_frames():
    out = Publishing()
    out.announce(["A"], 1)
    out.quotes(quotes(*[0] * (2 * FRAME_TICKS + 1)), 1)
    parser = FrameParser()
    parser.feed(b"".join(out.chunks()))
    assert [len(frame.records()) for frame in parser] == [FRAME_TICKS, FRAME_TICKS, 1]


def test_records_may_be_changed_after_the_call_and_may_be_a_view():
    out = Publishing()
    out.announce(["A"], 1)
    records = quotes(0, 0, 0, 0)
    out.quotes(records[::2], 1)
    out.quotes(records[0], 1)
    records["bid_px"] = 7
    parser = FrameParser()
    parser.feed(b"".join(out.chunks()))
    assert [frame.records()["bid_px"].tolist() for frame in parser] == [[100, 102], [100]]


def test_nothing_is_sent_for_no_ticks_and_a_heartbeat_only_when_nothing_waits():
    out = Publishing()
    out.quotes(np.zeros(0, QUOTE), 1)
    assert not out.pending
    out.heartbeat(1)
    out.heartbeat(1)
    assert [bytes(part) for part in out.chunks()] == [b"\x01\x05" + bytes(6) + (1).to_bytes(8, "little")]
    assert not out.waiting


def test_a_cut_tells_how_many_ticks_are_in_doubt_and_how_many_wait():
    out = Publishing()
    out.announce(["A"], 1)
    out.connected(KERNEL, 1)
    out.hand_over(len(out.chunks()[0]))
    for _ in range(5):
        out.quotes(quotes(0), 1)
    out.hand_over(200)  # two and a half
    cut = out.cut("engine gone")
    assert str(cut) == "engine gone: at most 2 ticks lost, 3 ticks not sent yet"
    assert str(out.cut("again")) == "again: no tick lost, 3 ticks not sent yet"
    assert (out.handed, out.waiting, out.in_doubt) == (2, 3, 2)


def test_what_the_kernel_must_have_passed_on_is_not_in_doubt():
    out = Publishing()
    out.announce(["A"], 1)
    out.connected(800, 1)
    out.quotes(quotes(*[0]), 1)
    for _ in range(30):
        out.quotes(quotes(0), 1)
    while out.pending:
        out.hand_over(len(out.chunks()[0]))
    assert out.in_flight == 10
    out.confirm(out.handed_bytes - 80)
    assert out.in_flight == 1


def test_single_ticks_have_exact_prices_and_missing_sides():
    (record,) = quote_record(3, 1.0849, None, 2.0, 5.0, 7)
    assert (record["symbol"], record["bid_px"], record["bid_sz"], record["ts_event"]) == (
        3,
        1_084_900_000,
        2,
        7,
    )
    assert (record["ask_px"], record["ask_sz"]) == (0, 0)
    (record,) = trade_record(1, "-37.63", 2.5, "s", 99, "@I", 0)
    assert (record["price"], record["size"], record["side"]) == (-37_630_000_000, 2.5, ord("s"))
    assert (record["trade_id"], record["cond"]) == (99, b"@I")


@pytest.mark.parametrize(
    ("price", "side", "conditions", "why"),
    [
        ("1.2.3", "b", "", "not a decimal number"),
        (float("nan"), "b", "", "not a decimal number"),
        (1e300, "b", "", "not a price within"),
        (1, "buy", "", "a side of one letter"),
        (1, "b", "ABCDE", "up to four conditions"),
    ],
)
def test_values_that_no_tick_can_have_are_refused(price, side, conditions, why):
    with pytest.raises(ValueError, match=why):
        trade_record(0, price, 1, side, 0, conditions, 0)
