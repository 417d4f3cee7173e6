"""Leases: who may act, and when, by exact times."""

from __future__ import annotations

import pytest

from marketfeed.cluster.lease import RENEW_NS
from marketfeed.cluster.lease_actions import Become, CompareAndSet, Get, Holder, Lost, StopFeeds
from marketfeed.cluster.lease_value import LeaseValue
from marketfeed.core.units import S
from tests.cluster.one_lease import LEASE_NS, Bucket, Node, holding


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


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


def test_requests_are_one_at_a_time(bucket):
    node = Node(bucket, "a")
    assert node.lease.tick(0) == [Get(1)]
    assert node.lease.tick(S) == node.lease.look(S) == []
    assert node.lease.tick(2 * S) == []  # given up; again in 250 ms
    assert node.lease.tick(2 * S + S // 4) == [Get(2)]
    assert node.lease.statistics().failed == 1
    assert RENEW_NS < LEASE_NS
