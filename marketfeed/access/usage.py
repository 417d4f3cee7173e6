"""Usage: what was sent to each user, by day. Pure.

A user is a tenant and a `sub`. The processes that serve sessions report what each user got since their last
report; the engine adds the reports up in a :class:`Book`, and writes them to the file of usage_file.py.

    sessions of each process ──► Report, every 20 s ──► Book, in the engine ──► file, at most 30 s later
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marketfeed.access.grant import Grant

DAY_S: Final = 86_400
ALERTS: Final = "alerts"  # the channel of alerts, where the number of ticks is that of alerts
OLD_S: Final = 60.0  # age of an interval that says nothing of the present rate
MAX_USERS: Final = 1000  # of a report
MAX_SETS_BYTES: Final = 1 << 23  # of a report

Counts = dict[tuple[str, str], tuple[int, int]]  # ticks and bytes by tier and channel


class User(NamedTuple):
    """Who is metered."""

    tenant: str
    sub: str


def user_of(grant: Grant) -> User:
    """Return the holder of a grant."""
    return User(grant.claims.tenant, grant.claims.sub)


def day_of(now_s: float) -> int:
    """Return the UTC day of a Unix time, as a number of days since 1970."""
    return int(now_s // DAY_S)


class UserReport(msgspec.Struct, array_like=True):
    """What one user got since the last report, and which of a report's sets of symbols are new to it."""

    tenant: str
    sub: str
    counts: Counts = {}
    sets: list[int] = []


class Interval(NamedTuple):
    """The time between two sweeps of one process, within a UTC day; Unix times in seconds."""

    began_s: float
    ended_s: float

    @property
    def day(self) -> int:
        """Return the day; an interval that ends at midnight belongs to the day before."""
        return day_of(self.began_s)


class Report(msgspec.Struct, array_like=True):
    """What users got in an interval. A process may send several for the same interval.

    Each of ``sets`` is an array of symbol ids, uint32 little-endian; many users have the same.
    """

    interval: Interval
    sets: list[bytes] = []
    users: list[UserReport] = []


def plus(counts: Counts, more: Counts) -> None:
    """Add ``more`` to ``counts``."""
    for key, (ticks, size) in more.items():
        had = counts.get(key, (0, 0))
        counts[key] = (had[0] + ticks, had[1] + size)


@dataclass(slots=True)
class Unwritten:
    """What of one user's day is not in the file yet. ``sets`` are those of reports."""

    counts: Counts = field(default_factory=dict)
    peak: int = 0  # most sessions at a time
    sets: set[bytes] = field(default_factory=set)

    def add(self, other: Unwritten) -> None:
        """Add ``other``."""
        plus(self.counts, other.counts)
        self.peak = max(self.peak, other.peak)
        self.sets |= other.sets


Batch = dict[tuple[int, User], Unwritten]  # by day and user


@dataclass(slots=True)
class Totals:
    """Ticks and bytes of one tenant, as quotas limit them; alerts count by their bytes."""

    ticks: int = 0
    sent_bytes: int = 0

    def add(self, counts: Counts) -> None:
        """Add what was sent."""
        self.ticks += sum(ticks for (_, channel), (ticks, _) in counts.items() if channel != ALERTS)
        self.sent_bytes += sum(size for _, size in counts.values())


class Book:
    """Usage of all users: what is not written yet, and what metrics and quotas need.

    ``today`` has the totals by tenant of ``day``, ``sums`` those since the start by tenant, tier and channel.
    """

    def __init__(self, now_s: float, today: dict[str, Totals] | None = None) -> None:
        """``today`` is what the file has of the day of ``now_s``."""
        self.day = day_of(now_s)
        self.today = today or {}
        self.sums: dict[tuple[str, str, str], tuple[int, int]] = {}
        self.sessions: Counter[User] = Counter()  # now
        self._unwritten: Batch = {}
        # Ticks by tenant in the last interval of each process.
        self._last: dict[int, tuple[Interval, Counter[str]]] = {}

    def __len__(self) -> int:
        """Return for how many users and days something is not written yet."""
        return len(self._unwritten)

    def add(self, report: Report, now_s: float, process: int = 0) -> None:
        """Add a report of a process."""
        self.turn(now_s)
        day = report.interval.day
        last = self._last.get(process)
        if last is None or last[0] != report.interval:
            last = self._last[process] = (report.interval, Counter())
        for one in report.users:
            unwritten = self._of(day, User(one.tenant, one.sub))
            plus(unwritten.counts, one.counts)
            unwritten.sets.update(report.sets[number] for number in one.sets)
            for (tier, channel), (ticks, size) in one.counts.items():
                had = self.sums.get((one.tenant, tier, channel), (0, 0))
                self.sums[one.tenant, tier, channel] = (had[0] + ticks, had[1] + size)
            got = Totals()
            got.add(one.counts)
            last[1][one.tenant] += got.ticks
            if day == self.day:
                today = self.today.setdefault(one.tenant, Totals())
                today.ticks += got.ticks
                today.sent_bytes += got.sent_bytes

    def rates(self, now_s: float) -> dict[str, float]:
        """Return the ticks a second by tenant, in the last interval of each process."""
        rates: dict[str, float] = {}
        for interval, ticks in self._last.values():
            seconds = interval.ended_s - interval.began_s
            if seconds <= 0 or now_s - interval.ended_s > OLD_S:
                continue
            for tenant, number in ticks.items():
                rates[tenant] = rates.get(tenant, 0.0) + number / seconds
        return rates

    def count_sessions(self, user: User, number: int, now_s: float) -> None:
        """Record that ``user`` has ``number`` sessions now."""
        self.turn(now_s)
        if not number:
            self.sessions.pop(user, None)
            return
        self.sessions[user] = number
        unwritten = self._of(self.day, user)
        unwritten.peak = max(unwritten.peak, number)

    def turn(self, now_s: float) -> None:
        """Begin a new day, if there is one: the peak of each user is then the number of its open sessions."""
        day = day_of(now_s)
        if day <= self.day:  # a clock that was set back does not end a day twice
            return
        self.day, self.today = day, {}
        for user, number in self.sessions.items():
            self._of(day, user).peak = number

    def take(self) -> Batch:
        """Return what is not written, to be written; :meth:`put_back` what could not be."""
        batch, self._unwritten = self._unwritten, {}
        return batch

    def put_back(self, batch: Batch) -> None:
        """Keep what could not be written."""
        for (day, user), one in batch.items():
            self._of(day, user).add(one)

    def unwritten(self, days: Iterable[int]) -> Batch:
        """Return what is not written of some days."""
        wanted = set(days)
        return {key: one for key, one in self._unwritten.items() if key[0] in wanted}

    def _of(self, day: int, user: User) -> Unwritten:
        found = self._unwritten.get((day, user))
        if found is None:
            found = self._unwritten[day, user] = Unwritten()
        return found
