"""One lease with its key, whose answers come at once or not at all."""

from __future__ import annotations

from marketfeed.cluster.lease import Lease
from marketfeed.cluster.lease_actions import Become, CompareAndSet, Get
from marketfeed.cluster.lease_value import LeaseValue, parse_value
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


def holding(bucket: Bucket, node: str = "a", **settings) -> Node:
    """Return a node that has taken the lease at 0."""
    holder = Node(bucket, node, **settings)
    (become,) = holder.tick(0)
    assert isinstance(become, Become)
    return holder
