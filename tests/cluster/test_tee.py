import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.cluster.frame_log import FrameLog
from marketfeed.cluster.frames import Kind, header_of, names_of, ticks_of
from marketfeed.cluster.tee import Tee
from marketfeed.core.few import few_of
from marketfeed.core.records import QUOTES, TRADES
from marketfeed.core.symbols import SymbolTable
from marketfeed.ingest.pump import Pump
from tests.support.cluster import EPOCH, MS, TERM, Origin, batch_of
from tests.support.rings import TICKS

MANY = st.lists(
    st.tuples(st.lists(TICKS, max_size=40), st.booleans(), st.integers(0, 2 * MS)), min_size=1, max_size=15
)


def ticks_in(frames):
    """Return the records of TICKS frames in order of g, as (g, channel, bytes)."""
    found = []
    for frame in frames:
        header = header_of(frame)
        if header.kind is Kind.TICKS:
            records = ticks_of(header, frame)
            found += [(int(r["g"]), channel, r.tobytes()) for channel in (0, 1) for r in records[channel]]
    return sorted(found)


def kinds(frames):
    return [header_of(frame).kind for frame in frames]


@given(MANY, st.sampled_from([8, 64]))
def test_frames_hold_what_was_written(batches, depth):
    origin = Origin(depth=depth)
    written: list[tuple[int, int, bytes | None]] = []
    for ticks, few, wait_ns in batches:
        batch = batch_of(*ticks, start=len(written))
        for symbol in range(4):
            origin.symbols.intern(f"S{symbol}")
        if few and 0 < len(ticks) <= 8:
            records = few_of(batch)
            origin.writer.write_few(records)
            if depth == 64:  # elsewhere they may be copied
                assert all(int.from_bytes(r[16:24], "little") for _, r in records)
                gs = [int.from_bytes(r[16:24], "little") for _, r in records]
                written += [(g, channel, bytes(r)) for g, (channel, r) in zip(gs, records, strict=True)]
            else:
                written += [(g, c, None) for g, (c, _) in enumerate(ticks, len(written) + 1)]
        else:
            origin.writer.write(batch)
            written += [(int(r["g"]), 0, r.tobytes()) for r in batch.quotes]
            written += [(int(r["g"]), 1, r.tobytes()) for r in batch.trades]
            for records in (batch.quotes, batch.trades):
                records["ts_recv"] = -1  # the pump may use its arrays again
        origin.now_ns += wait_ns
    origin.seal()
    frames = origin.take()
    found = ticks_in(frames)
    assert [tick[:2] for tick in found] == [tick[:2] for tick in sorted(written, key=lambda tick: tick[0])]
    wanted = {g: raw for g, _, raw in written if raw is not None}
    assert {g: raw for g, _, raw in found if g in wanted} == wanted
    assert all(len(frame) <= origin.max_payload for frame in frames)
    logged = origin.log.between(1, 2**40)
    ticks_frames = [frame for frame in frames if header_of(frame).kind is Kind.TICKS]
    assert (logged.frames if logged else []) == ticks_frames


def test_a_frame_is_sealed_when_it_is_full_or_its_first_tick_is_old():
    origin = Origin()
    assert origin.tee.due_ns is None
    origin.write((QUOTES, 0))
    assert origin.tee.due_ns == MS
    origin.now_ns = MS - 1
    origin.write((TRADES, 0))
    origin.tee.flush(origin.now_ns)
    assert kinds(origin.take()) == []
    origin.now_ns = MS
    origin.write((QUOTES, 0))
    assert kinds(origin.take()) == [Kind.SYMBOLS, Kind.TICKS]
    assert (origin.tee.due_ns, origin.tee.sealed_g) == (None, 3)
    origin.write(*[(QUOTES, 0)] * 8)
    assert kinds(origin.take()) == [Kind.TICKS]
    origin.write(*[(QUOTES, 0)] * 17)
    assert kinds(origin.take()) == [Kind.TICKS] * 2
    assert origin.tee.due_ns == 2 * MS
    assert len(origin.log) == 4


def test_ticks_after_a_full_frame_linger_from_their_own_arrival():
    origin = Origin(depth=64)
    origin.write((QUOTES, 0))
    origin.now_ns = MS // 2
    origin.writer.write_few(few_of(batch_of(*[(QUOTES, 0)] * 8)))
    assert (origin.tee.sealed_g, origin.tee.due_ns) == (8, MS // 2 + MS)


def test_names_are_sent_before_the_frames_that_need_them():
    origin = Origin()
    origin.write((QUOTES, 0))
    origin.seal()
    origin.write((QUOTES, 2))
    origin.seal()
    first, _, second, ticks = origin.take()
    assert names_of(header_of(first), first) == ["S0"]
    assert names_of(header_of(second), second) == ["S1", "S2"]
    assert header_of(ticks).names == 3


def test_a_beat_follows_all_sealed_frames_and_excludes_the_open_one():
    origin = Origin()
    origin.tee.beat(0)
    (beat,) = map(header_of, origin.take())
    assert (beat.kind, beat.first_g, beat.last_g, beat.names, beat.sent_ns) == (Kind.BEAT, 1, 0, 0, 99)
    origin.write((QUOTES, 0))
    origin.tee.beat(0)
    names, beat = map(header_of, origin.take())
    assert (names.kind, beat.last_g, beat.names) == (Kind.SYMBOLS, 0, 1)
    origin.tee.beat(MS)
    ticks, beat = map(header_of, origin.take())
    assert (ticks.last_g, beat.first_g, beat.last_g) == (1, 2, 1)


def test_a_handover_seals_everything_and_names_the_last_tick():
    origin = Origin()
    origin.write((QUOTES, 0), (TRADES, 0))
    origin.tee.handover(2)
    assert kinds(origin.take()) == [Kind.SYMBOLS, Kind.TICKS, Kind.HANDOVER]
    origin.tee.handover(2)
    (handover,) = map(header_of, origin.take())
    assert (handover.first_g, handover.last_g) == (3, 2)
    with pytest.raises(ValueError, match="the last tick of this origin is g=2, not g=3"):
        origin.tee.handover(3)


def test_ticks_that_do_not_follow_are_refused():
    sent: list[bytes] = []
    tee = Tee(
        SymbolTable(4), FrameLog(1000), sent.append, term=TERM, epoch=EPOCH, wall_ns=lambda: 0, next_g=5
    )
    tee.append(batch_of(), 9, 0)
    batch = batch_of((QUOTES, 0))
    with pytest.raises(ValueError, match="expects the tick g=5, not g=6"):
        tee.append(batch, 6, 0)
    batch.quotes["g"] = 5
    tee.append(batch, 5, 0)
    with pytest.raises(ValueError, match="expects the tick g=6, not g=5"):
        tee.append(batch, 5, 0)


def test_the_pump_writes_through_the_tee(tmp_path):
    origin, rings = Origin(depth=64), []
    pump = Pump(origin.writer, origin.symbols, lambda: rings.append(1))
    intake = pump.intake("feed", tmp_path)
    intake.symbol("S0")
    for count in (1, 20):
        intake.publish(batch_of(*[(QUOTES, 0), (TRADES, 0)] * count))
    origin.seal()
    frames = origin.take()
    assert len(rings) == 2
    assert [g for g, _, _ in ticks_in(frames)] == list(range(1, 43))
    published = origin.rings.between(0, 42)
    assert published is not None
    assert [raw for _, channel, raw in ticks_in(frames) if channel == TRADES] == [
        record.tobytes() for record in published[TRADES][0]
    ]
    assert np.all(published[QUOTES][0]["feed"] == intake.number)
