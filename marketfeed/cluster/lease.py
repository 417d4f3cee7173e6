"""One lease in the key-value bucket: who numbers a shard's ticks, or runs a feed. A pure state machine.

    watching ──── claim succeeds ────► holding ──── expires, is taken, or is handed over ────► watching

Theory of operation. The bucket has one key per lease. A write names the revision that it replaces and fails
if another one came first (compare-and-set), so of several claimants one wins. The holder renews each second.
It may act for ``lease_ns`` − 1 s, counted from the *start* of the last renewal that succeeded, which is
before that write took effect. Others claim the lease when they have seen one revision for ``lease_ns``,
counted from the *answer* that showed it first, which is after that write took effect. So the holder has
stopped a second before anyone can replace it, whatever the delays; the second covers clocks whose rates
differ. If a claim succeeds, its revision was the newest, so an answer that was out of date does no harm.
Times are of the node's own monotonic clock, which must count the time that the machine is suspended
(CLOCK_BOOTTIME); wall clocks are not used.

The answer to a write can be lost after the write took effect. Then the key is read; if it has the node's own
value, the node writes once more and counts from there. A value that was only read never makes a holder.

Terms and epochs: lease_value.py. A holder that expired and finds its own value still there gets the same
term and epoch again, because nobody held the lease in between. The successor of a planned handover
continues the epoch if it has all its ticks. In both cases the epoch of :class:`Become` is that of the
rings which the node has, and they continue; otherwise new rings begin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from marketfeed.cluster.lease_actions import (
    Action,
    Become,
    Holder,
    LeaseStatistics,
    Lost,
    StopFeeds,
)
from marketfeed.cluster.lease_key import LeaseKey, Sighting
from marketfeed.cluster.lease_value import MAX_TERM, LeaseValue, epoch_of
from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Callable

MARGIN_NS: Final = S  # between the end of a holder and the first claim of another node
RENEW_NS: Final = S
RANK_NS: Final = S // 2  # by which each rank claims later than the one before
WHOLE_NS: Final = S  # that a successor waits for ticks that it lacks, to continue the epoch


class Lease:
    """One lease as one node sees it; methods return what the caller has to do, in order.

    There is at most one request at a time. Answers to earlier ones are ignored.
    The caller may set at any time:

    ``rank``: the node's place in the rendezvous order of the candidates, from 0;
    ``eligible``: whether the node may claim (not while it drains, or has not the state of the shard);
    ``folder``: id of the folder whose lock the node holds, so that the earlier process that used it has
    ended and its lease may be claimed at once; "" if it holds none;
    ``position``: epoch and head of the rings which the node could continue.
    """

    def __init__(
        self,
        node: str,
        incarnation: str,
        *,
        lease_ns: int,
        suffix: Callable[[], str],
        candidate: bool = True,
    ) -> None:
        """``suffix`` returns 6 random letters or digits; ``candidate`` False: the node never claims."""
        self._node, self._incarnation = node, incarnation
        self._lease_ns, self._suffix, self._candidate = lease_ns, suffix, candidate
        self.rank, self.eligible, self.folder = 0, True, ""
        self.position = ("", 0)
        self._statistics = LeaseStatistics()
        self._key = LeaseKey(self._statistics)
        self._renew_ns = 0
        self._holding, self._until_ns = False, 0
        self._term, self._epoch = 0, ""
        self._floor = 1  # lowest term that a claim may get
        self._successor, self._head = "", -1  # of a handover; head -1: not sealed

    @property
    def holder(self) -> Holder | None:
        """Who holds the lease as far as this node knows; it may have expired."""
        revision, value, _ = self._key.sighting or (0, None, 0)
        if value is None:
            return None
        return Holder(value.node, value.incarnation, value.term_at(revision), value.epoch)

    def holds(self, now_ns: int) -> bool:
        """Return whether the node may publish at ``now_ns``; check it before each frame.

        It is False on time even if the process was stopped and ``tick`` comes late, and after ``sealed``.
        """
        return self._holding and self._head < 0 and now_ns < self._until_ns

    def statistics(self) -> LeaseStatistics:
        """Return the state and the counters."""
        return msgspec.structs.replace(self._statistics, holding=self._holding, term=self._term)

    def tick(self, now_ns: int) -> list[Action]:
        """Do what time requires; call it every 100 ms or so."""
        actions: list[Action] = []
        if self._key.overdue(now_ns):
            self._key.give_up(now_ns)
        self._ask(now_ns, actions)
        return actions

    def got(self, request: int, entry: tuple[int, bytes] | None, now_ns: int) -> list[Action]:
        """Take the answer to a read: revision and value, or None if the key is absent."""
        actions: list[Action] = []
        if self._key.answered(request) is None:
            return actions
        value, problems = self._key.read(entry, now_ns)
        actions += problems
        if value is not None and not self._ours(value):
            self._floor = max(self._floor, value.term_at(entry[0] if entry else 0) + 1)
        if self._holding and not self._ours(value):
            reason = "its value is damaged or gone" if value is None else f"{value.node} holds the lease"
            self._lose(reason, actions)
        elif self._holding and value is not None and value.next:
            self._lose(f"handed over to {value.next}", actions)
        self._renew_ns = now_ns  # a holder reads only when a renewal is in doubt
        self._ask(now_ns, actions)
        return actions

    def was_set(self, request: int, revision: int, now_ns: int) -> list[Action]:
        """Take the answer to a write that succeeded, and the revision that it made."""
        actions: list[Action] = []
        pending = self._key.answered(request)
        if pending is None or pending.value is None:
            return actions
        value = pending.value
        self._key.wrote(revision, value, now_ns)
        until_ns = pending.start_ns + self._lease_ns - MARGIN_NS
        if value.next:
            self._lose(f"handed over to {value.next}", actions)
        elif self._holding and value.term == self._term:
            self._statistics.renewals += 1
            self._until_ns = until_ns
            self._renew_ns = now_ns if self._head >= 0 else pending.start_ns + RENEW_NS
        elif now_ns < until_ns and value.term_at(revision) >= self._floor:
            self._become(value, revision, actions)
            self._until_ns = until_ns
            # A claim names no epoch yet: at once, so that all can read it.
            self._renew_ns = pending.start_ns + RENEW_NS if value.term else now_ns
        # Otherwise it is the node's own value, and the next request renews it, or claims a higher term.
        self._ask(now_ns, actions)
        return actions

    def refused(self, request: int, now_ns: int) -> list[Action]:
        """Take the answer to a write that another one preceded."""
        actions: list[Action] = []
        if self._key.answered(request) is not None:
            self._statistics.refused += 1
            self._look(now_ns, actions)
        return actions

    def failed(self, request: int, now_ns: int) -> list[Action]:
        """Take that a request got no answer; a write may have taken effect, or may yet do so."""
        if self._key.pending is not None and self._key.pending.request == request:
            self._key.give_up(now_ns)
        return self.tick(now_ns)

    def look(self, now_ns: int) -> list[Action]:
        """Read the key as soon as possible, such as after a frame that announces a handover."""
        actions: list[Action] = []
        self._look(now_ns, actions)
        return actions

    def saw(self, term: int, epoch: str, now_ns: int) -> list[Action]:
        """Take a term in use, by a frame or the status of a node, and of each origin that this node follows.

        A holder that sees a term as high as its own, but of another epoch, reads the key. If it holds the
        lease all the same, the bucket was restored from an older state: the node claims a higher term.
        """
        actions: list[Action] = []
        if (term, epoch) != (self._term, self._epoch) and self._floor <= term < MAX_TERM:
            self._floor = term + 1
            if self._holding and term >= self._term:
                self._look(now_ns, actions)
        return actions

    def hand_over(self, successor: str) -> list[Action]:
        """Begin a planned handover to the node ``successor``; nothing if the node does not hold the lease."""
        if not self._holding:
            return []
        self._successor = successor
        return [StopFeeds(successor)]

    def sealed(self, head: int, now_ns: int) -> list[Action]:
        """Finish a handover: all frames up to ``head``, the last one of the epoch, have been sent."""
        actions: list[Action] = []
        if self._holding and self._successor:
            self._head = head
            self._renew_ns = now_ns
            self._ask(now_ns, actions)
        return actions

    def _look(self, now_ns: int, actions: list[Action]) -> None:
        self._key.in_doubt, self._key.read_ns = True, now_ns
        self._ask(now_ns, actions)

    def _ask(self, now_ns: int, actions: list[Action]) -> None:
        """End the lease if its time is up, and send the next request if it is due."""
        if self._holding and now_ns >= self._until_ns:
            self._lose("not renewed in time", actions)
        key = self._key
        if key.pending is not None:
            return
        value = None if key.in_doubt or key.sighting is None else self._due(key.sighting, now_ns)
        if value is not None or (now_ns >= key.read_ns and (key.in_doubt or not self._holding)):
            actions.append(key.send(value, now_ns))

    def _due(self, sighting: Sighting, now_ns: int) -> LeaseValue | None:
        """Return the value to write now, or None."""
        if self._holding:
            if self._floor > self._term:
                return self._claim()
            if now_ns < self._renew_ns:
                return None
            handed = {"next": self._successor, "head": self._head} if self._head >= 0 else {}
            return self._value(epoch=self._epoch, term=self._term, **handed)
        if not self._candidate or not self.eligible:
            return None
        revision, value, since_ns = sighting
        rank_ns = since_ns + self.rank * RANK_NS
        if value is None:
            # A bucket that was made again has no key either; its earlier holder may still publish.
            unused = not revision and self._floor == 1 and not self._term
            return self._claim() if now_ns >= rank_ns + (0 if unused else self._lease_ns) else None
        if value.next == self._node:
            whole = (value.epoch, value.head) == self.position
            if not whole and now_ns < since_ns + WHOLE_NS:
                return None
            return self._claim(value.epoch if whole else "")
        if not value.next and self._ours(value):
            term = value.term_at(revision)
            if term < self._floor:
                return self._claim()
            return self._value(epoch=value.epoch or self._epoch_of(term), term=term)
        if self.folder and (value.node, value.folder) == (self._node, self.folder) and not value.next:
            return self._claim()
        return self._claim() if now_ns >= rank_ns + self._lease_ns else None

    def _claim(self, epoch: str = "") -> LeaseValue:
        return self._value(epoch=epoch, floor=min(max(self._floor, self._term + 1), MAX_TERM))

    def _epoch_of(self, term: int) -> str:
        """Return the epoch for ``term``: the same one if the node began to use it before it expired."""
        return self._epoch if term == self._term else epoch_of(term, self._suffix())

    def _value(self, **fields: Any) -> LeaseValue:
        return LeaseValue(node=self._node, incarnation=self._incarnation, folder=self.folder, **fields)

    def _ours(self, value: LeaseValue | None) -> bool:
        if value is None:
            return False
        return (value.node, value.incarnation) == (self._node, self._incarnation)

    def _become(self, value: LeaseValue, revision: int, actions: list[Action]) -> None:
        if self._holding:
            self._lose("other nodes have seen a higher term", actions)
        self._statistics.claims += 1
        term = value.term_at(revision)
        self._term, self._epoch = term, value.epoch or self._epoch_of(term)
        self._floor = self._term
        self._holding = True
        actions.append(Become(self._term, self._epoch))

    def _lose(self, reason: str, actions: list[Action]) -> None:
        self._holding = False
        self._successor, self._head = "", -1
        actions.append(Lost(self._term, reason))
