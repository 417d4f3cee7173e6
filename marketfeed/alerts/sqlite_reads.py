"""Queries of the SQLite alert log. Blocking; they work on any connection, beside a writer or without one."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from marketfeed.alerts.alert import Alert
from marketfeed.alerts.escalation.pending import Pending
from marketfeed.alerts.log import (
    ALL_SYMBOLS,
    AuditRecord,
    Consumer,
    DeadLetter,
    Entry,
    Episode,
    Former,
    Progress,
    Silence,
)
from marketfeed.alerts.patterns import CACHED
from marketfeed.alerts.sqlite_file import DEAD, REQUEUED, SETTLED, TRIED, explained, open_for_reading

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import apsw

MAX_POSITION: Final = 2**63 - 1  # an integer of SQLite
_alert = msgspec.json.Decoder(Alert)
_former = msgspec.json.Decoder(tuple[Former, ...])
_silence = msgspec.json.Decoder(Silence)
_pending = msgspec.json.Decoder(Pending)
_ENTRY = "a.position, a.body, a.at_ns, a.mark"
_AUDIT = "number, at_ns, action, subject, by, detail"
_EPISODE = (
    "key, rule, symbol, severity, raised_ns, shown, cleared_ns, resolved_ns, resolved_by, comment,"
    " last_position"
)


class SqliteReader:
    """A log that is only read, as by commands; each method raises AlertLogError.

    The methods return what those of :class:`marketfeed.alerts.log.AlertLog` with the same names do. Blocking,
    and for one thread at a time.
    """

    def __init__(self, path: Path, vfs: str | None = None) -> None:
        """Open the log at ``path``, whether an engine writes to it or not. Raises AlertLogError."""
        self._path = path
        self._connection = open_for_reading(path, vfs)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def head(self) -> int:
        """Return the newest position."""
        return int(self._rows("SELECT coalesce(max(position), 0) FROM alerts")[0][0])

    def read(self, after: int, limit: int) -> list[Entry]:
        """Return entries after a position."""
        sql = f"SELECT {_ENTRY} FROM alerts a WHERE position > ? ORDER BY position LIMIT ?"
        return _entries(self._rows(sql, after, limit))

    def read_back(self, before: int | None, limit: int) -> list[Entry]:
        """Return entries before a position, newest first."""
        sql = f"SELECT {_ENTRY} FROM alerts a WHERE position < ? ORDER BY position DESC LIMIT ?"
        return _entries(self._rows(sql, MAX_POSITION if before is None else min(before, MAX_POSITION), limit))

    def newest(self, limit: int) -> list[Entry]:
        """Return the newest ``limit`` entries, oldest first."""
        return self.read_back(None, limit)[::-1]

    def find(self, alert: str) -> Entry | None:
        """Return the entry of an alert."""
        return next(iter(_entries(self._rows(f"SELECT {_ENTRY} FROM alerts a WHERE id = ?", alert))), None)

    def episodes(self, open_only: bool = False) -> list[Episode]:
        """Return episodes, oldest first."""
        where = "WHERE cleared_ns = 0" if open_only else ""
        return [
            episode_of(row)
            for row in self._rows(f"SELECT {_EPISODE} FROM episodes {where} ORDER BY raised_ns, key")
        ]

    def episode(self, key: str) -> Episode | None:
        """Return the episode with this key."""
        with explained(self._path):
            return episode(self._connection, key)

    def consumers(self) -> list[Consumer]:
        """Return all consumers."""
        with explained(self._path):
            return consumers(self._connection)

    def progress(self, name: str) -> Progress | None:
        """Return what a consumer has had."""
        found = self._rows("SELECT number, floor FROM consumers WHERE name = ?", name)
        if not found:
            return None
        number, floor = found[0]
        settled = self._rows(
            "SELECT position FROM standings WHERE consumer = ? AND position > ? AND kind IN (?, ?)",
            number, floor, SETTLED, DEAD,
        )  # fmt: skip
        requeued = self._rows(
            f"SELECT {_ENTRY} FROM standings s JOIN alerts a USING (position)"
            " WHERE s.consumer = ? AND s.kind = ? AND s.position <= ? ORDER BY s.position",
            number, REQUEUED, floor,
        )  # fmt: skip
        tries = self._rows(
            "SELECT position, tries FROM standings WHERE consumer = ? AND kind IN (?, ?) AND tries > 0",
            number, TRIED, REQUEUED,
        )  # fmt: skip
        return Progress(
            floor, frozenset(position for (position,) in settled), tuple(_entries(requeued)), dict(tries)
        )

    def dead_letters(self, name: str | None = None, limit: int | None = None) -> list[DeadLetter]:
        """Return dead letters of one consumer or of all."""
        rows = self._rows(
            f"SELECT c.name, s.tries, s.at_ns, {_ENTRY} FROM standings s"
            " JOIN consumers c ON c.number = s.consumer JOIN alerts a USING (position)"
            f" WHERE s.kind = {DEAD} AND c.name = coalesce(?, c.name) ORDER BY c.name, s.position"
            " LIMIT ?",
            name,
            -1 if limit is None else limit,
        )
        return [DeadLetter(consumer, _entry(*entry), tries, at_ns) for consumer, tries, at_ns, *entry in rows]

    def dead_letter_counts(self) -> dict[str, int]:
        """Return how many dead letters each consumer has."""
        return dict(
            self._rows(
                "SELECT c.name, count(s.position) FROM consumers c"
                f" LEFT JOIN standings s ON s.consumer = c.number AND s.kind = {DEAD} GROUP BY c.number"
            )
        )

    def silences(self) -> list[Silence]:
        """Return all silences."""
        return [
            _silence.decode(body)
            for (body,) in self._rows("SELECT body FROM silences ORDER BY starts_ns, id")
        ]

    def audit(self, after: int, limit: int) -> list[AuditRecord]:
        """Return records of the audit trail."""
        rows = self._rows(
            f"SELECT {_AUDIT} FROM audit WHERE number > ? ORDER BY number LIMIT ?", after, limit
        )
        return _records(rows)

    def newest_audit(self, limit: int, subject: str | None = None) -> list[AuditRecord]:
        """Return the newest ``limit`` records of the audit trail, or of one subject, oldest first."""
        sql = f"SELECT {_AUDIT} FROM audit WHERE subject = coalesce(?, subject) ORDER BY number DESC LIMIT ?"
        return _records(self._rows(sql, subject, limit))[::-1]

    def escalations(self) -> tuple[int | None, list[Pending]]:
        """Return up to where the log was read for escalations, None if never, and those kept."""
        there = self._rows("SELECT 1 FROM sqlite_schema WHERE name = 'escalation_position'")
        if not there:  # a log of an older release, which is only read
            return None, []
        position = self._rows("SELECT position FROM escalation_position")
        kept = self._rows("SELECT body FROM escalations ORDER BY name, key")
        return position[0][0] if position else None, [_pending.decode(body) for (body,) in kept]

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        with explained(self._path):
            return self._connection.execute(sql, values).fetchall()


def consumers(connection: apsw.Connection, name: str | None = None) -> list[Consumer]:
    """Return one consumer, or all by name."""
    # All columns: a log of an older release, which is only read, lacks the last ones.
    sql = "SELECT * FROM consumers WHERE name = coalesce(?, name) ORDER BY name"
    return [_consumer(*row) for row in connection.execute(sql, (name,))]


def _consumer(
    _: int,
    name: str,
    start: Any,
    patterns: str,
    created_ns: int,
    floor: int,
    symbols: str | None = None,
    former: str = "[]",
) -> Consumer:
    texts = tuple(msgspec.json.decode(patterns))
    entitled = ALL_SYMBOLS if symbols is None else _texts(symbols)
    return Consumer(name, start, texts, created_ns, floor, entitled, _former.decode(former))


@lru_cache(maxsize=CACHED)
def _texts(encoded: str) -> tuple[str, ...]:
    """Return the texts of a JSON array; cached, since a consumer is read for each acknowledgement."""
    return tuple(msgspec.json.decode(encoded))


def episode(connection: apsw.Connection, key: str) -> Episode | None:
    """Return the episode with this key."""
    row: Any = connection.execute(f"SELECT {_EPISODE} FROM episodes WHERE key = ?", (key,)).fetchone()
    return row and episode_of(row)


def episode_of(row: Any) -> Episode:
    """Return the episode in the columns of ``row``."""
    key, rule, symbol, severity, raised_ns, shown, *rest = row
    return Episode(key, rule, symbol, severity, raised_ns, bool(shown), *rest)


def entries(connection: apsw.Connection, sql: str, values: tuple[Any, ...]) -> list[Entry]:
    """Return entries of the rows of alerts, named ``a``, for which the condition ``sql`` holds."""
    return _entries(connection.execute(f"SELECT {_ENTRY} FROM alerts a WHERE {sql}", values))


def _records(rows: Iterable[Any]) -> list[AuditRecord]:
    return [
        AuditRecord(number, at_ns, action, subject, by, detail and msgspec.json.decode(detail))
        for number, at_ns, action, subject, by, detail in rows
    ]


def _entries(rows: Iterable[Any]) -> list[Entry]:
    return [_entry(*row) for row in rows]


def _entry(position: int, body: str, at_ns: int, mark: Any) -> Entry:
    return Entry(position, _alert.decode(body), at_ns, mark)
