"""The feeds that run: made from their tables, started, exchanged while others run on."""

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

_KEYED: Final = re.compile(r"[a-z_][\w.]*(, [a-z_][\w.]*)*: ")  # a mistake that begins with its keys

log = structlog.get_logger()


@dataclass(slots=True)
class _Entry:
    """A feed that runs, or is about to."""

    spec: FeedSpec
    intake: FeedIntake
    supervisor: Supervisor
    seat: Seat | None  # at a clock, which may be shared
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

    def __init__(self, pump: Pump, base: Path, wait_sessions: Callable[[int], Awaitable[None]]) -> None:
        self._pump = pump
        self._base = base
        self._wait_sessions = wait_sessions
        self._entries: dict[str, _Entry] = {}
        self._planned: dict[str, _Entry] = {}
        self._new: list[FeedIntake] = []  # of what is planned
        self.required: frozenset[str] = (
            frozenset()
        )  # names of the feeds without which the engine is not ready
        self._planned_required: frozenset[str] = frozenset()
        self._clocks: dict[str, ReplayClock] = {}

    @property
    def supervisors(self) -> list[Supervisor]:
        """Return the supervisors of all feeds, in the configuration's order."""
        return [entry.supervisor for entry in self._entries.values()]

    @property
    def planned(self) -> list[str]:
        """Return the names of the feeds that are planned, in the configuration's order."""
        return list(self._planned)

    def plan(self, tables: Sequence[dict[str, Any]], addresses: Mapping[str, str] | None = None) -> None:
        """Make the feeds of the ``[[feeds]]`` tables that do not run yet, for :meth:`apply`.

        ``addresses`` are those that no feed can listen at, each with the key that it is from.
        Raises ConfigError with all mistakes (``feeds.0.key: …``), with nothing planned.
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
        """Return what else is wrong with a feed whose table has mistakes: of keys that are right, alone."""
        try:
            self._entry(spec, runs)
        except ContentError:  # perhaps as it is read without the keys that are wrong
            return []
        except ConfigError as error:
            right = {field.encode_name for field in msgspec.structs.fields(spec.settings)} - spec.wrong
            keys = [re.split("[:.]", mistake, maxsplit=1)[0] for mistake in error.mistakes]
            return [_placed(index, m) for m, key in zip(error.mistakes, keys, strict=True) if key in right]
        return []

    def _again(self, spec: FeedSpec, runs: _Entry) -> _Entry:
        """Return the feed that ``spec`` means while ``runs`` does: the same, or a new one if it has failed.

        The file that was damaged may have been mended; if not, the failed feed stays as it is.
        """
        if runs.supervisor.state() is not FeedState.FAILED:
            return runs
        try:
            return self._entry(spec, runs)
        except ConfigError as error:
            runs.intake.log.error("feed cannot be run again", reason=str(error))
            return runs

    def _entry(self, spec: FeedSpec, runs: _Entry | None) -> _Entry:
        """Make a feed, the successor of ``runs`` where there is one; raises ConfigError."""
        # One of the same name is the same feed, changed: its counters go on.
        intake = runs.intake if runs is not None else self._pump.intake(spec.name, self._base)
        if runs is None:
            self._new.append(intake)
        intake.taken_seat()  # of an earlier plan that was refused
        try:
            with intake.held():  # a name that the feed refuses is told by its ConfigError
                feed = spec.factory(spec.settings, intake)
        except ConfigError:
            raise
        except Exception as error:  # a third party's: it must not end an engine that reloads
            intake.log.debug("feed cannot be made", exc_info=error)
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigError(f"it cannot be made: {why}") from error
        return _Entry(spec, intake, Supervisor(feed, intake, self._wait_sessions), intake.taken_seat())

    def _address_mistakes(self, specs: Mapping[int, FeedSpec], taken: dict[str, str]) -> Iterator[str]:
        """Yield which of the planned feeds listen at an address that is ``taken`` or another feed's."""
        for index, spec in specs.items():
            entry = self._planned.get(spec.name)
            address = None if entry is None else getattr(entry.supervisor.feed, "listens", None)
            where = f"feeds.{index}.listen"
            if address is not None and taken.setdefault(address, where) != where:
                yield f"{where}: {address} is the address of {taken[address]} too"

    def _clock_mistakes(self, specs: Mapping[int, FeedSpec]) -> Iterator[str]:
        """Yield which of the planned feeds share a clock and differ in speed or loop."""
        first: dict[str, tuple[str, Seat]] = {}
        for index, spec in specs.items():
            entry = self._planned.get(spec.name)
            seat = None if entry is None else entry.seat
            if seat is None or not seat.name:
                continue
            name, other = first.setdefault(seat.name, (spec.name, seat))
            if (seat.speed, seat.loop) != (other.speed, other.loop):
                yield (
                    f"feeds.{index}.clock: {seat.name!r} is the clock of {name} too, which has "
                    f"speed {other.speed:g} and loop {str(other.loop).lower()}; it needs the same here"
                )

    def _join_clocks(self, new: list[_Entry]) -> None:
        """Let ``new`` feeds share the clocks that they name."""
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
        """Drop what was planned and not applied."""
        for intake in self._new:
            self._pump.dismiss(intake)
        self._new = []
        self._planned = {}

    async def apply(self, nursery: trio.Nursery) -> None:
        """Let what was planned run in ``nursery``, and nothing else; feeds that stay as they are run on."""
        before, self._entries = self._entries, self._planned
        self.required = self._planned_required
        self._new = []
        self.forget()
        gone = [entry for entry in before.values() if self._entries.get(entry.spec.name) is not entry]
        for entry in gone:
            entry.scope.cancel()
        for entry in gone:  # one of the same address or file may be among those to come
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
    """Return a ``mistake`` of the feed at ``index``, with the path of its key or of the feed's table."""
    mistake = " ".join(mistake.split())
    return f"feeds.{index}.{mistake}" if _KEYED.match(mistake) else f"feeds.{index}: {mistake}"
