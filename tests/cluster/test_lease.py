"""Leases: who may act, and when, by exact times."""

from __future__ import annotations

import pytest

from marketfeed.cluster.lease import RENEW_NS, Lease
from marketfeed.cluster.lease_actions import (
    Become,
    CompareAndSet,
    Get,
    Holder,
    Lost,
    Problem,
    StopFeeds,
)
from marketfeed.cluster.lease_value import EPOCH_BYTES, MAX_TERM, LeaseValue, epoch_of, parse_value
from marketfeed.core.units import S

LEASE_NS = 8 * S


class Bucket:
    """The key of one lease; answers come at once."""

    def __init__(self) -> None:
        self.revision, self.data = 0, b""
        self.down = False
        self.loses_answers = False

    def put(self, data: bytes | LeaseValue, revision: int = 0) -> None:
        self.revision = revision or self.revision + 1
        self.data = data if isinstance(data, bytes) else data.encode()

    @property
    def value(self) -> LeaseValue:
        return parse_value(self.data)


class Node:
    """A lease with its bucket, and what it told."""

    def __init__(self, bucket: Bucket, node: str, incarnation: str = "i1", **settings) -> None:
        self.bucket = bucket
        suffixes = iter(f"{node[:1]}{incarnation[:2]:0<2}{number:03}" for number in range(1000))
        self.lease = Lease(node, incarnation, lease_ns=LEASE_NS, suffix=lambda: next(suffixes), **settings)
        self.told: list = []
        self.asked: list = []

    def run(self, actions, now_ns: int) -> list:
        """Carry the actions out; return what they told."""
        told = []
        for action in actions:
            if isinstance(action, Get | CompareAndSet):
                self.asked.append(action)
                told += self.run(self._answer(action, now_ns), now_ns)
            else:
                told.append(action)
        return told

    def _answer(self, action, now_ns):
        bucket, lease = self.bucket, self.lease
        if bucket.down:
            return lease.failed(action.request, now_ns)
        if isinstance(action, Get):
            return lease.got(
                action.request, (bucket.revision, bucket.data) if bucket.revision else None, now_ns
            )
        if action.revision != bucket.revision:
            return lease.refused(action.request, now_ns)
        bucket.put(action.value)
        if bucket.loses_answers:
            return lease.failed(action.request, now_ns)
        return lease.was_set(action.request, bucket.revision, now_ns)

    def get(self, now_ns: int = 0) -> Get:
        """Return the read that is due."""
        (get,) = self.lease.tick(now_ns)
        assert isinstance(get, Get)
        return get

    def claim(self) -> CompareAndSet:
        """Return the first claim of an absent key, at 0."""
        (write,) = self.lease.got(self.get().request, None, 0)
        assert isinstance(write, CompareAndSet)
        return write

    def tick(self, now_ns: int) -> list:
        return self.run(self.lease.tick(now_ns), now_ns)

    def ticks(self, start_ns: int, end_ns: int) -> list[tuple[int, object]]:
        """Tick each 100 ms; return what was told, each with its time in ns."""
        told = []
        for now_ns in range(start_ns, end_ns, S // 10):
            told += [(now_ns, action) for action in self.tick(now_ns)]
        return told


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def holding(bucket: Bucket, node: str = "a", **settings) -> Node:
    """Return a node that has taken the lease at 0."""
    holder = Node(bucket, node, **settings)
    (become,) = holder.tick(0)
    assert isinstance(become, Become)
    return holder


def test_the_first_claim_of_an_absent_key_gets_its_revision_as_term(bucket):
    bucket.revision = 0
    node = Node(bucket, "a")
    assert node.tick(0) == [Become(1, "1ai1000")]
    assert bucket.value == LeaseValue(node="a", incarnation="i1", epoch="1ai1000", term=1)
    assert node.lease.holder == Holder("a", "i1", 1, "1ai1000")


def test_renewals_raise_the_revision_and_keep_the_term(bucket):
    node = holding(bucket)
    assert node.ticks(0, 60 * S) == []
    assert bucket.revision == 2 + 59
    assert bucket.value.term == node.lease.statistics().term == 1
    assert node.lease.statistics().renewals == 60


def test_a_holder_stops_a_second_before_its_lease_ends_counted_from_the_start_of_its_last_renewal(bucket):
    node = holding(bucket)
    bucket.down = True
    assert node.lease.holds(7 * S - 1)
    assert node.ticks(S // 10, 30 * S) == [(7 * S, Lost(1, "not renewed in time"))]


def test_a_process_that_was_stopped_does_not_hold_before_its_first_tick(bucket):
    node = holding(bucket)
    assert not node.lease.holds(7 * S)


def test_a_slow_answer_counts_from_the_start_of_its_request(bucket):
    node = Node(bucket, "a")
    write = node.claim()
    told = node.lease.was_set(write.request, 1, 2 * S - 1)
    assert told[0] == Become(1, "1ai1000")
    assert node.lease.holds(7 * S - 1)
    assert not node.lease.holds(7 * S)


def test_an_answer_after_the_request_was_given_up_is_ignored(bucket):
    node = Node(bucket, "a")
    write = node.claim()
    assert node.lease.tick(2 * S) == []
    assert node.lease.was_set(write.request, 1, 2 * S) == []
    assert node.lease.got(write.request - 1, None, 2 * S) == []
    assert node.lease.refused(write.request, 2 * S) == []
    assert not node.lease.statistics().holding


def test_a_claim_whose_answer_was_lost_is_renewed_before_it_counts(bucket):
    node = Node(bucket, "a")
    bucket.loses_answers = True
    assert node.tick(0) == []
    assert bucket.value == LeaseValue(node="a", incarnation="i1", floor=1)
    bucket.loses_answers = False
    assert [action for _, action in node.ticks(0, S)] == [Become(1, "1ai1000")]
    assert node.lease.statistics().term == 1
    assert bucket.value.term == 1
    assert bucket.revision == 2


def test_others_claim_when_they_saw_one_revision_for_the_whole_lease_in_order_of_rank(bucket):
    holding(bucket)
    second, third = Node(bucket, "b"), Node(bucket, "c")
    second.lease.rank, third.lease.rank = 0, 1
    third.tick(0)
    assert second.ticks(S // 2, 8 * S + S // 2) == []
    assert third.ticks(S, 8 * S + S // 2) == []
    assert second.tick(8 * S + S // 2) == [Become(3, "3bi1000")]
    assert third.tick(8 * S + S // 2) == []  # refused
    assert third.lease.holder == Holder("b", "i1", 3, "3bi1000")
    assert third.lease.statistics().refused == 1


def test_each_renewal_starts_the_wait_of_others_again(bucket):
    holder, other = holding(bucket), Node(bucket, "b")
    for now_ns in range(0, 100 * S, S // 2):
        assert holder.tick(now_ns) == other.tick(now_ns) == []


def test_a_paused_holder_finds_its_successor_and_watches(bucket):
    holder, other = holding(bucket), Node(bucket, "b")
    other.ticks(0, 9 * S)
    assert other.lease.statistics().holding
    assert holder.tick(20 * S) == [Lost(1, "not renewed in time")]
    assert holder.lease.holder == Holder("b", "i1", 3, "3bi1000")
    assert not holder.lease.statistics().holding


def test_a_holder_that_expired_alone_gets_its_term_and_epoch_again(bucket):
    node = holding(bucket)
    bucket.down = True
    node.ticks(S, 8 * S)
    bucket.down = False
    assert [action for _, action in node.ticks(8 * S, 9 * S)] == [Become(1, "1ai1000")]


def test_gateways_and_nodes_that_drain_never_claim(bucket):
    gateway, draining = Node(bucket, "g", candidate=False), Node(bucket, "d")
    draining.lease.eligible = False
    assert gateway.ticks(0, 20 * S) == draining.ticks(0, 20 * S) == []
    assert bucket.revision == 0


def test_a_process_that_restarts_on_its_folder_claims_at_once_and_others_of_its_name_do_not(bucket):
    before = Node(bucket, "a")
    before.lease.folder = "f1"
    before.tick(0)
    elsewhere = Node(bucket, "a", "i2")
    elsewhere.lease.folder = "f2"
    assert elsewhere.tick(S) == []
    again = Node(bucket, "a", "i3")
    again.lease.folder = "f1"
    assert again.tick(S) == [Become(3, "3ai3000")]


def test_a_planned_handover_keeps_the_epoch_of_a_successor_that_has_all_ticks(bucket):
    holder, other = holding(bucket), Node(bucket, "b")
    third = Node(bucket, "c")
    other.tick(0)
    third.tick(0)
    other.lease.position = ("1ai1000", 41)
    assert holder.lease.hand_over("b") == [StopFeeds("b")]
    assert holder.run(holder.lease.sealed(42, S), S) == [Lost(1, "handed over to b")]
    assert bucket.value.head == 42
    assert other.run(other.lease.look(S), S) == []  # one tick is missing
    assert third.run(third.lease.look(S), S) == []
    other.lease.position = ("1ai1000", 42)
    assert other.tick(S + 1) == [Become(4, "1ai1000")]
    assert third.ticks(S, 5 * S) == holder.ticks(S, 5 * S) == []


def test_a_successor_that_stays_behind_begins_an_epoch_of_its_own(bucket):
    holder, other = holding(bucket), Node(bucket, "b")
    holder.lease.hand_over("b")
    holder.run(holder.lease.sealed(42, 0), 0)
    assert other.tick(0) == []
    assert other.tick(S) == [Become(4, "4bi1000")]


def test_a_successor_that_died_is_replaced_after_the_lease(bucket):
    holder = holding(bucket)
    holder.lease.hand_over("b")
    holder.run(holder.lease.sealed(42, 0), 0)
    assert holder.ticks(0, 8 * S) == []
    assert holder.tick(8 * S) == [Become(4, "4ai1001")]


def test_a_handover_whose_answer_was_lost_ends_the_lease(bucket):
    holder = holding(bucket)
    holder.lease.hand_over("b")
    bucket.loses_answers = True
    holder.run(holder.lease.sealed(42, S), S)
    bucket.loses_answers = False
    assert [action for _, action in holder.ticks(S, 2 * S)] == [Lost(1, "handed over to b")]


def test_a_handover_waits_for_a_renewal_that_is_under_way(bucket):
    holder = holding(bucket)
    (renewal,) = holder.lease.tick(S)
    assert isinstance(renewal, CompareAndSet)
    holder.lease.hand_over("b")
    assert holder.lease.sealed(42, S) == []
    bucket.put(renewal.value)
    told = holder.run(holder.lease.was_set(renewal.request, bucket.revision, S), S)
    assert told == [Lost(1, "handed over to b")]


def test_only_a_holder_hands_over(bucket):
    node = Node(bucket, "a")
    assert node.lease.hand_over("b") == node.lease.sealed(1, 0) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"node":"a"}',
        b'{"node":"","incarnation":"i"}',
        b"x" * 2000,
        b'{"node":"a","incarnation":"i","term":-1}',
        b'{"node":"a","incarnation":"i","epoch":"a-b"}',
    ],
)
def test_a_damaged_value_is_told_counted_and_replaced_after_the_lease(bucket, data):
    bucket.put(data, 7)
    node = Node(bucket, "a")
    (problem,) = node.tick(0)
    assert isinstance(problem, Problem)
    assert problem.text.startswith("the value of the lease, revision 7, is damaged: ")
    assert node.ticks(0, 8 * S) == []
    assert node.lease.statistics().damaged == 1
    assert node.lease.holder is None
    assert node.tick(8 * S) == [Become(8, "8ai1000")]


def test_a_holder_whose_value_was_damaged_stops(bucket):
    node = holding(bucket)
    bucket.put(b"?")
    problem, lost = node.tick(S)
    assert "damaged" in problem.text
    assert lost == Lost(1, "its value is damaged or gone")


def test_a_bucket_that_was_made_again_is_claimed_after_the_lease(bucket):
    holder, other = holding(bucket), Node(bucket, "b")
    other.tick(0)
    bucket.revision = 0
    (problem,) = other.tick(S)
    assert "after 2: the bucket was restored" in problem.text
    assert holder.tick(S)[1] == Lost(1, "its value is damaged or gone")
    assert other.ticks(S, 9 * S) == []
    (become,) = other.tick(9 * S)
    assert become.term == 2


def test_a_restored_bucket_gives_no_term_a_second_time(bucket):
    """The nodes know term 90; the bucket was restored to revision 5, of a holder that is gone."""
    bucket.put(LeaseValue(node="x", incarnation="i", epoch="1mabcdef", term=90), 95)
    node = Node(bucket, "a")
    node.tick(0)
    bucket.put(LeaseValue(node="y", incarnation="i", epoch="4abcdef", term=4), 5)
    (problem,) = node.tick(S)
    assert problem.text.startswith("the lease has revision 5, after 95: the bucket was restored")
    assert node.ticks(S, 9 * S) == []
    (become,) = node.tick(9 * S)
    assert become.term == 91
    assert bucket.value.term == 91
    assert node.lease.statistics().rolled_back == 1


def test_a_holder_that_sees_a_higher_term_claims_one_above_it_if_it_is_the_holder(bucket):
    node = holding(bucket)
    told = node.run(node.lease.saw(90, "2iabcdef", S // 2), S // 2)
    assert told == [Lost(1, "other nodes have seen a higher term"), Become(91, "2jai1001")]
    assert node.run(node.lease.saw(90, "2iabcdef", S // 2), S // 2) == []
    assert node.run(node.lease.saw(91, "2jai1001", S // 2), S // 2) == []
    assert node.run(node.lease.saw(91, "2jother1", S // 2), S // 2)[1].term == 92


def test_a_claimant_that_sees_a_higher_term_before_its_answer_claims_once_more(bucket):
    node = Node(bucket, "a")
    write = node.claim()
    bucket.put(write.value)
    assert node.lease.saw(90, "2iabcdef", 0) == []
    assert node.run(node.lease.was_set(write.request, 1, 0), 0) == [Become(91, "2jai1000")]


def test_a_holder_that_sees_a_higher_term_stops_if_another_one_holds(bucket):
    node = holding(bucket)
    bucket.put(LeaseValue(node="b", incarnation="i", epoch="2abcdef", term=2))
    assert node.run(node.lease.saw(2, "2abcdef", S // 2), S // 2) == [Lost(1, "b holds the lease")]


def test_requests_are_one_at_a_time(bucket):
    node = Node(bucket, "a")
    assert node.lease.tick(0) == [Get(1)]
    assert node.lease.tick(S) == node.lease.look(S) == []
    assert node.lease.tick(2 * S) == []  # given up; again in 250 ms
    assert node.lease.tick(2 * S + S // 4) == [Get(2)]
    assert node.lease.statistics().failed == 1
    assert RENEW_NS < LEASE_NS


def test_an_epoch_is_the_term_in_base_36_and_fits_into_a_frame():
    assert epoch_of(36**3 + 35, "aaaaaa") == "100zaaaaaa"
    longest = epoch_of(MAX_TERM, "Z9Z9Z9")
    assert len(longest) == EPOCH_BYTES
    assert parse_value(LeaseValue(node="a", incarnation="i", epoch=longest, term=MAX_TERM).encode())


@pytest.mark.parametrize(
    ("term", "suffix"), [(0, "aaaaaa"), (MAX_TERM + 1, "aaaaaa"), (1, "aaaaa"), (1, "a-aaaa")]
)
def test_other_terms_and_suffixes_make_no_epoch(term, suffix):
    with pytest.raises(ValueError, match="must be"):
        epoch_of(term, suffix)
