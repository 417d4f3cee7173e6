from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.cluster import frames
from marketfeed.cluster.frames import Header, Kind, encode, header_of, names_of, newest_of, ticks_of
from marketfeed.core.records import QUOTE, TRADE
from marketfeed.errors import FrameError

EPOCH = "7abcdef"


def ticks_frame(quote_gs=(5, 7), trade_gs=(6,), *, names=3, symbols=0, first=None, last=None, **header):
    quotes, trades = np.zeros(len(quote_gs), QUOTE), np.zeros(len(trade_gs), TRADE)
    quotes["g"], trades["g"] = quote_gs, trade_gs
    quotes["symbol"] = trades["symbol"] = symbols
    gs = [*quote_gs, *trade_gs]
    first = min(gs) if first is None else first
    last = max(gs) if last is None else last
    fields = {"kind": Kind.TICKS, "term": 7, "epoch": EPOCH, **header}
    whole = Header(
        first_g=first, last_g=last, names=names, quotes=len(quotes), trades=len(trades), sent_ns=99, **fields
    )
    return encode(whole, (quotes.tobytes(), trades.tobytes()))


def patched(frame, at, raw):
    return frame[:at] + raw + frame[at + len(raw) :]


def read(frame):
    """Decode the whole frame, as its kind requires."""
    header = header_of(frame)
    if header.kind is Kind.TICKS:
        return header, ticks_of(header, frame)
    if header.kind is Kind.SYMBOLS:
        return header, names_of(header, frame)
    if header.kind is Kind.NEWEST:
        return header, newest_of(header, frame)
    return header, None


def test_the_header_has_these_offsets():
    frame = encode(Header(Kind.TICKS, 0x1122, "abc", 3, 4, 5, quotes=1, trades=1, sent_ns=6, flags=1))
    expected = {0: 1, 1: 1, 2: 1, 4: 1, 8: 1, 12: 5, 16: 0x1122, 24: 3, 32: 4, 40: 6}
    sizes = {0: 1, 1: 1, 2: 2, 4: 4, 8: 4, 12: 4, 16: 8, 24: 8, 32: 8, 40: 8}
    found = {at: int.from_bytes(frame[at : at + size], "little") for at, size in sizes.items()}
    assert found == expected
    assert frame[48:] == b"abc" + bytes(13)
    assert len(frame) == 64


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 2**40))
def test_ticks_are_read_as_they_were_written(channels, first):
    gs = list(range(first, first + len(channels)))
    quotes = [g for g, is_trade in zip(gs, channels, strict=True) if not is_trade]
    trades = [g for g, is_trade in zip(gs, channels, strict=True) if is_trade]
    header, found = read(ticks_frame(quotes, trades))
    assert (header.first_g, header.last_g, header.term, header.epoch) == (first, gs[-1], 7, EPOCH)
    assert [part["g"].tolist() for part in found] == [quotes, trades]


def test_records_are_views_of_the_frame():
    frame = ticks_frame()
    for part in read(frame)[1]:
        assert not part.flags.owndata
        assert not part.flags.writeable


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "at least 64 bytes, not 0"),
        (patched(ticks_frame(), 0, b"\2"), "version 2; this node reads 1 to 1"),
        (patched(ticks_frame(), 0, b"\0"), "version 0"),
        (patched(ticks_frame(), 1, b"\0"), "unknown kind 0"),
        (patched(ticks_frame(), 1, b"\x08"), "unknown kind 8"),
        (patched(ticks_frame(), 2, b"\2"), "unknown flags 0x2"),
        (patched(ticks_frame(), 48, bytes(16)), "invalid epoch"),
        (patched(ticks_frame(), 48, b"a\0b"), "invalid epoch"),
        (patched(ticks_frame(), 48, b"a b"), "invalid epoch"),
        (patched(ticks_frame(), 48, b"\xff"), "invalid epoch"),
        (ticks_frame()[:-1], "255 bytes; its header says 256"),
        (ticks_frame() + b"x", "257 bytes; its header says 256"),
        (ticks_frame(last=8), "invalid range: 5 to 8, 3 ticks"),
        (ticks_frame(first=8, last=5), "invalid range"),
        (ticks_frame((0,), ()), "invalid range: 0 to 0"),
        (ticks_frame((2**63,), ()), "g beyond"),
        (ticks_frame((), (), first=5, last=5), "0 ticks; 1 to 4096"),
        (ticks_frame(range(1, 4098), ()), "4097 ticks; 1 to 4096"),
        (ticks_frame(names=65537), "65537 names"),
        (ticks_frame(symbols=3), "beyond its 3 names"),
        (ticks_frame((7, 5), (6,)), "not the g 5 to 7"),
        (ticks_frame((5, 6), (6,), last=7), "not the g 5 to 7"),
        (ticks_frame((5, 9), (6,), last=7), "not the g 5 to 7"),
        (ticks_frame((4, 5), (6,), first=5, last=7), "not the g 5 to 7"),
        (ticks_frame((5, 7), ()), "invalid range"),
        (ticks_frame((5, 7), (), last=6), "not the g 5 to 6"),
        (ticks_frame(kind=Kind.BEAT), "BEAT frame with ticks"),
        (encode(Header(Kind.BEAT, 7, EPOCH, 5, 5, 3)), "BEAT frame with an invalid range"),
        (encode(Header(Kind.HANDOVER, 7, EPOCH, 5, 5, 3)), "HANDOVER frame with an invalid range"),
        (encode(Header(Kind.SYMBOLS, 7, EPOCH, 0, 0, 0), (bytes(24),)), "invalid range"),
        (encode(Header(Kind.SYMBOLS, 7, EPOCH, 1, 0, 2)), "invalid range"),
        (encode(Header(Kind.SYMBOLS, 7, EPOCH, 0, 0, 1), (bytes(24),)), "invalid name: ''"),
        (encode(Header(Kind.SYMBOLS, 7, EPOCH, 0, 0, 1), (b"a\0b".ljust(24, b"\0"),)), "invalid name"),
        (encode(Header(Kind.SYMBOLS, 7, EPOCH, 0, 0, 1), (b"\xe9".ljust(24, b"\0"),)), "invalid name"),
        (encode(Header(Kind.SYMBOLS, 7, EPOCH, 0, 1, 2), (2 * b"a".ljust(24, b"\0"),)), "name twice"),
        (ticks_frame((5, 6), (7,), kind=Kind.NEWEST), "not in order of symbols"),
        (ticks_frame((9,), (7,), kind=Kind.NEWEST, last=8), "beyond its head"),
    ],
)
def test_a_damaged_frame_is_refused(frame, reason):
    with pytest.raises(FrameError, match=reason):
        read(frame)


@given(st.binary(max_size=200), st.integers(0, 255), st.data())
def test_no_bytes_raise_another_error(noise, kind, data):
    frame = bytearray(ticks_frame())
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at : at + len(noise)] = noise
    frame[1] = kind % 9
    for raw in (noise, bytes(frame)):
        with suppress(FrameError):
            read(raw)


def test_a_node_reads_its_own_version_and_the_one_before(monkeypatch):
    frame = ticks_frame()
    monkeypatch.setattr(frames, "VERSION", 2)
    assert header_of(frame).first_g == 5
    monkeypatch.setattr(frames, "OLDEST_VERSION", 2)
    with pytest.raises(FrameError, match="version 1; this node reads 2 to 2"):
        header_of(frame)


@pytest.mark.parametrize("epoch", ["", "a" * 17, "a-b"])
def test_an_epoch_that_does_not_fit_is_not_sent(epoch):
    with pytest.raises(ValueError, match="1 to 16 letters and digits"):
        ticks_frame(epoch=epoch)


@pytest.mark.parametrize(
    ("payload", "ticks"), [(128, 1), (64 * 10 + 63, 9), (1 << 20, 4096), (1 << 30, 4096)]
)
def test_a_frame_fits_the_payload(payload, ticks):
    assert frames.ticks_per_frame(payload) == ticks


def test_a_payload_for_no_tick_and_no_name_is_refused():
    with pytest.raises(ValueError, match="at least 128, not 127"):
        frames.ticks_per_frame(127)
    with pytest.raises(ValueError, match="at least 88, not 87"):
        list(frames.symbols_frames(["a"], 0, 7, EPOCH, 87))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(88, 300))
def test_names_go_in_frames_of_the_payload(start, count, payload):
    names = [f"NAME{number}" for number in range(count)]
    found, at = [], start
    for frame in frames.symbols_frames(names, start, 7, EPOCH, payload):
        assert len(frame) <= payload
        header, part = read(frame)
        assert (header.first_g, header.last_g, header.names) == (at, at + len(part) - 1, start + count)
        found += part
        at += len(part)
    assert found == names


def test_a_repair_is_a_marked_copy():
    frame = ticks_frame()
    repair = frames.as_repair(frame, 12)
    assert header_of(repair) == header_of(frame)._replace(flags=1, term=12)
    assert header_of(repair).is_repair
    assert not header_of(frame).is_repair
    assert repair[64:] == frame[64:]
