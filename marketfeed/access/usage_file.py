"""Usage in the file at ``auth.path``. All calls block: the engine makes them in a thread."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from marketfeed.access.database import explained, open_for_reading, open_for_writing
from marketfeed.access.usage import ALERTS, Totals, User
from marketfeed.access.usage_report import DayOfUser

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import apsw

    from marketfeed.access.usage import Batch, Unwritten

HASH_BYTES: Final = 20  # long enough that no two sets collide
_NO_NAMES: Final[frozenset[str]] = frozenset()


class UsageWriter:
    """Writes usage. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file, or create it. Raises AccessFileError."""
        self._path = path
        self._connection = open_for_writing(path)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def totals(self, day: int) -> dict[str, Totals]:
        """Return what each tenant got on ``day``. Raises AccessFileError."""
        with explained(self._path):
            rows: list[Any] = self._connection.execute(
                "SELECT tenant, sum(iif(channel = ?, 0, ticks)), sum(bytes) FROM usage_counts "
                "WHERE day = ? GROUP BY tenant",
                (ALERTS, day),
            ).fetchall()
        return {tenant: Totals(ticks, size) for tenant, ticks, size in rows}

    def write(self, batch: Batch, names: Sequence[str]) -> None:
        """Add ``batch``, whole or not at all; ``names`` are those of symbols, by id.

        Raises AccessFileError.
        """
        with explained(self._path), self._connection:
            sets = _Sets(self._connection, names)
            for (day, user), one in batch.items():
                self._write(day, user, one, sets)
            sets.drop_replaced()

    def _write(self, day: int, user: User, one: Unwritten, sets: _Sets) -> None:
        key = (day, *user)
        row: list[Any] = self._connection.execute(
            "INSERT INTO usage (day, tenant, sub, peak) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE "
            "SET peak = max(peak, excluded.peak) RETURNING symbols",
            (*key, one.peak),
        ).fetchall()
        if one.sets:
            (had,) = row[0]
            number = sets.plus(had, frozenset(one.sets))
            if number != had:
                self._connection.execute(
                    "UPDATE usage SET symbols = ? WHERE day = ? AND tenant = ? AND sub = ?", (number, *key)
                )
        self._connection.executemany(
            "INSERT INTO usage_counts VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
            "SET ticks = ticks + excluded.ticks, bytes = bytes + excluded.bytes",
            [(*key, *what, *both) for what, both in one.counts.items()],
        )


class _Sets:
    """The sets of names of one transaction: each is built once, however many users have it."""

    def __init__(self, connection: apsw.Connection, names: Sequence[str]) -> None:
        self._connection = connection
        self._names = names
        self._named: dict[bytes, frozenset[str]] = {}  # by ids of a report
        self._numbers: dict[tuple[int | None, frozenset[bytes]], int] = {}
        self._replaced: set[int] = set()

    def plus(self, number: int | None, more: frozenset[bytes]) -> int:
        """Return the number of the set ``number`` (None: empty) with ``more``, arrays of ids."""
        found = self._numbers.get((number, more))
        if found is None:
            names = frozenset[str]().union(_names_of(self._connection, number), *map(self._resolved, more))
            found = self._numbers[number, more] = self._number(names)
        if number is not None and found != number:
            self._replaced.add(number)
        return found

    def drop_replaced(self) -> None:
        """Remove sets that grew, and that no user has any more."""
        self._connection.executemany(
            "DELETE FROM symbol_sets WHERE number = ?1 AND NOT EXISTS "
            "(SELECT 1 FROM usage WHERE symbols = ?1)",
            [(number,) for number in self._replaced],
        )

    def _resolved(self, ids: bytes) -> frozenset[str]:
        if ids not in self._named:
            self._named[ids] = names_of_ids(ids, self._names)
        return self._named[ids]

    def _number(self, names: frozenset[str]) -> int:
        text = ",".join(sorted(names))
        key = blake2b(text.encode(), digest_size=HASH_BYTES).digest()
        # Not DO NOTHING: that returns no row.
        rows: list[Any] = self._connection.execute(
            "INSERT INTO symbol_sets (hash, names) VALUES (?, ?) ON CONFLICT DO UPDATE "
            "SET hash = excluded.hash RETURNING number",
            (key, text),
        ).fetchall()
        return int(rows[0][0])


def names_of_ids(ids: bytes, names: Sequence[str]) -> frozenset[str]:
    """Return the names of an array of symbol ids, as reports have it."""
    return frozenset(names[number] for number in np.frombuffer(ids, "<u4").tolist())


def read_days(path: Path, first: int, last: int, tenant: str | None = None) -> list[DayOfUser]:
    """Return the usage of each user on the days ``first`` to ``last``, in order. Raises AccessFileError."""
    connection = open_for_reading(path)
    try:
        with explained(path), connection:  # one state of the file for both queries
            found = list(_read(connection, first, last, tenant))
    finally:
        connection.close()
    return found


def _read(connection: apsw.Connection, first: int, last: int, tenant: str | None) -> Iterator[DayOfUser]:
    where, values = "WHERE day BETWEEN ? AND ?", [first, last]
    more: list[int | str] = [*values]
    if tenant is not None:
        where, more = f"{where} AND tenant = ?", [*values, tenant]
    order = "ORDER BY day, tenant, sub"
    sets: dict[int | None, frozenset[str]] = {None: _NO_NAMES}
    days: dict[tuple[int, str, str], DayOfUser] = {}
    for day, of, sub, peak, number in connection.execute(
        f"SELECT day, tenant, sub, peak, symbols FROM usage {where} {order}", more
    ):
        if number not in sets:
            sets[number] = _names_of(connection, number)
        days[day, of, sub] = DayOfUser(day, User(of, sub), peak, sets[number])
    for day, of, sub, tier, channel, ticks, size in connection.execute(
        f"SELECT day, tenant, sub, tier, channel, ticks, bytes FROM usage_counts {where}", more
    ):
        if (one := days.get((day, of, sub))) is not None:
            one.counts[tier, channel] = (ticks, size)
    yield from days.values()


def _names_of(connection: apsw.Connection, number: int | None) -> frozenset[str]:
    if number is None:
        return _NO_NAMES
    query = "SELECT names FROM symbol_sets WHERE number = ?"
    rows: list[Any] = connection.execute(query, (number,)).fetchall()
    return frozenset(rows[0][0].split(",")) if rows else _NO_NAMES
