"""The rules of a mirror, one by one; test_mirror_proof.py has the whole."""

import numpy as np
import pytest

from marketfeed.cluster.actions import (
    Adopted,
    Ask,
    AskSync,
    BadFrame,
    HandedOver,
    Live,
    OtherEpoch,
    Ready,
    Rebuild,
    Refused,
    Stale,
    Wrote,
)
from marketfeed.cluster.follower import Limits
from marketfeed.cluster.frames import Header, Kind, encode, header_of
from marketfeed.cluster.held import OVERHEAD_BYTES
from marketfeed.cluster.repairs import NamesRequest, TicksRequest
from marketfeed.core.records import QUOTES, TRADES
from tests.support.cluster import EPOCH, MS, TERM, Node, Origin, same_rings

QUOTE_0 = (QUOTES, 0)


def shard(**node):
    """Return an origin, and a ready mirror of it that gets no answers from now on."""
    origin = Origin()
    mirror = Node({None: origin}, **node).start()
    mirror.reachable = False
    mirror.done.clear()
    return origin, mirror


def frames_of(origin, count):
    """Write ``count`` frames of one quote each, and return them without the names."""
    for _ in range(count):
        origin.write(QUOTE_0)
        origin.seal()
    return [frame for frame in origin.take() if header_of(frame).kind is Kind.TICKS]


def with_names(origin, node):
    """Teach the mirror the name of symbol 0."""
    origin.symbols.intern("S0")
    origin.tee.beat(origin.now_ns)
    node.feed(*origin.take())
    node.done.clear()


def request(first, last, node=None):
    return Ask(node, TicksRequest(EPOCH, first, last))


def edited(frame, **changes):
    return encode(header_of(frame)._replace(**changes), (frame[64:],))


def test_a_joiner_holds_frames_until_it_has_a_state():
    origin = Origin()
    origin.write(*[QUOTE_0] * 8)
    node = Node({None: origin})
    node.reachable = False
    node.start()
    assert node.done == [AskSync(None, 1, "join")]
    early, late = (frame for frame in origin.take() if header_of(frame).kind is Kind.TICKS), []
    origin.write(*[QUOTE_0] * 8)
    late = [origin.take()[0]]
    assert node.feed(*late, *early) == []
    assert not node.mirror.ready
    parts = origin.state()
    for part in parts:
        node.act(node.mirror.state_part(1, part, 0), 0)
    assert node.done[1:] == [Wrote(16), Ready(16)]
    assert node.mirror.ready
    assert same_rings(origin.rings, node.rings) is False  # ticks 1 to 15 are not in a state
    assert node.rings.head() == 16


def test_a_joiner_writes_what_came_after_its_state():
    origin = Origin()
    origin.write(*[QUOTE_0] * 8)
    parts = origin.state()
    origin.take()
    node = Node({None: origin})
    node.reachable = False
    node.start()
    origin.write((TRADES, 1), *[QUOTE_0] * 7)
    assert node.feed(*origin.take()) == []
    for part in parts:
        node.act(node.mirror.state_part(1, part, 0), 0)
    # The new name came before those of the state.
    assert node.done[1:] == [Wrote(8), Ask(None, NamesRequest(EPOCH, 1)), Ready(8)]
    for part in origin.answerer.answer(NamesRequest(EPOCH, 1).encode()):
        assert node.mirror.answer(None, part, 0) == [Wrote(16)]
    assert node.mirror.counts.adopted == 0


def test_a_node_joins_from_a_mirror_that_has_adopted_a_state():
    origin = Origin(log_bytes=0)
    origin.write(*[QUOTE_0] * 20)
    mirror = Node({None: origin}).start()
    origin.write((TRADES, 2), *[QUOTE_0] * 7)
    mirror.feed(*origin.take())
    node = Node({"mirror": mirror})
    node.mirror.sources = ("mirror",)
    node.start()
    origin.write((TRADES, 1), *[QUOTE_0] * 15)
    origin.seal()
    node.feed(*origin.take())
    assert (mirror.rings.head(), node.rings.head(), origin.rings.head()) == (24, 44, 44)
    for channel in (QUOTES, TRADES):
        newest = [r.latest(channel, np.arange(4), 44)[0] for r in (origin.rings, node.rings)]
        assert newest[0].tobytes() == newest[1].tobytes()
        assert (node.rings.published(channel) == origin.rings.published(channel)).all()
    assert (node.rings.first_ns() == origin.rings.first_ns()).all()


def test_a_joiner_asks_for_what_it_missed_after_its_state():
    origin = Origin()
    parts = origin.state()
    node = Node({None: origin})
    node.reachable = False
    node.start()
    origin.symbols.intern("S0")
    origin.tee.beat(0)
    node.feed(*origin.take())
    node.feed(frames_of(origin, 3)[2], now_ns=10 * MS)
    (part,) = parts
    assert node.mirror.state_part(1, part, 1900 * MS) == [request(1, 2), Ready(0)]
    assert node.tick(2199 * MS) == [Stale(10 * MS)]
    assert node.tick(2200 * MS) == [request(1, 2)]


def test_frames_in_order_are_written():
    origin, node = shard()
    origin.write((QUOTES, 0), (TRADES, 1), (QUOTES, 1))
    origin.seal()
    assert node.feed(*origin.take()) == [Wrote(3)]
    assert same_rings(origin.rings, node.rings)
    assert (node.mirror.counts.frames, node.mirror.behind, node.mirror.held_bytes) == (1, 0, 0)
    assert (node.log.oldest_g, node.log.newest_g) == (1, 3)


def test_a_duplicate_is_dropped_whether_written_or_held():
    origin, node = shard()
    with_names(origin, node)
    first, second, third = frames_of(origin, 3)
    node.feed(first, first, third, third)
    assert node.mirror.counts.duplicates == 2
    assert node.rings.head() == 1
    node.feed(second)
    assert node.rings.head() == 3


def test_an_overlap_is_cut():
    origin, node = shard()
    with_names(origin, node)
    single = frames_of(origin, 2)
    other = Origin()
    other.write((QUOTES, 0), (QUOTES, 0), (QUOTES, 0))
    other.seal()
    long = other.take()[-1]
    node.feed(*single, long)
    assert node.rings.head() == 3
    assert node.mirror.counts.frames == 3


def test_held_frames_that_overlap_are_written_once():
    origin, node = shard()
    with_names(origin, node)
    one, two, three = frames_of(origin, 3)
    other = Origin()
    other.write((QUOTES, 0), (QUOTES, 0), (QUOTES, 0))
    other.seal()
    long = other.take()[-1]
    node.feed(three, two, edited(long))
    assert (node.rings.head(), node.mirror.counts.duplicates, node.mirror.held_bytes) == (3, 2, 0)
    node.feed(one)
    assert node.mirror.counts.duplicates == 3


def test_a_held_frame_within_another_is_not_a_hole():
    origin, node = shard()
    with_names(origin, node)
    single = frames_of(origin, 6)
    other = Origin()
    other.write((QUOTES, 0))
    other.seal()
    other.write(*[QUOTE_0] * 4)
    other.seal()
    node.feed(other.take()[-1], single[2])
    assert node.tick(300 * MS) == [request(1, 1)]


def test_a_longer_frame_replaces_a_held_one():
    origin, node = shard()
    with_names(origin, node)
    single = frames_of(origin, 3)
    other = Origin()
    other.write((QUOTES, 0))
    other.seal()
    other.write((QUOTES, 0), (QUOTES, 0))
    other.seal()
    long = other.take()[-1]
    node.feed(single[1], long)
    assert node.mirror.held_bytes == len(long) + OVERHEAD_BYTES
    node.feed(single[0])
    assert node.rings.head() == 3


def test_a_hole_is_asked_for_at_once_again_and_elsewhere():
    origin, node = shard()
    node.mirror.sources = (None, None, "b", "c")
    with_names(origin, node)
    frames = frames_of(origin, 6)
    assert node.feed(frames[2]) == [request(1, 2)]
    assert node.feed(frames[4]) == [request(4, 4)]
    assert node.tick(299 * MS) == []
    assert node.tick(300 * MS) == [request(1, 2), request(4, 4)]
    assert node.tick(500 * MS) == []
    assert node.tick(600 * MS) == [request(1, 2, "b"), request(4, 4, "b")]
    assert node.feed(frames[0], frames[1], now_ns=700 * MS) == [Wrote(1), Wrote(3)]
    assert node.tick(1000 * MS) == [request(4, 4)]
    assert node.feed(frames[3], now_ns=1100 * MS) == [Wrote(5)]
    assert node.tick(1500 * MS) == []
    assert node.mirror.counts.asked == 7


def test_a_beat_opens_a_hole():
    origin, node = shard()
    frames = frames_of(origin, 2)
    origin.tee.beat(origin.now_ns)
    (beat,) = origin.take()
    assert node.feed(beat) == [request(1, 2)]
    assert node.mirror.behind == 2
    assert node.feed(beat) == []
    assert node.feed(frames[0]) == [Ask(None, NamesRequest(EPOCH, 0))]


def test_a_repair_is_counted_and_does_not_show_that_the_origin_lives():
    origin, node = shard(limits=Limits(repair_ns=2**60))
    with_names(origin, node)
    node.feed(frames_of(origin, 3)[2])
    node.tick(1001 * MS)
    assert node.mirror.stale
    for part in origin.answerer.answer(TicksRequest(EPOCH, 1, 2).encode()):
        node.act(node.mirror.answer(None, part, 1001 * MS), 1001 * MS)
    assert node.rings.head() == 3
    assert node.mirror.counts.repaired == 2
    assert node.mirror.stale


def test_an_answer_that_was_cut_is_continued_at_once():
    origin, node = shard()
    with_names(origin, node)
    frames = frames_of(origin, 4)
    node.feed(frames[3])
    node.feed(frames[0])
    assert node.mirror.answer("b", b"end 1 1", 0) == [request(2, 3, "b")]
    assert node.mirror.answer("b", b"end 2 1", 0) == []  # nothing was sent: wait for the next try
    assert node.mirror.answer("b", b"end 2 2", 0) == []  # but frame 2 was lost
    node.feed(frames[1], frames[2])
    assert node.mirror.answer("b", b"end 2 4", 0) == []


@pytest.mark.parametrize("text", [b"end", b"x", b"gone -1"])
def test_an_invalid_answer_is_counted(text):
    _, node = shard()
    (action,) = node.mirror.answer(None, text, 0)
    assert isinstance(action, BadFrame)
    assert node.mirror.counts.bad == 1


def test_ticks_that_are_gone_at_the_origin_are_given_up():
    origin, node = shard()
    with_names(origin, node)
    first, _, third = frames_of(origin, 3)
    node.feed(first, third)
    assert node.mirror.answer("b", b"gone 3", 0) == []
    assert node.mirror.answer(None, b"gone 1", 0) == []  # an answer from before
    assert node.mirror.answer(None, b"gone 3", 0) == [AskSync(None, 2, "ticks from g=2 on are gone")]
    assert node.mirror.counts.gone == 3
    node.reachable = True
    assert node.tick(2000 * MS)[-2:] == [Adopted(1, 3, "ticks from g=2 on are gone"), Wrote(3)]
    assert node.mirror.counts.adopted == 1
    assert node.rings.head() == 3
    node.feed(*frames_of(origin, 1))
    assert (node.log.oldest_g, node.log.newest_g) == (4, 4)  # the log has no holes


def test_ticks_that_are_not_repaired_in_time_are_given_up():
    origin, node = shard()
    with_names(origin, node)
    node.feed(frames_of(origin, 3)[2])
    node.tick(999 * MS)
    node.reachable = True
    reason = "ticks from g=1 on were not repaired in time"
    assert node.tick(1000 * MS)[-3:] == [AskSync(None, 2, reason), Adopted(0, 3, reason), Wrote(3)]


def test_held_frames_are_bounded():
    limit = 3 * (128 + OVERHEAD_BYTES)
    origin, node = shard(limits=Limits(held_bytes=limit))
    with_names(origin, node)
    frames = frames_of(origin, 8)
    node.feed(*frames[1:4])
    assert node.mirror.held_bytes == limit
    reason = f"more than {limit} bytes of frames were held"
    assert node.feed(frames[4]) == [AskSync(None, 2, reason)]
    assert node.mirror.held_bytes == 0
    assert node.feed(*frames[4:8]) == []
    assert (node.mirror.held_bytes, node.mirror.counts.overflows) == (0, 2)
    node.reachable = True
    assert node.tick(2000 * MS)[-1] == Wrote(8)


def test_frames_of_a_lower_term_are_fenced():
    _, node = shard()
    old = Origin(term=TERM - 1, epoch="6abcdef")
    old.write(QUOTE_0)
    old.seal()
    assert node.feed(*old.take()) == []
    assert node.mirror.counts.fenced == 2
    assert node.rings.head() == 0
    assert node.tick(1001 * MS) == [Stale(0)]


def test_a_higher_term_ends_the_mirror():
    origin, node = shard()
    new = Origin(term=TERM + 1, epoch="8abcdef")
    new.tee.beat(0)
    (beat,) = new.take()
    assert node.feed(beat) == [Rebuild(TERM + 1, "8abcdef")]
    assert node.mirror.ended
    assert node.feed(beat, *frames_of(origin, 1)) == []
    assert node.tick(10**12) == []
    assert node.mirror.answer(None, b"gone 1", 0) == []
    assert node.mirror.state_part(1, beat, 0) == []
    assert node.mirror.lease(TERM + 2, "9abcdef") == []
    assert node.mirror.counts.fenced == 0


def test_two_epochs_of_one_term_never_interleave():
    _, node = shard()
    twin = Origin(epoch="7zzzzzz")
    twin.write(QUOTE_0)
    twin.seal()
    names, ticks = twin.take()
    assert node.feed(names, ticks) == [OtherEpoch(TERM, "7zzzzzz")]
    assert node.feed(ticks, now_ns=1000 * MS) == [OtherEpoch(TERM, "7zzzzzz")]
    assert node.mirror.counts.fenced == 3
    assert node.rings.head() == 0
    assert node.mirror.lease(TERM, EPOCH) == []
    assert node.mirror.lease(TERM, "7zzzzzz") == [Rebuild(TERM, "7zzzzzz")]


def test_a_lease_of_a_lower_term_is_out_of_date():
    _, node = shard()
    assert node.mirror.lease(TERM - 1, "6abcdef") == []
    node.tick(1001 * MS)
    assert node.mirror.lease(TERM - 1, "6abcdef") == []


def test_a_lease_of_a_higher_term_ends_the_mirror():
    _, node = shard()
    assert node.mirror.lease(TERM + 1, "8abcdef") == [Rebuild(TERM + 1, "8abcdef")]


def test_the_source_is_stale_without_a_frame_and_live_with_one():
    origin, node = shard()
    origin.tee.beat(0)
    (beat,) = origin.take()
    assert node.feed(beat, now_ns=500 * MS) == []
    assert node.tick(1500 * MS) == []
    assert node.tick(1501 * MS) == [Stale(500 * MS)]
    assert node.tick(2000 * MS) == []
    assert node.feed(beat, now_ns=2100 * MS) == [Live()]
    assert node.tick(2200 * MS) == []


def test_names_are_asked_for_before_ticks_that_need_them_are_written():
    origin, node = shard()
    frames = frames_of(origin, 1)
    assert node.feed(*frames) == [Ask(None, NamesRequest(EPOCH, 0))]
    assert node.tick(300 * MS) == [Ask(None, NamesRequest(EPOCH, 0))]
    node.reachable = True
    node.tick(600 * MS)
    assert same_rings(origin.rings, node.rings)
    assert node.mirror.counts.names_asked == 3


def test_names_after_a_gap_are_asked_for():
    origin, node = shard()
    origin.write((QUOTES, 0))
    origin.seal()
    origin.take()
    origin.write((QUOTES, 2))
    origin.seal()
    names, _ = origin.take()
    assert node.feed(names) == [Ask(None, NamesRequest(EPOCH, 0))]


@pytest.mark.parametrize("names", [("S1",), ("S0", "S0X", "S1"), ("OTHER", "S0")])
def test_names_that_contradict_those_known_are_refused(names):
    origin, node = shard()
    origin.write((QUOTES, 1))
    origin.seal()
    node.feed(*origin.take())
    body = b"".join(name.encode().ljust(24, b"\0") for name in names)
    frame = encode(Header(Kind.SYMBOLS, TERM, EPOCH, 0, len(names) - 1, len(names)), (body,))
    (action,) = node.feed(frame)
    assert isinstance(action, BadFrame)
    assert "contradicts the names of this node" in action.reason
    assert node.symbols.names() == ["S0", "S1"]


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        encode(Header(Kind.BEAT, TERM, EPOCH, 1, 0, 5)),
        encode(Header(Kind.STATE, TERM, EPOCH, 1, 0, 0), (bytes(16),)),
    ],
)
def test_a_bad_frame_is_counted_and_does_not_show_that_the_origin_lives(frame):
    _, node = shard()
    node.tick(1001 * MS)
    (action,) = node.feed(frame)
    assert isinstance(action, BadFrame)
    assert node.mirror.counts.bad == 1
    assert node.mirror.stale


def test_a_node_of_other_ring_sizes_refuses_to_join():
    node = Node({None: Origin()}, depth=16).start()
    text = (
        "the origin's rings have 4 symbols × 8 ticks, those of this node 4 symbols × 16 ticks; set"
        " engine.max_symbols and engine.ring_depth alike"
    )
    assert node.done == [AskSync(None, 1, "join"), Refused(text)]
    assert node.mirror.ended


def test_a_state_is_asked_for_again_and_elsewhere():
    origin, node = Origin(), Node({None: Origin()})
    node.reachable = False
    node.mirror.sources = (None, "b")
    node.start()
    assert node.tick(1999 * MS) == [Stale(0)]
    assert node.tick(2000 * MS) == [AskSync("b", 2, "join")]
    first, *_ = origin.state()
    assert node.mirror.state_part(1, first, 2000 * MS) == []  # of the first request
    (bad,) = node.mirror.state_part(2, b"x", 2000 * MS)
    assert isinstance(bad, BadFrame)
    assert node.mirror.state_part(2, first, 2000 * MS) == []  # of an answer with a bad part
    assert node.tick(2299 * MS) == []
    assert node.tick(2300 * MS) == [AskSync(None, 4, "join")]
    assert node.mirror.state_part(4, first, 2300 * MS) == [Ready(0)]
    assert node.mirror.counts.syncs == 3


def test_a_part_of_a_state_renews_the_time_for_the_next():
    origin, node = Origin(), Node({None: Origin()})
    origin.write(*[QUOTE_0] * 3)
    node.reachable = False
    node.start()
    parts = origin.state()
    node.mirror.state_part(1, parts[0], 1900 * MS)
    assert AskSync(None, 2, "join") not in node.tick(3800 * MS)
    assert AskSync(None, 2, "join") in node.tick(3900 * MS)


def test_a_state_of_another_origin_is_not_taken():
    node = Node({None: Origin()})
    node.reachable = False
    node.start()
    for origin, expected in (
        (Origin(term=TERM - 1, epoch="6abcdef"), []),
        (Origin(epoch="7zzzzzz"), [OtherEpoch(TERM, "7zzzzzz")]),
        (Origin(term=TERM + 1, epoch="8abcdef"), [Rebuild(TERM + 1, "8abcdef")]),
    ):
        assert node.mirror.state_part(1, origin.state()[0], 0) == expected


def test_an_older_state_changes_nothing():
    origin, node = shard()
    with_names(origin, node)
    parts = origin.state()
    frames = frames_of(origin, 4)
    node.feed(frames[0], frames[3])
    assert node.mirror.answer(None, b"gone 4", 0) != []
    found = [action for part in parts for action in node.mirror.state_part(2, part, 0)]
    assert found == []
    assert (node.rings.head(), node.mirror.counts.adopted, node.mirror.syncing) == (1, 0, False)
    assert node.feed(frames[3]) == [request(2, 3)]


def test_a_frame_that_the_rings_refuse_is_followed_by_a_state():
    origin, node = shard()
    with_names(origin, node)
    frame = bytearray(frames_of(origin, 1)[0])
    frame[64 + 56] = 9  # n
    refused, ask = node.feed(bytes(frame))
    assert isinstance(refused, BadFrame)
    assert "does not follow on n = 0" in refused.reason
    assert ask == AskSync(None, 2, refused.reason)
    assert node.mirror.counts.refused == 1
    node.reachable = True
    assert node.tick(2000 * MS)[-1] == Wrote(1)


def test_rings_that_contradict_the_origin_are_built_anew():
    origin, node = shard()
    with_names(origin, node)
    twin = Origin()  # as a damaged one
    twin.write(QUOTE_0, QUOTE_0)
    twin.seal()
    node.feed(twin.take()[-1])
    origin.write((TRADES, 0), QUOTE_0, (TRADES, 0))
    origin.seal()
    node.mirror.answer(None, b"", 0)
    origin.tee.beat(0)
    node.feed(origin.take()[-1])
    node.reachable = True
    assert node.tick(1000 * MS)[-1] == Rebuild(TERM, EPOCH)


def test_a_joiner_asks_again_after_a_state_that_the_rings_refuse():
    origin, node = Origin(), Node({None: Origin()})
    node.reachable = False
    node.start()
    origin.rings.view.first_ns[:] = 0
    origin.write(QUOTE_0)
    *parts, last = origin.state()[:4]
    last = bytearray(last)
    last[64 + 40 : 64 + 48] = b"\xff" * 8  # bid_sz is NaN
    for part in parts:
        assert node.mirror.state_part(1, part, 0) == []
    (bad,) = node.mirror.state_part(1, bytes(last), 0)
    assert isinstance(bad, BadFrame)
    assert "bid_sz is not a finite number" in bad.reason
    assert not node.mirror.ready
    node.reachable = True
    node.peers[None] = origin
    assert node.tick(300 * MS)[-1] == Ready(1)


def test_a_handover_is_reported_once_everything_is_written():
    origin, node = shard()
    origin.write(QUOTE_0)
    origin.tee.handover(1)
    names, ticks, handover = origin.take()
    assert node.feed(names, handover) == [request(1, 1)]
    assert node.feed(ticks) == [Wrote(1), HandedOver(1)]
    assert node.feed(ticks) == []
