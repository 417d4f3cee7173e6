import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.cluster.frame_log import FrameLog
from marketfeed.cluster.frames import SIZES, Header, Kind, encode, header_of
from marketfeed.cluster.state import Sizes, StateReader, state_of, state_parts
from marketfeed.core.records import QUOTES, TRADES
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.errors import FrameError
from tests.support.cluster import DEPTH, EPOCH, MAX_PAYLOAD, SYMBOLS, TERM, Origin, batch_of
from tests.support.rings import BATCHES


def read(parts):
    """Return the state that ``parts`` begin with, and the parts after it."""
    reader = StateReader()
    for count, part in enumerate(parts, 1):
        if (state := reader.feed(header_of(part), part)) is not None:
            return state, parts[count:]
    return None, []


@given(BATCHES, st.sampled_from([128, MAX_PAYLOAD, 1 << 20]))
def test_a_state_is_read_as_the_rings_are(batches, max_payload):
    origin = Origin(max_payload=max_payload)
    for ticks in batches:
        origin.write(*ticks)
    parts = origin.state()
    assert all(len(part) <= max_payload for part in parts)
    state, rest = read(parts)
    assert rest == []
    rings, count = origin.rings, len(origin.symbols)
    assert (state.sizes, state.head, state.names) == ((SYMBOLS, DEPTH), rings.head(), origin.symbols.names())
    assert state.first_ns.tolist() == rings.first_ns(count).tolist()
    for channel, records in ((QUOTES, state.quotes), (TRADES, state.trades)):
        newest, _ = rings.latest(channel, np.arange(count), rings.head())
        assert records.tobytes() == newest.tobytes()


def test_frames_of_the_log_follow_the_state():
    origin = Origin()
    origin.write(*[(QUOTES, 0)] * 16)
    state = state_of(origin.rings, origin.symbols)
    assert state is not None
    parts = state_parts(state, origin.log, term=TERM, epoch=EPOCH, max_payload=MAX_PAYLOAD)
    first = next(parts)
    origin.write(*[(QUOTES, 0)] * 16)
    found, rest = read([first, *parts])
    assert found is not None
    assert [(header_of(part).first_g, header_of(part).is_repair) for part in rest] == [(17, True), (25, True)]


@pytest.mark.parametrize("busy", [1, 3, 100])
def test_a_state_is_of_one_head_while_ticks_are_written(busy, monkeypatch):
    rings = Rings.private(SYMBOLS, DEPTH, EPOCH)
    symbols = SymbolTable(SYMBOLS, rings.names)
    for symbol in range(3):
        symbols.intern(f"S{symbol}")
    writer = RingWriter(rings)
    writer.write(batch_of((QUOTES, 0), (QUOTES, 1)))
    left, head = [busy], rings.head

    def busy_head():
        found = head()
        if left[0]:
            left[0] -= 1
            # Overwrites the newest quote of symbol 1 as of this head; symbol 2 has its first tick after it.
            writer.write(batch_of((QUOTES, 2), *[(QUOTES, 1)] * DEPTH))
        return found

    monkeypatch.setattr(rings, "head", busy_head)
    state = state_of(rings, symbols)
    if busy == 100:
        assert state is None
    else:
        assert state is not None
        assert state.head == 2 + (DEPTH + 1) * busy
        assert state.quotes["symbol"].tolist() == [0, 1, 2]
        assert (state.quotes["g"] <= state.head).all()


def test_ticks_after_the_head_are_left_out(monkeypatch):
    origin = Origin(depth=16)
    origin.write((QUOTES, 0), (QUOTES, 1))
    head = origin.rings.head()
    origin.write((QUOTES, 1), (QUOTES, 2), (TRADES, 0))
    monkeypatch.setattr(origin.rings, "head", lambda: head)
    state = state_of(origin.rings, origin.symbols)
    assert state is not None
    assert state.quotes["g"].tolist() == [1, 2]
    assert not len(state.trades)
    assert state.names == ["S0", "S1", "S2"]


def parts_of(*ticks):
    origin = Origin()
    origin.write(*ticks)
    return origin.state()


PARTS = parts_of(*[(c, s) for s in range(SYMBOLS) for c in (QUOTES, TRADES)])


def test_the_parts_come_in_this_order():
    kinds = [header_of(part).kind for part in PARTS]
    assert kinds == [Kind.STATE, Kind.SYMBOLS, Kind.FIRSTS, Kind.NEWEST, Kind.NEWEST]
    assert read(parts_of())[0].head == 0


@pytest.mark.parametrize(
    ("missing", "reason"),
    [(0, "begins with a STATE frame, not with SYMBOLS"), (3, "is missing: 0 was expected, not 1")],
)
def test_a_missing_part_is_found(missing, reason):
    with pytest.raises(FrameError, match=reason):
        read([*PARTS[:missing], *PARTS[missing + 1 :]])


@pytest.mark.parametrize("missing", [1, 2, 4])
def test_a_state_is_not_complete_without_all_parts(missing):
    assert read([*PARTS[:missing], *PARTS[missing + 1 :]]) == (None, [])


def other(part, **changes):
    header = header_of(part)
    return encode(header._replace(**changes), (part[64:],))


def begin(max_symbols=SYMBOLS, chunks=2, names=SYMBOLS, head=8):
    sizes = SIZES.pack(max_symbols, DEPTH, chunks, 0)
    return encode(Header(Kind.STATE, TERM, EPOCH, head + 1, head, names), (sizes,))


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([begin(max_symbols=3)], "state of 4 names in rings of 3"),
        ([begin(chunks=200_000)], "in 200000 parts"),
        ([PARTS[0], PARTS[0]], "STATE frame within a state"),
        ([PARTS[0], other(PARTS[1], term=8)], "part of another state"),
        ([PARTS[0], other(PARTS[1], epoch="8abcdef")], "part of another state"),
        ([PARTS[0], other(PARTS[1], names=5)], "part of another state"),
        ([*PARTS[:3], other(PARTS[3], last_g=9)], "NEWEST frame within a state"),
        ([begin(chunks=3), *PARTS[1:], other(PARTS[4], first_g=2)], "12 newest ticks of 4 symbols"),
        ([*PARTS[:4], other(PARTS[3], first_g=1)], "two newest ticks of one symbol"),
        (
            [PARTS[0], PARTS[1], PARTS[2], PARTS[3], encode(
                header_of(PARTS[4]), (np.frombuffer(PARTS[3], "V64", offset=64).tobytes(),)
            )],
            "two ticks of one g",
        ),
    ],
)  # fmt: skip
def test_parts_that_contradict_each_other_are_refused(parts, reason):
    with pytest.raises(FrameError, match=reason):
        read(parts)


def test_a_name_in_two_parts_is_refused():
    name = b"A".ljust(24, b"\0")
    parts = [
        begin(chunks=0, names=2, head=0),
        encode(Header(Kind.SYMBOLS, TERM, EPOCH, 0, 0, 2), (name,)),
        encode(Header(Kind.SYMBOLS, TERM, EPOCH, 1, 1, 2), (name,)),
        encode(Header(Kind.FIRSTS, TERM, EPOCH, 0, 1, 2), (bytes(16),)),
    ]
    with pytest.raises(FrameError, match="a name twice"):
        read(parts)


def test_a_state_of_rings_without_symbols():
    rings = Rings.private(SYMBOLS, DEPTH, EPOCH)
    state = state_of(rings, SymbolTable(SYMBOLS, rings.names))
    assert state is not None
    (part,) = state_parts(state, FrameLog(0), term=TERM, epoch=EPOCH, max_payload=128)
    found, _ = read([part])
    assert (found.sizes, found.head, found.names) == (Sizes(SYMBOLS, DEPTH), 0, [])
