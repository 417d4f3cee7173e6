"""The queues of a link: bounded, in order, and each message is taken, or counted as dropped."""

from __future__ import annotations

import select

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.cluster.queues import OVERHEAD_BYTES, Inbound, Outbound

MOST = 4 * OVERHEAD_BYTES


@given(st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 3 * OVERHEAD_BYTES), st.booleans()))))
def test_messages_to_send_are_taken_in_order_urgent_ones_first_or_dropped(steps):
    """A step puts a message of a size, urgent or not; None takes one."""
    queue, dropped = Outbound(MOST), 0
    urgent: list[tuple[str, bytes]] = []
    plain: list[tuple[str, bytes]] = []
    for number, step in enumerate(steps):
        if step is None:
            expected = (urgent or plain).pop(0) if urgent or plain else None
            assert queue.next() == expected
        else:
            size, is_urgent = step
            message = (f"s{number}", bytes(size))
            waiting = sum(len(payload) + OVERHEAD_BYTES for _, payload in [*urgent, *plain])
            fits = waiting + size + OVERHEAD_BYTES <= MOST
            assert queue.put(*message, urgent=is_urgent) == fits
            dropped += not fits
            if fits:
                (urgent if is_urgent else plain).append(message)
        assert queue.waiting_bytes <= MOST
        assert queue.dropped == dropped


@pytest.fixture
def inbound():
    queue = Inbound(MOST)
    yield queue
    queue.close()


def is_readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def test_messages_received_are_taken_in_order_with_their_time(inbound):
    for number in range(3):
        inbound.put("s", bytes([number]))
    first = inbound.take(2)
    assert [message.payload for message in first + inbound.take(9)] == [b"\0", b"\1", b"\2"]
    assert first[0].arrival_ns <= first[1].arrival_ns
    assert (inbound.received, inbound.received_bytes, inbound.waiting_bytes) == (3, 3, 0)


def test_what_does_not_fit_is_counted_and_there_is_room_again(inbound):
    for _ in range(6):
        inbound.put("s", b"")
    assert (inbound.received, inbound.dropped) == (4, 2)
    inbound.take(1)
    inbound.put("s", b"")
    assert (inbound.received, inbound.dropped) == (5, 2)


def test_a_message_after_quiet_rings_again(inbound):
    inbound.put("s", b"")
    inbound.put("s", b"")
    assert is_readable(inbound.descriptor)
    inbound.quiet()
    assert not is_readable(inbound.descriptor)
    inbound.put("s", b"")
    assert is_readable(inbound.descriptor)
    assert len(inbound.take(9)) == 3
    assert not inbound
