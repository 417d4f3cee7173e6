"""Running feeds: construction from their tables, start, and replacement while other feeds run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
import trio

from marketfeed.errors import ConfigError, ContentError
from marketfeed.ingest.clock import ReplayClock, Seat
from marketfeed.ingest.registry import FeedSpec, read_specs
from marketfeed.ingest.supervise import FeedState, Supervisor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from marketfeed.ingest.pump import FeedIntake, Pump

_KEYED: Final = re.compile(r"[a-z_][\w.]*(, [a-z_][\w.]*)*: ")  # a mistake with leading keys

log = structlog.get_logger()


@dataclass(slots=True)
class _Entry:
    """A feed that runs or is planned."""

    spec: FeedSpec
    intake: FeedIntake
    supervisor: Supervisor
    seat: Seat | None  # at its replay clock, if any
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)

    async def run(self) -> None:
        try:
            with self.scope:
                await self.supervisor.run()
        finally:
            if self.seat is not None:
                self.seat.leave()
            self.ended.set()


class Roster:
    """All feeds by name. ``wait_sessions(count)`` returns once that many sessions are synced."""

    def __init__(
        self,
        pump: Pump,
        base: Path,
        wait_sessions: Callable[[int], Awaitable[None]],
        runs: bool = True,
    ) -> None:
        """Unless ``runs``, feeds are planned, which checks their settings, and do not run."""
        self._pump = pump
        self._runs = runs
        self.stopped = False  # all feeds, by stop()
        self._base = base
        self._wait_sessions = wait_sessions
        self._entries: dict[str, _Entry] = {}
        self._planned: dict[str, _Entry] = {}
        self._new: list[FeedIntake] = []  # intakes of planned feeds
        self.required: frozenset[str] = frozenset()  # feeds that must be live for readiness
        self._planned_required: frozenset[str] = frozenset()
        self._clocks: dict[str, ReplayClock] = {}

    @property
    def supervisors(self) -> list[Supervisor]:
        """Supervisors of all feeds, in the order of the configuration."""
        return [entry.supervisor for entry in self._entries.values()]

    @property
    def planned(self) -> list[str]:
        """Names of the planned feeds, in the order of the configuration."""
        return list(self._planned)

    def plan(self, tables: Sequence[dict[str, Any]], addresses: Mapping[str, str] | None = None) -> None:
        """Construct the new and changed feeds of the ``[[feeds]]`` tables, for :meth:`apply`.

        ``addresses`` maps addresses in use to the configuration keys that define them.
        Raises ConfigError with all mistakes (``feeds.0.key: …``); nothing is then planned.
        """
        self.forget()
        specs, found = read_specs(tables)
        for index, spec in specs.items():
            runs = self._entries.get(spec.name)
            if spec.wrong:
                found += self._further_mistakes(index, spec, runs)
                continue
            if runs is not None and replace(runs.spec, required=spec.required) == spec:
                self._planned[spec.name] = self._again(spec, runs)
                continue
            try:
                self._planned[spec.name] = self._entry(spec, runs)
            except ConfigError as error:
                found += (_placed(index, mistake) for mistake in error.mistakes)
        found += self._clock_mistakes(specs)
        found += self._address_mistakes(specs, dict(addresses or {}))
        if found:
            self.forget()
            raise ConfigError(*found)
        self._planned_required = frozenset(spec.name for spec in specs.values() if spec.required)

    def _further_mistakes(self, index: int, spec: FeedSpec, runs: _Entry | None) -> list[str]:
        """Return the mistakes that construction finds in the valid keys of a table with mistakes."""
        try:
            self._entry(spec, runs)
        except ContentError:  # possibly caused by the missing invalid keys
            return []
        except ConfigError as error:
            right = {field.encode_name for field in msgspec.structs.fields(spec.settings)} - spec.wrong
            keys = [re.split("[:.]", mistake, maxsplit=1)[0] for mistake in error.mistakes]
            return [_placed(index, m) for m, key in zip(error.mistakes, keys, strict=True) if key in right]
        return []

    def _again(self, spec: FeedSpec, runs: _Entry) -> _Entry:
        """Return the running feed ``runs`` of an unchanged ``spec``, or a new one if it failed.

        A damaged file may have been repaired; if not, the failed feed is kept.
        """
        if runs.supervisor.state() is not FeedState.FAILED and not self.stopped:
            return runs
        try:
            return self._entry(spec, runs)
        except ConfigError as error:
            runs.intake.log.error("feed cannot be run again", reason=str(error))
            return runs

    def _entry(self, spec: FeedSpec, runs: _Entry | None) -> _Entry:
        """Construct a feed, the successor of ``runs`` if given; raises ConfigError."""
        # A feed of the same name is the same feed, changed; it keeps its counters.
        intake = runs.intake if runs is not None else self._pump.intake(spec.name, self._base)
        if runs is None:
            self._new.append(intake)
        intake.taken_seat()  # of an earlier, refused plan
        try:
            with intake.held():  # the ConfigError reports names that the feed refuses
                feed = spec.factory(spec.settings, intake)
        except ConfigError:
            raise
        except Exception as error:  # third-party code must not end an engine that reloads
            intake.log.debug("feed cannot be made", exc_info=error)
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigError(f"the feed cannot be constructed: {why}") from error
        return _Entry(spec, intake, Supervisor(feed, intake, self._wait_sessions), intake.taken_seat())

    def _address_mistakes(self, specs: Mapping[int, FeedSpec], taken: dict[str, str]) -> Iterator[str]:
        """Yield a mistake per planned feed whose address is ``taken`` or another feed's."""
        for index, spec in specs.items():
            entry = self._planned.get(spec.name)
            address = None if entry is None else getattr(entry.supervisor.feed, "listens", None)
            where = f"feeds.{index}.listen"
            if address is not None and taken.setdefault(address, where) != where:
                yield f"{where}: {address} is already the address of {taken[address]}"

    def _clock_mistakes(self, specs: Mapping[int, FeedSpec]) -> Iterator[str]:
        """Yield a mistake for each planned feed whose speed or loop differs from its clock's."""
        first: dict[str, tuple[str, Seat]] = {}
        for index, spec in specs.items():
            entry = self._planned.get(spec.name)
            seat = None if entry is None else entry.seat
            if seat is None or not seat.name:
                continue
            name, other = first.setdefault(seat.name, (spec.name, seat))
            if (seat.speed, seat.loop) != (other.speed, other.loop):
                yield (
                    f"feeds.{index}.clock: feeds of clock {seat.name!r} must have the same speed and loop; "
                    f"{name} has speed {other.speed:g} and loop {str(other.loop).lower()}"
                )

    def _join_clocks(self, new: list[_Entry]) -> None:
        """Join ``new`` feeds to the clocks that they name."""
        sessions: dict[str, int] = {}
        for entry in self._entries.values():
            if entry.seat is not None and entry.seat.name:
                most = max(sessions.get(entry.seat.name, 0), entry.supervisor.start_sessions)
                sessions[entry.seat.name] = most
        for entry in new:
            if entry.seat is not None and entry.seat.name:
                entry.seat.join(self._clocks.setdefault(entry.seat.name, ReplayClock()))
                entry.supervisor.start_sessions = sessions[entry.seat.name]

    def forget(self) -> None:
        """Drop the plan."""
        for intake in self._new:
            self._pump.dismiss(intake)
        self._new = []
        self._planned = {}

    async def stop(self) -> None:
        """Stop all feeds; return when all have ended. A plan made afterwards runs all of them again."""
        self.stopped = True
        for entry in self._entries.values():
            entry.scope.cancel()
        for entry in self._entries.values():
            await entry.ended.wait()

    def count_on(self, before: Roster) -> None:
        """Have planned feeds go on with the counters of the stopped feeds of the same name of ``before``."""
        for name, entry in self._planned.items():
            if (earlier := before._entries.get(name)) is not None:
                entry.intake.ticks, entry.intake.events = earlier.intake.ticks, earlier.intake.events
                entry.supervisor.failures += earlier.supervisor.failures

    async def apply(self, nursery: trio.Nursery) -> None:
        """Run the planned feeds in ``nursery`` and stop all others; unchanged feeds keep running."""
        if not self._runs:
            self.forget()
            return
        self.stopped = False
        before, self._entries = self._entries, self._planned
        self.required = self._planned_required
        self._new = []
        self.forget()
        gone = [entry for entry in before.values() if self._entries.get(entry.spec.name) is not entry]
        for entry in gone:
            entry.scope.cancel()
        for entry in gone:  # a new feed may use the same address or file
            await entry.ended.wait()
            if entry.spec.name not in self._entries:
                self._pump.dismiss(entry.intake)
                log.info("feed removed", feed=entry.spec.name)
        self._join_clocks([entry for name, entry in self._entries.items() if before.get(name) is not entry])
        for name, entry in self._entries.items():
            if before.get(name) is not entry:
                nursery.start_soon(entry.run)
                if before:
                    log.info("feed changed" if name in before else "feed added", feed=name)


def _placed(index: int, mistake: str) -> str:
    """Prefix ``mistake`` with the path of its key, or of the table of the feed at ``index``."""
    mistake = " ".join(mistake.split())
    return f"feeds.{index}.{mistake}" if _KEYED.match(mistake) else f"feeds.{index}: {mistake}"
