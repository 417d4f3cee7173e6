"""Leases whose value or bucket is not as it was: damaged, restored, of other terms."""

from __future__ import annotations

import pytest

from marketfeed.cluster.lease_actions import Become, Lost, Problem
from marketfeed.cluster.lease_value import EPOCH_BYTES, MAX_TERM, LeaseValue, epoch_of, parse_value
from marketfeed.core.units import S
from tests.cluster.one_lease import Bucket, Node, holding


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


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
