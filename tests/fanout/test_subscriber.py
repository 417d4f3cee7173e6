"""The backlog of a session: frames go out in order, short ones together, and the ledger counts each once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.fanout.interest import Interests, Names
from marketfeed.fanout.subscriber import JOINED_BYTES, Subscriber
from marketfeed.fanout.wire import JSON
from tests.support.bench import VIP, Socket

INTEREST = Interests(SymbolTable(Rings.private(4, 8).max_symbols)).use(Names())


class FullAt(Socket):
    """Takes every frame; holds part of those with the given numbers."""

    def __init__(self, full: set[int]) -> None:
        super().__init__()
        self.offers: list[bytes] = []
        self._full = full

    def offer(self, frame: bytes) -> bool:
        self.offers.append(frame)
        return len(self.offers) not in self._full


def entered(full: set[int]) -> tuple[Subscriber, FullAt]:
    sink = FullAt(full)
    return Subscriber("s1", sink, VIP, JSON, INTEREST, 0), sink


sizes = st.one_of(st.integers(1, 200), st.integers(JOINED_BYTES - 2, JOINED_BYTES + 2))
frames = st.lists(st.tuples(sizes, st.integers(0, 5), st.integers(0, 3)), max_size=30)


@given(frames, st.sets(st.integers(1, 12)))
def test_frames_go_out_whole_and_in_order_and_are_counted_once(frames, full):
    member, sink = entered(full)
    backlog = [
        (bytes([at]) * size, ticks + trades, trades) for at, (size, ticks, trades) in enumerate(frames)
    ]
    member.backlog = list(backlog)
    while not member.send_backlog():
        had = len(sink.offers)
        assert had in full
        assert not member.send_backlog()  # a session that is blocked is offered nothing
        assert len(sink.offers) == had
        member.drained()
    assert not member.backlog
    assert b"".join(sink.offers) == b"".join(frame for frame, _, _ in backlog)
    assert all(len(set(offer)) == 1 for offer in sink.offers if len(offer) > JOINED_BYTES)  # one frame
    pairs = zip(sink.offers, sink.offers[1:], strict=False)
    assert all(len(first) + len(second) > JOINED_BYTES for first, second in pairs)  # as few as can be
    ledger = member.ledger
    assert ledger.delivered == sum(ticks for _, ticks, _ in backlog)
    assert ledger.trades == sum(trades for _, _, trades in backlog)
    assert ledger.sent_bytes == sum(len(frame) for frame, _, _ in backlog)


def test_ticks_of_joined_frames_are_delivered_when_the_sink_has_drained():
    member, sink = entered({1})
    member.backlog = [(b"a", 1, 0), (b"b", 2, 1), (b"c" * JOINED_BYTES, 4, 0)]
    assert not member.send_backlog()
    assert (sink.offers, member.tail_ticks, member.ledger.delivered) == ([b"ab"], 3, 0)
    member.drained()
    assert (member.tail_ticks, member.ledger.delivered, member.ledger.trades) == (0, 3, 1)
    assert member.send_backlog()
    assert member.ledger.delivered == 7
