"""Tests of feed types and rule types: an intake that records, and the checks that each type has to pass.

:func:`check_rule`, for rule types, is in marketfeed/alerts/rules/conformance.py. For feed types:

The checks of alert logs, ``check_alert_log``, are in testing_alert_log.py.

    async def test_my_feed(autojump_clock):
        await check_feed(MyFeed, {"url": "…"})

Runs under trio's MockClock as well as in real time. A failed check raises an
AssertionError that begins with the number of the check:

 1. ``Config`` accepts the settings.
 2. ``Config`` refuses a key it does not know.
 3. The feed can be constructed, with a ``start_sessions`` of 0 or more.
 4. It runs without an exception and publishes Batches with ticks in them.
 5. Every symbol id is from this feed's intake.
 6. Sizes are finite and not negative.
 7. A bid or ask with a price has a size too; size 0 means that the side is missing.
 8. ``ts_event`` and ``ts_recv`` are 0, or in nanoseconds and from 1990 to 2099.
 9. ``side`` is b, s or -.
10. ``g`` and ``n`` are left 0.
11. A full symbol table is survived: the ticks are dropped, nothing is raised. A feed whose symbols are
    configured may raise ConfigError when it is constructed.
12. It ends within PROMPT_S of being cancelled.
13. Once ``run`` has returned, nothing more is published.
14. Arrays are not touched again after they were published.
15. After ``wait_room`` it publishes no more ticks than were granted, until it calls it again.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import structlog
import trio

from marketfeed.alerts.rules.conformance import RULE_CHECKS, check_rule
from marketfeed.core.details import valid_conditions
from marketfeed.core.records import KIND_CORRECTION, QUOTE, SIDES, TRADE, Batch, Records
from marketfeed.core.symbols import SymbolTable
from marketfeed.errors import ConfigError, InvalidSymbolError, SymbolsFullError
from marketfeed.ingest.clock import Seat
from marketfeed.testing_alert_log import check_alert_log

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from marketfeed.ingest.feed import Feed, FeedType

__all__ = ["CHECKS", "RULE_CHECKS", "RecordingIntake", "check_alert_log", "check_feed", "check_rule"]

CHECKS: Final = {
    1: "config accepts the settings",
    2: "config refuses an unknown key",
    3: "the feed can be made",
    4: "it runs and publishes valid batches",
    5: "symbols are interned by this intake",
    6: "sizes are finite and not negative",
    7: "a side with a price has a size",
    8: "times are 0 or plausible nanoseconds",
    9: "side is b, s or -",
    10: "g and n are left 0",
    11: "a full symbol table is survived",
    12: "it ends promptly when cancelled",
    13: "run returning means done",
    14: "arrays are not reused after publishing",
    15: "no more is published than was granted",
    16: "kind is 0, 1 or 2, and conditions are valid",
}

PROMPT_S: Final = 1.0
AFTERWARDS_S: Final = 0.1  # for which a feed that has returned is observed
ROOM_TICKS: Final = 16  # granted by each wait_room
RUNAWAY_BATCHES: Final = 1000  # published after cancellation, which means that the feed never yields
FIRST_NS: Final = 631_152_000 * 10**9  # 1990; current times in microseconds or milliseconds are far below
LAST_NS: Final = 4_102_444_800 * 10**9  # 2100


class RecordingIntake:
    """An Intake with its own symbol table, which records what a feed does."""

    def __init__(self, name: str = "feed", base: Path = Path(), max_symbols: int = 8192) -> None:
        self.name = name
        self.base = base
        self.symbols = SymbolTable(max_symbols)
        self.events: Counter[str] = Counter()
        self.batches: list[Batch] = []  # copies, as they were when published
        self.published_at_s: list[float] = []  # by trio's clock, one per batch
        self.room = 4096  # ticks that each `wait_room` grants
        self.granted: int | None = None  # of these, not published yet; None before the first call
        self._captured = structlog.testing.LogCapture()
        self.log: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            None,
            processors=[self._captured],
            wrapper_class=structlog.make_filtering_bound_logger(0),
            feed=name,
        )

    @property
    def logged(self) -> list[Any]:
        """Log entries: dicts with ``event``, ``log_level`` and the fields."""
        return self._captured.entries

    @property
    def quotes(self) -> Records:
        """All published quotes, in order, shape ``(q,)``, dtype QUOTE."""
        return np.concatenate([np.empty(0, QUOTE), *(batch.quotes for batch in self.batches)])

    @property
    def trades(self) -> Records:
        """All published trades, in order, shape ``(t,)``, dtype TRADE."""
        return np.concatenate([np.empty(0, TRADE), *(batch.trades for batch in self.batches)])

    def symbol(self, name: str) -> int | None:
        """Return the id of ``name``, or None, counted as the engine does."""
        try:
            return self.symbols.intern(name)
        except SymbolsFullError:
            self.events["symbols_full"] += 1
        except InvalidSymbolError:
            self.events["invalid_symbol"] += 1
        return None

    def count(self, event: str, times: int = 1) -> None:
        """Count ``event`` in ``events``."""
        self.events[event] += times

    def clock(self, name: str, speed: float, loop: bool) -> Seat:
        """Return a clock that is not shared with other feeds."""
        return Seat(name, speed, loop)

    async def wait_room(self) -> int:
        """Return ``room``; a checkpoint."""
        await trio.lowlevel.checkpoint()
        self.granted = self.room
        return self.room

    def publish(self, batch: Batch) -> None:
        """Store a copy of ``batch``."""
        channels = None if batch.channels is None else batch.channels.copy()
        self.batches.append(Batch(batch.quotes.copy(), batch.trades.copy(), channels))
        if self.granted is not None:
            self.granted -= len(batch)
        self.published_at_s.append(trio.current_time())


async def check_feed(
    feed_type: FeedType,
    settings: dict[str, Any],
    *,
    base: Path = Path(),
    ticks: int = 1000,
    timeout_s: float = 60.0,
) -> RecordingIntake:
    """Run the numbered checks in this module's docstring on a feed type.

    ``settings`` is its ``[[feeds]]`` table without ``name`` and ``type``; relative paths start
    at ``base``. The feed is run three times, each for at most ``ticks`` ticks and
    ``timeout_s``. Returns the intake of the first run; raises AssertionError.
    """
    config = _checked_config(feed_type, settings)
    trial = _Trial(base, ticks, timeout_s)
    await trial.run(_made(feed_type, config, trial.intake), failing=4)
    _require(4, trial.ticks > 0, f"nothing was published within {timeout_s:g} s")
    if trial.returned:
        before = trial.ticks
        await trio.sleep(AFTERWARDS_S)
        trial.fail_if_told()
        _require(13, trial.ticks == before, "it went on publishing after run had returned")
    trial.check_untouched()

    short = _Trial(base, 1, timeout_s)
    await short.run(_made(feed_type, config, short.intake), failing=12)
    _require(12, short.late_s <= PROMPT_S, f"it took {short.late_s:g} s")

    full = _Trial(base, ticks, timeout_s, max_symbols=1)
    try:
        feed = feed_type(config, full.intake)
    except ConfigError:  # its configured symbols do not fit: reported before it runs
        return trial.intake
    except Exception as error:
        raise AssertionError(_text(11, f"raised {error!r} when it was made")) from error
    await full.run(feed, failing=11)
    return trial.intake


def _checked_config(feed_type: FeedType, settings: dict[str, Any]) -> msgspec.Struct:
    try:
        config = msgspec.convert(settings, feed_type.Config)
    except msgspec.ValidationError as error:
        raise AssertionError(_text(1, str(error))) from None
    unknown = {**settings, "no_such_key": True}
    try:
        msgspec.convert(unknown, feed_type.Config)
    except msgspec.ValidationError:
        return config
    raise AssertionError(_text(2, "no_such_key was accepted; set forbid_unknown_fields=True"))


def _made(feed_type: FeedType, config: msgspec.Struct, intake: RecordingIntake) -> Feed:
    try:
        feed = feed_type(config, intake)
        sessions = feed.start_sessions
    except Exception as error:
        raise AssertionError(_text(3, f"raised {error!r}")) from error
    _require(3, isinstance(sessions, int) and sessions >= 0, f"start_sessions is {sessions!r}")
    return feed


class _Trial:
    """One run of a feed; checks each batch when it is published."""

    def __init__(self, base: Path, ticks: int, timeout_s: float, max_symbols: int = 8192) -> None:
        self.intake = RecordingIntake(base=base, max_symbols=max_symbols)
        self.intake.room = ROOM_TICKS
        self.ticks = 0
        self.returned = False  # by itself
        self.late_s = 0.0  # from cancellation to the end
        self._enough = ticks
        self._timeout_s = timeout_s
        self._scope = trio.CancelScope()
        self._cancelled_at_s: float | None = None
        self._batches_after = 0
        self._failure: AssertionError | None = None
        self._given: list[tuple[Records, bytes]] = []  # published arrays, and their content after publishing

    async def run(self, feed: Feed, failing: int) -> None:
        """Run ``feed`` until it has published enough; an exception fails check ``failing``."""
        deadline_s = self._scope.deadline = trio.current_time() + self._timeout_s
        try:
            with self._scope:
                await feed.run(self.publish)
                self.returned = not self._scope.cancel_called
        except Exception as error:
            self.fail_if_told()
            raise AssertionError(_text(failing, f"run raised {error!r}")) from error
        self.fail_if_told()
        if not self.returned:
            since_s = deadline_s if self._cancelled_at_s is None else self._cancelled_at_s
            self.late_s = trio.current_time() - since_s

    def fail_if_told(self) -> None:
        """Raise the failure of a batch, if any."""
        if self._failure is not None:
            raise self._failure

    def publish(self, batch: Batch) -> None:
        """Check and store ``batch``, then write to its arrays as the engine does."""
        if self._cancelled_at_s is not None:
            self._batches_after += 1
            if self._batches_after > RUNAWAY_BATCHES:
                self._fail(AssertionError(_text(12, "it keeps publishing without yielding")))
                raise AssertionError("the feed is to end")
        try:
            self._check(batch)
        except AssertionError as failure:
            self._fail(failure)
            return
        self.intake.publish(batch)
        self.ticks += len(batch)
        for records in (batch.quotes, batch.trades):
            records["g"] = records["n"] = len(self.intake.batches)
            self._given.append((records, records.tobytes()))
        if self.ticks >= self._enough:
            self._cancel()

    def check_untouched(self) -> None:
        """Check that the feed has not written to published arrays."""
        for number, (records, left) in enumerate(self._given):
            _require(14, records.tobytes() == left, f"batch {number // 2 + 1} was written to later")

    def _fail(self, failure: AssertionError) -> None:
        self._failure = self._failure or failure
        self._cancel()

    def _cancel(self) -> None:
        if self._cancelled_at_s is None:
            self._cancelled_at_s = trio.current_time()
            self._scope.cancel()

    def _check(self, batch: Batch) -> None:
        _require(4, isinstance(batch, Batch), f"published {type(batch).__name__}, not Batch")
        granted = self.intake.granted
        _require(15, granted is None or len(batch) <= granted, f"{len(batch)} ticks, granted: {granted}")
        known, quotes, trades = len(self.intake.symbols), batch.quotes, batch.trades
        for records in (quotes, trades):
            _each(5, records, records["symbol"] < known)
        for records, size in ((quotes, "bid_sz"), (quotes, "ask_sz"), (trades, "size")):
            _each(6, records, np.isfinite(records[size]) & (records[size] >= 0))
        for size, price in (("bid_sz", "bid_px"), ("ask_sz", "ask_px")):
            _each(7, quotes, (quotes[size] != 0) | (quotes[price] == 0))
        for records in (quotes, trades):
            for column in ("ts_event", "ts_recv"):
                times = records[column]
                _each(8, records, (times == 0) | ((times >= FIRST_NS) & (times < LAST_NS)))
        _each(9, trades, np.isin(trades["side"], SIDES))
        _each(16, trades, trades["kind"] <= KIND_CORRECTION)
        _each(16, trades, valid_conditions(trades) == trades["cond"])
        for records in (quotes, trades):
            _each(10, records, (records["g"] == 0) & (records["n"] == 0))


def _each(check: int, records: Records, good: NDArray[np.bool_]) -> None:
    if not good.all():
        fields = ", ".join(f"{name}={records[~good][0][name]}" for name in records.dtype.names or ())
        raise AssertionError(_text(check, fields))


def _require(check: int, good: bool, detail: str) -> None:
    if not good:
        raise AssertionError(_text(check, detail))


def _text(check: int, detail: str) -> str:
    return f"check {check}, {CHECKS[check]}: {detail}"
