"""The key of a lease as one node knows it, and the request to it that is under way."""

from __future__ import annotations

from typing import Final, NamedTuple

from marketfeed.cluster.lease_actions import CompareAndSet, Get, LeaseStatistics, Problem
from marketfeed.cluster.lease_value import LeaseValue, LeaseValueError, parse_value
from marketfeed.core.units import S

POLL_NS: Final = S  # between two reads of a node that watches
RETRY_NS: Final = S // 4  # after a request that failed
REQUEST_NS: Final = 2 * S  # without an answer, a request has failed


class Sighting(NamedTuple):
    """A revision of the key, and the time of the answer that showed it first."""

    revision: int  # 0: the key is absent
    value: LeaseValue | None  # None: absent or damaged
    since_ns: int


class Pending(NamedTuple):
    """The request under way; without ``value`` it is a read."""

    request: int
    start_ns: int
    value: LeaseValue | None


class LeaseKey:
    """What was read and written last. One request at a time; answers to earlier ones are ignored."""

    def __init__(self, statistics: LeaseStatistics) -> None:
        self.sighting: Sighting | None = None  # None: nothing read yet
        self.in_doubt = True  # the key may have changed: the next request must be a read
        self.read_ns = 0  # earliest time of the next read
        self.pending: Pending | None = None
        self._requests = 0
        self._statistics = statistics

    def send(self, value: LeaseValue | None, now_ns: int) -> Get | CompareAndSet:
        """Return the request that writes ``value`` over the revision seen last; None: the one that reads."""
        self._requests += 1
        self.pending = Pending(self._requests, now_ns, value)
        if value is None or self.sighting is None:
            return Get(self._requests)
        return CompareAndSet(self._requests, self.sighting.revision, value.encode())

    def answered(self, request: int) -> Pending | None:
        """Return the pending request and forget it; None if ``request`` is an earlier one."""
        pending = self.pending
        if pending is None or pending.request != request:
            return None
        self.pending = None
        return pending

    def give_up(self, now_ns: int) -> None:
        """Take that the pending request has no answer."""
        self.pending = None
        self._statistics.failed += 1
        self.in_doubt, self.read_ns = True, now_ns + RETRY_NS

    def overdue(self, now_ns: int) -> bool:
        """Return whether the pending request waits for too long."""
        return self.pending is not None and now_ns - self.pending.start_ns >= REQUEST_NS

    def wrote(self, revision: int, value: LeaseValue, now_ns: int) -> None:
        """Note what this node has written."""
        self.sighting = Sighting(revision, value, now_ns)
        if not self.in_doubt:
            self.read_ns = now_ns + POLL_NS

    def read(self, entry: tuple[int, bytes] | None, now_ns: int) -> tuple[LeaseValue | None, list[Problem]]:
        """Note what was read, and return its value. The same revision keeps its first sighting."""
        self.in_doubt, self.read_ns = False, now_ns + POLL_NS
        before = self.sighting
        problems: list[Problem] = []
        revision, data = entry or (0, b"")
        if before is not None and revision == before.revision:
            return before.value, problems
        if before is not None and revision < before.revision:
            self._statistics.rolled_back += 1
            text = f"the lease has revision {revision}, after {before.revision}: the bucket was restored"
            problems.append(Problem(f"{text}, or a server of it is behind"))
        value = None
        if entry is not None:
            try:
                value = parse_value(data)
            except LeaseValueError as error:
                self._statistics.damaged += 1
                text = f"the value of the lease, revision {revision}, is damaged"
                problems.append(Problem(f"{text}: {error}"))
        self.sighting = Sighting(revision, value, now_ns)
        return value, problems
