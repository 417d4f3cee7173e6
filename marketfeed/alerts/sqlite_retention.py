"""Removal of old entries from the SQLite alert log, a few rows per transaction. Blocking."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from marketfeed.alerts.log import Pruned
from marketfeed.alerts.sqlite_file import DEAD, REQUEUED, SETTLED
from marketfeed.alerts.sqlite_reads import consumers, entries, episode
from marketfeed.alerts.sqlite_writes import forget_silences
from marketfeed.core.units import DAY_NS

if TYPE_CHECKING:
    import apsw

    from marketfeed.alerts.log import Consumer, Entry, Retention

STEP: Final = 500  # rows looked at in one transaction: a few ms


class Pruner:
    """Removes what retention does not keep. A pass begins at the oldest entry and takes several steps."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._after = 0  # up to which this pass has come

    def step(self, now_ns: int, keep: Retention) -> Pruned:
        """Look at the next STEP rows, inside a transaction of the caller."""
        before_ns = now_ns - round(keep.keep_days * DAY_NS)
        (head,) = self._connection.execute("SELECT coalesce(max(position), 0) FROM alerts").fetchone() or (0,)
        upto = head - max(keep.keep_alerts, 1)
        looked = entries(
            self._connection,
            "position > ? AND position < ? ORDER BY position LIMIT ?",
            (self._after, head, STEP),
        )
        old = [entry for entry in looked if entry.position <= upto or entry.at_ns < before_ns]
        # Entries are in order of time, but for steps of the clock: the first that is kept ends the pass.
        more = len(looked) == STEP and len(old) == STEP
        held = self._held(old)
        gone = [entry for entry in old if entry.position not in held]
        for entry in gone:
            self._remove(entry)
        self._after = looked[-1].position if more else 0
        self._trim(now_ns, before_ns, keep)
        return Pruned(len(gone), more)

    def _held(self, old: list[Entry]) -> set[int]:
        """Return the positions of entries that a consumer needs, or that belong to an open episode."""
        if not old:
            return set()
        first, last = old[0].position, old[-1].position
        standings: defaultdict[str, dict[int, int]] = defaultdict(dict)
        for name, position, kind in self._connection.execute(
            "SELECT c.name, s.position, s.kind FROM consumers c CROSS JOIN standings s"
            " WHERE s.consumer = c.number AND s.position BETWEEN ? AND ?",
            (first, last),
        ):
            standings[name][position] = kind
        everyone = consumers(self._connection)
        return {
            entry.position
            for entry in old
            if self._is_open(entry)
            or any(_needs(consumer, standings[consumer.name], entry) for consumer in everyone)
        }

    def _is_open(self, entry: Entry) -> bool:
        if entry.alert.state != "raised":
            return False
        found = episode(self._connection, entry.alert.key)
        return found is not None and not found.cleared_ns

    def _remove(self, entry: Entry) -> None:
        position = entry.position
        self._connection.execute("DELETE FROM alerts WHERE position = ?", (position,))
        self._connection.execute(
            "DELETE FROM standings WHERE position = ? AND consumer IN (SELECT number FROM consumers)",
            (position,),
        )
        self._connection.execute(
            "DELETE FROM episodes WHERE key = ? AND last_position = ?", (entry.alert.key, position)
        )

    def _trim(self, now_ns: int, before_ns: int, keep: Retention) -> None:
        """Remove old lines of the audit trail, and silences that expired long ago or are too many."""
        self._connection.execute(
            "DELETE FROM audit WHERE number IN (SELECT number FROM"
            " (SELECT number, at_ns FROM audit ORDER BY number LIMIT ?)"
            " WHERE at_ns < ? OR number <= (SELECT max(number) FROM audit) - ?)",
            (STEP, before_ns, keep.keep_alerts),
        )
        self._connection.execute("DELETE FROM silences WHERE ends_ns < ?", (before_ns,))
        forget_silences(self._connection, now_ns)


def _needs(consumer: Consumer, standings: dict[int, int], entry: Entry) -> bool:
    kind = standings.get(entry.position)
    if kind == DEAD:
        return True
    if kind == REQUEUED:
        return consumer.may_have(entry)
    return kind != SETTLED and entry.position > consumer.floor and consumer.wants(entry)
