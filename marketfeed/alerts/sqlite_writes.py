"""Changes of the SQLite alert log, made inside transactions of the caller. Blocking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from marketfeed.alerts.log import EXPIRED, Acknowledged, Appended, Consumer, Entry, Episode
from marketfeed.alerts.sqlite_file import DEAD, PUBLISHER, REQUEUED, SETTLED, TRIED
from marketfeed.alerts.sqlite_reads import consumers, entries, episode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import apsw

    from marketfeed.alerts.alert import Alert
    from marketfeed.alerts.escalation.pending import Key, Pending
    from marketfeed.alerts.log import Action, Mark, Silence, Start

_encoder = msgspec.json.Encoder()


def forget_silences(connection: apsw.Connection, now_ns: int) -> None:
    """Remove silences that have ended, except the newest."""
    connection.execute(
        "DELETE FROM silences WHERE id IN (SELECT id FROM silences WHERE ends_ns <= ?"
        " ORDER BY ends_ns DESC, id DESC LIMIT -1 OFFSET ?)",
        (now_ns, EXPIRED),
    )


def encoded(value: Any) -> str:
    """Return ``value`` in JSON; raises TypeError for what JSON cannot express."""
    return _encoder.encode(value).decode()


class Changes:
    """The changes; no method begins or ends a transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def append(self, alerts: Sequence[Alert], marks: Mapping[str, Mark], now_ns: int) -> list[Appended]:
        """Keep alerts."""
        appended = []
        head = self._head()
        for alert in alerts:
            if known := self._known(alert):
                appended.append(Appended(known[1], known[0], False))
                continue
            head += 1
            mark = self._in_episode(alert, marks.get(alert.id), head, now_ns)
            values = (head, alert.id, now_ns, mark, encoded(alert))
            self._do("INSERT INTO alerts VALUES (?, ?, ?, ?, ?)", *values)
            appended.append(Appended(alert.id, head, True, mark))
        return appended

    def _known(self, alert: Alert) -> Any:
        """Return position and id of the entry of ``alert``, or of what was kept in its place; None without.

        That is its publisher's notice with its key, or what ended its episode.
        """
        known = self._one("SELECT position, id FROM alerts WHERE id = ?", alert.id)
        if known is None and alert.state == "notice":
            known = self._one(
                "SELECT position, id FROM alerts"
                f" WHERE body ->> '$.state' = 'notice' AND body ->> '$.key' = ? AND {PUBLISHER} = ?",
                alert.key, alert.publisher,
            )  # fmt: skip
        elif known is None and alert.state == "cleared":
            # As the episodes of a killed engine are cleared at the start: if the ticks come again, their
            # raised is known, and what clears it then is another alert.
            known = self._one(
                "SELECT a.position, a.id FROM episodes e JOIN alerts a ON a.position = e.last_position"
                " WHERE e.key = ? AND e.cleared_ns > 0",
                alert.key,
            )
        return known

    def _in_episode(self, alert: Alert, mark: Mark | None, position: int, now_ns: int) -> Mark | None:
        """Keep the episode of ``alert`` up to date; return the mark that it gets."""
        if alert.state == "raised":
            self._do(
                "INSERT INTO episodes (key, rule, symbol, severity, raised_ns, shown, last_position)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE"
                " SET shown = max(shown, excluded.shown), last_position = excluded.last_position",
                alert.key, alert.rule, alert.symbol, alert.severity, now_ns, mark is None, position,
            )  # fmt: skip
        elif alert.state == "cleared":
            found = self._one(
                "UPDATE episodes SET cleared_ns = ?, last_position = ? WHERE key = ? RETURNING shown",
                now_ns, position, alert.key,
            )  # fmt: skip
            if found and found[0]:
                return None
        return mark

    def use_consumer(
        self, name: str, now_ns: int, start: Start, patterns: Sequence[str], symbols: Sequence[str]
    ) -> Consumer:
        """Create a consumer, or replace its patterns and symbols."""
        head = self._head()
        known = consumers(self._connection, name)
        former = known[0].former_once(patterns, head) if known else ()
        self._do(
            "INSERT INTO consumers (name, start, patterns, symbols, former, created_ns, floor)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE"
            " SET patterns = excluded.patterns, symbols = excluded.symbols, former = excluded.former",
            name, start, encoded(patterns), encoded(symbols), encoded(former), now_ns,
            head if start == "now" else 0,
        )  # fmt: skip
        return consumers(self._connection, name)[0]

    def drop_consumer(self, name: str, now_ns: int, by: str) -> bool:
        """Remove a consumer."""
        dropped = self._one("DELETE FROM consumers WHERE name = ? RETURNING number", name)
        if dropped:
            self._do("DELETE FROM standings WHERE consumer = ?", dropped[0])
            self._record(now_ns, "dropped", name, by)
        return bool(dropped)

    def acknowledge(self, name: str, ids: Sequence[str], now_ns: int) -> Acknowledged:
        """Settle alerts of a consumer."""
        found = self._consumer(name)
        if found is None:
            return Acknowledged((), (), tuple(ids))
        number, consumer = found
        known: list[str] = []
        positions: list[int] = []
        for alert in ids:
            entry = next(iter(entries(self._connection, "id = ?", (alert,))), None)
            if entry and self._standing(number, consumer, entry) in (TRIED, REQUEUED, DEAD):
                self._settle(number, consumer, entry.position, now_ns)
                known.append(alert)
                positions.append(entry.position)
        if known:
            self._record(now_ns, "acknowledged", name, detail=known)
        settled = set(known)
        unknown = tuple(alert for alert in ids if alert not in settled)
        return Acknowledged(tuple(known), tuple(positions), unknown)

    def attempts(self, name: str, tries: Mapping[int, int]) -> None:
        """Keep the number of deliveries of unsettled positions."""
        found = self._consumer(name)
        if found is None:
            return
        number, consumer = found
        for position, count in tries.items():
            if position > consumer.floor:
                self._do(
                    "INSERT INTO standings VALUES (?, ?, ?, ?, 0) ON CONFLICT DO UPDATE"
                    " SET tries = excluded.tries WHERE kind IN (?, ?)",
                    number, position, TRIED, count, TRIED, REQUEUED,
                )  # fmt: skip
            else:
                self._do(
                    "UPDATE standings SET tries = ? WHERE consumer = ? AND position = ? AND kind = ?",
                    count, number, position, REQUEUED,
                )  # fmt: skip

    def advance(self, name: str, floor: int) -> None:
        """Raise a floor, and forget what is settled below it."""
        raised = self._one(
            "UPDATE consumers SET floor = min(?, (SELECT coalesce(max(position), 0) FROM alerts))"
            " WHERE name = ? AND floor < ? RETURNING number, floor",
            floor, name, floor,
        )  # fmt: skip
        if raised:
            self._do(
                "DELETE FROM standings WHERE consumer = ? AND position <= ? AND kind IN (?, ?)",
                *raised, TRIED, SETTLED,
            )  # fmt: skip

    def park(self, name: str, tries: Mapping[int, int], now_ns: int) -> list[int]:
        """Make dead letters."""
        found = self._consumer(name)
        if found is None:
            return []
        number, consumer = found
        parked = {}
        for position, count in tries.items():
            entry = next(iter(entries(self._connection, "position = ?", (position,))), None)
            if entry and self._standing(number, consumer, entry) in (TRIED, REQUEUED):
                self._do(
                    "INSERT OR REPLACE INTO standings VALUES (?, ?, ?, ?, ?)",
                    number, position, DEAD, count, now_ns,
                )  # fmt: skip
                parked[position] = entry.alert.id
        if parked:
            self._record(now_ns, "parked", name, detail=list(parked.values()))
        return list(parked)

    def requeue(self, name: str, ids: Sequence[str], now_ns: int, by: str) -> list[Entry]:
        """Make dead letters unsettled again."""
        found = self._consumer(name)
        if found is None:
            return []
        number, consumer = found
        requeued = []
        for alert in ids:
            entry = next(iter(entries(self._connection, "id = ?", (alert,))), None)
            if entry and consumer.may_have(entry) and self._one(
                "UPDATE standings SET kind = ?, tries = 0 WHERE consumer = ? AND position = ? AND kind = ?"
                " RETURNING 1",
                REQUEUED, number, entry.position, DEAD,
            ):  # fmt: skip
                requeued.append(entry)
        if requeued:
            self._record(now_ns, "requeued", name, by, [entry.alert.id for entry in requeued])
        return requeued

    def resolve(self, key: str, by: str, comment: str, now_ns: int) -> Episode | None:
        """Record who took on an episode."""
        if self._one(
            "UPDATE episodes SET resolved_ns = ?, resolved_by = ?, comment = ?"
            " WHERE key = ? AND resolved_ns = 0 RETURNING 1",
            now_ns, by, comment, key,
        ):  # fmt: skip
            self._record(now_ns, "resolved", key, by, comment)
        return episode(self._connection, key)

    def add_silence(self, silence: Silence, now_ns: int) -> None:
        """Keep a silence."""
        self._do(
            "INSERT OR REPLACE INTO silences VALUES (?, ?, ?, ?)",
            silence.id, silence.starts_ns, silence.ends_ns, encoded(silence),
        )  # fmt: skip
        self._record(now_ns, "silenced", silence.id, silence.created_by, silence)
        forget_silences(self._connection, now_ns)

    def expire_silence(self, silence: str, now_ns: int, by: str) -> bool:
        """End a silence."""
        found = self._one(
            "UPDATE silences SET ends_ns = ?, body = json_set(body, '$.ends_ns', ?)"
            " WHERE id = ? AND ends_ns > ? RETURNING 1",
            now_ns, now_ns, silence, now_ns,
        )  # fmt: skip
        if found:
            self._record(now_ns, "expired", silence, by)
        return bool(found)

    def keep_escalations(self, position: int | None, changes: Mapping[Key, Pending | None]) -> None:
        """Keep escalations, and up to where the log was read for them."""
        for (name, key), pending in changes.items():
            if pending is None:
                self._do("DELETE FROM escalations WHERE name = ? AND key = ?", name, key)
            else:
                self._do("INSERT OR REPLACE INTO escalations VALUES (?, ?, ?)", name, key, encoded(pending))
        if position is None:
            self._do("DELETE FROM escalation_position")
        else:
            self._do("INSERT OR REPLACE INTO escalation_position VALUES (1, ?)", position)

    def _standing(self, number: int, consumer: Consumer, entry: Entry) -> int:
        """Return the standing of ``entry`` with a consumer; SETTLED if it is none of its."""
        found = self._one(
            "SELECT kind FROM standings WHERE consumer = ? AND position = ?", number, entry.position
        )
        if found:
            return int(found[0])
        return TRIED if entry.position > consumer.floor and consumer.wants(entry) else SETTLED

    def _settle(self, number: int, consumer: Consumer, position: int, now_ns: int) -> None:
        if position > consumer.floor:
            values = (number, position, SETTLED, 0, now_ns)
            self._do("INSERT OR REPLACE INTO standings VALUES (?, ?, ?, ?, ?)", *values)
        else:
            self._do("DELETE FROM standings WHERE consumer = ? AND position = ?", number, position)

    def _consumer(self, name: str) -> tuple[int, Consumer] | None:
        found = self._one("SELECT number FROM consumers WHERE name = ?", name)
        return found and (int(found[0]), consumers(self._connection, name)[0])

    def _record(self, now_ns: int, action: Action, subject: str, by: str = "", detail: Any = None) -> None:
        self._do(
            "INSERT INTO audit (at_ns, action, subject, by, detail) VALUES (?, ?, ?, ?, ?)",
            now_ns, action, subject, by, None if detail is None else encoded(detail),
        )  # fmt: skip

    def _head(self) -> int:
        """Return the newest position."""
        return int(self._one("SELECT coalesce(max(position), 0) FROM alerts")[0])

    def _one(self, sql: str, *values: Any) -> Any:
        """Run ``sql`` to its end; return its first row, or None."""
        rows: Iterable[Any] = self._connection.execute(sql, values).fetchall()
        return next(iter(rows), None)

    def _do(self, sql: str, *values: Any) -> None:
        self._connection.execute(sql, values)
