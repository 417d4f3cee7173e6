"""Bounded queues between the thread of the event loop and that of NATS.

    trio ── put ──► Outbound ── next ──► NATS thread
    trio ◄─ take ── Inbound  ◄── put ─── NATS thread

One thread puts and one takes. A deque and counters that have one writer each need no lock under the GIL. What
does not fit is dropped and counted: the frames of a cluster are numbered, so that a reader finds a hole and
has it repaired.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import Final, NamedTuple

OVERHEAD_BYTES: Final = 256  # of a queued message besides its payload, so that empty ones are bounded too


class Message(NamedTuple):
    """A message that NATS has delivered."""

    subject: str
    payload: bytes
    arrival_ns: int  # ns since the Unix epoch, when the client had parsed it


class Outbound:
    """Messages that wait to be sent, at most ``most_bytes``; urgent ones go first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._urgent: deque[tuple[str, bytes]] = deque()
        self._plain: deque[tuple[str, bytes]] = deque()
        self._put_bytes = self._taken_bytes = 0
        self.dropped = 0

    @property
    def waiting_bytes(self) -> int:
        """Size of what waits, with OVERHEAD_BYTES for each message."""
        return self._put_bytes - self._taken_bytes

    def put(self, subject: str, payload: bytes, urgent: bool = False) -> bool:
        """Queue a message; return False, and count it as dropped, if there is no room."""
        size = len(payload) + OVERHEAD_BYTES
        if self.waiting_bytes + size > self._most_bytes:
            self.dropped += 1
            return False
        self._put_bytes += size
        (self._urgent if urgent else self._plain).append((subject, payload))
        return True

    def next(self) -> tuple[str, bytes] | None:
        """Take the message to send next, None if there is none."""
        queue = self._urgent or self._plain
        if not queue:
            return None
        found = queue.popleft()
        self._taken_bytes += len(found[1]) + OVERHEAD_BYTES
        return found


class Inbound:
    """Messages received, at most ``most_bytes``; an eventfd is readable while some may wait."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._messages: deque[Message] = deque()
        self._put_bytes = self._taken_bytes = 0
        self._rung = False
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.received = self.received_bytes = self.dropped = 0

    @property
    def waiting_bytes(self) -> int:
        """Size of what waits, with OVERHEAD_BYTES for each message."""
        return self._put_bytes - self._taken_bytes

    def __bool__(self) -> bool:
        return bool(self._messages)

    def put(self, subject: str, payload: bytes) -> None:
        """Queue a message and ring, or count it as dropped if there is no room."""
        size = len(payload) + OVERHEAD_BYTES
        if self.waiting_bytes + size > self._most_bytes:
            self.dropped += 1
            return
        self._put_bytes += size
        self.received += 1
        self.received_bytes += len(payload)
        self._messages.append(Message(subject, payload, time.time_ns()))
        if not self._rung:
            self._rung = True
            os.eventfd_write(self.descriptor, 1)

    def quiet(self) -> None:
        """Read the eventfd. A message that comes from now on rings again, so take what waits after it."""
        os.eventfd_read(self.descriptor)
        # After the read: a ring in between is for a message that the caller is about to take.
        self._rung = False

    def take(self, most: int) -> list[Message]:
        """Take at most ``most`` messages, oldest first."""
        count = min(most, len(self._messages))
        found = [self._messages.popleft() for _ in range(count)]
        self._taken_bytes += sum(len(message.payload) for message in found) + OVERHEAD_BYTES * count
        return found

    def close(self) -> None:
        """Close the eventfd."""
        os.close(self.descriptor)
