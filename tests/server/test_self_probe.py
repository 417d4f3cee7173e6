"""The engine's own probe: a real TCP connection, measured like a client's, counted nowhere."""

import time

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.records import QUOTE, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.units import MS
from marketfeed.core.writer import RingWriter
from marketfeed.fanout.keepalive import Timing
from marketfeed.fanout.shard import Shard
from marketfeed.fanout.tiers import Tier
from marketfeed.fanout.ws_frames import PING, TEXT, frame
from marketfeed.latency.recorder import LatencyRecorder
from marketfeed.server.self_probe import OwnProbe, tcp_pair, texts_of

S = 1_000_000_000
TIERS = [Tier("vip", 0, True, 65536), Tier("premium", 20 * MS, False, 65536)]


@given(st.lists(st.tuples(st.sampled_from([TEXT, PING]), st.binary(max_size=70_000)), max_size=6), st.data())
def test_frames_are_cut_out_wherever_reads_end(frames, data):
    whole = b"".join(frame(opcode, payload) for opcode, payload in frames)
    ends = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    left, found = bytearray(), []
    for start, end in zip([0, *ends], [*ends, len(whole)], strict=True):
        left += whole[start:end]
        found += texts_of(left)
    assert found == [payload for opcode, payload in frames if opcode == TEXT]
    assert not left


def test_the_two_ends_are_connected_to_each_other():
    near, far = tcp_pair()
    with near, far:
        near.send(b"x")
        assert far.recv(1) == b"x"


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
async def test_a_probe_measures_the_busiest_symbol_and_is_in_no_ledger(tier):
    rings, symbols = Rings.private(8, 64), SymbolTable(8)
    writer, recorder = RingWriter(rings, time.time_ns), LatencyRecorder(rings.stamps, 8, 0)
    shard = Shard(rings, symbols, Timing(20 * S, 60 * S, 10 * S), 1000, time.time_ns, recorder)
    busy, quiet = symbols.intern("BUSY"), symbols.intern("QUIET")

    def publish(*ids):
        quotes = np.zeros(len(ids), QUOTE)
        quotes["symbol"], quotes["bid_sz"], quotes["ts_recv"] = ids, 1, time.time_ns()
        writer.write(Batch(quotes))
        shard.wake()

    probe = OwnProbe(shard, tier, recorder.tier(tier.name), S)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shard.run)
            nursery.start_soon(probe.run, nursery)
            while recorder.tier(tier.name).hops["client"].total < 20:
                publish(busy, busy, quiet)
                await trio.sleep(0.005)
            (member,) = shard.members
            assert member.names.quotes == ("BUSY",)
            assert await shard.figures.totals() == {}
            assert shard.synced_sessions == 0
            assert shard.figures.statistics().groups == 0
            hops = recorder.tier(tier.name).hops
            assert {hop for hop, histogram in hops.items() if histogram.total} == {"client"}
            assert 0 < hops["client"].max_ns < 20 * S
            probe.stop()
            while shard.members:
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
