"""The pump, the only path into the rings: it validates and stamps ticks, writes them, rings the doorbell.

It enforces these invariants for all feeds: sizes are finite and not negative (-0.0 becomes 0.0); a side of
a quote is missing if and only if its size is 0, and its price is then 0; times are Unix times within the
bounds below.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import structlog
import trio

from marketfeed.core.details import has_details
from marketfeed.core.few import FEW, few_of
from marketfeed.core.records import (
    BUY,
    CHANNELS,
    FLAG_CROSSED,
    QUOTES,
    SELL,
    TRADES,
    UNKNOWN_SIDE,
    Batch,
    Records,
)
from marketfeed.errors import ConfigError, InvalidSymbolError, SymbolsFullError
from marketfeed.ingest.clock import Seat
from marketfeed.ingest.details import with_valid_details
from marketfeed.ingest.plain import (
    MAX_EVENT_NS,
    MAX_RECEIPT_AGE_NS,
    MAX_RECEIPT_AHEAD_NS,
    mark_if_plain,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from marketfeed.core.symbols import SymbolTable

MAX_FEEDS: Final = 255  # a record's feed is a u1
_QUOTE_SIDES: Final = (("bid_sz", "bid_px"), ("ask_sz", "ask_px"))
_TRADE_SIZES: Final = (("size", ""),)


class TickWriter(Protocol):
    """Where the pump writes: the rings, or what reads a recording without them."""

    def write(self, batch: Batch) -> int:
        """Take the ticks of ``batch``, and set their ``g``; return the last one."""
        ...


class FeedIntake:
    """Implements :class:`Intake` for one feed; holds the feed's counters."""

    def __init__(self, pump: Pump, name: str, number: int, base: Path) -> None:
        self.name = name
        self.number = number  # field ``feed`` of its records
        self.base = base
        self.log = structlog.get_logger().bind(feed=name)
        self.ticks = [0] * len(CHANNELS)
        self.events: Counter[str] = Counter()
        self.last_tick_ns = 0  # Unix; 0: none yet
        self._pump = pump
        self._seat: Seat | None = None
        self._held: list[str] | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Delay the logs of :meth:`symbol` until the end of the block; drop them if the block raises."""
        held: list[str] = []
        self._held = held
        try:
            yield
        finally:
            self._held = None
        for text in held:
            self._log_left_out(text)

    def symbol(self, name: str) -> int | None:
        """Return the id of ``name``; None, and a count, if the symbol table refuses it."""
        try:
            return self._pump.symbols.intern(name)
        except SymbolsFullError as error:
            self._leave_out("symbols_full", str(error))
        except InvalidSymbolError as error:
            self._leave_out("invalid_symbol", str(error))
        return None

    def _leave_out(self, event: str, text: str) -> None:
        if not self.events[event]:
            if self._held is None:
                self._log_left_out(text)
            else:
                self._held.append(text)
        self.events[event] += 1

    def _log_left_out(self, text: str) -> None:
        self.log.error("symbol left out; further ones are only counted", reason=text)

    def count(self, event: str, times: int = 1) -> None:
        """Increment the counter of ``event``."""
        self.events[event] += times

    def publish(self, batch: Batch) -> None:
        """Write ``batch`` to the rings, which takes ownership of its arrays. Never waits."""
        self._pump.publish(batch, self)

    def clock(self, name: str, speed: float, loop: bool) -> Seat:
        """Return a seat at the clock ``name``; the roster joins it to those of other feeds."""
        self._seat = Seat(name, speed, loop)
        return self._seat

    def taken_seat(self) -> Seat | None:
        """Return and clear the seat that :meth:`clock` created since the last call, None if there is none."""
        seat, self._seat = self._seat, None
        return seat

    async def wait_room(self) -> int:
        """Wait for the sessions that get every tick; return how many ticks may be published."""
        return await self._pump.wait_room()


async def unlimited_room() -> int:
    """Return unlimited room after a checkpoint, for a pump whose rings have no readers."""
    await trio.lowlevel.checkpoint()
    return sys.maxsize


class Pump:
    """Writes the batches of all feeds into one block of rings.

    ``doorbell`` is called after each batch; ``wall_ns`` is the Unix clock,
    read once per batch. ``wait_room`` implements :meth:`Intake.wait_room`.
    """

    def __init__(
        self,
        writer: TickWriter,
        symbols: SymbolTable,
        doorbell: Callable[[], None],
        wall_ns: Callable[[], int] = time.time_ns,
        wait_room: Callable[[], Awaitable[int]] = unlimited_room,
    ) -> None:
        self.wait_room = wait_room
        self.symbols = symbols
        self.feeds: list[FeedIntake] = []
        self._writer = writer
        # What reads a recording without rings takes arrays only.
        self._write_few: Callable[[list[tuple[int, bytearray]]], int] | None = getattr(
            writer, "write_few", None
        )
        self._doorbell = doorbell
        self._wall_ns = wall_ns
        self._next_number = 0

    def intake(self, name: str, base: Path) -> FeedIntake:
        """Create the intake of a feed ``name``, whose relative paths start at ``base``.

        Raises ConfigError if there are 255 feeds already.
        """
        taken = {feed.number for feed in self.feeds}
        # Not the number of a feed that was removed a moment ago: its last ticks are still in the rings.
        numbers = ((self._next_number + n) % MAX_FEEDS for n in range(MAX_FEEDS))
        number = next((n for n in numbers if n not in taken), None)
        if number is None:
            raise ConfigError(f"feeds: at most {MAX_FEEDS} at a time, including those being removed")
        self._next_number = number + 1
        intake = FeedIntake(self, name, number, base)
        self.feeds.append(intake)
        return intake

    def dismiss(self, intake: FeedIntake) -> None:
        """Release the number of a feed that no longer publishes."""
        self.feeds.remove(intake)

    def publish(self, batch: Batch, intake: FeedIntake) -> None:
        """Validate, stamp and write ``batch``, and ring the doorbell."""
        counts = len(batch.quotes), len(batch.trades)
        if sum(counts) <= FEW and self._publish_few(batch, counts, intake):
            return
        if len(batch.trades) and has_details(batch.trades):
            batch = with_valid_details(batch, intake.count)
        batch = self._screened(batch, intake)
        if not len(batch):
            return
        now_ns = self._wall_ns()
        for channel, records in enumerate((batch.quotes, batch.trades)):
            if len(records):
                _check_times(records, now_ns, intake)
                records["feed"] = intake.number
                records["flags"] = 0
                intake.ticks[channel] += len(records)
        if len(batch.trades):
            side = batch.trades["side"]
            side[(side != BUY) & (side != SELL)] = UNKNOWN_SIDE
        quotes = batch.quotes
        if len(quotes):
            crossed = quotes["bid_px"] >= quotes["ask_px"]
            if np.count_nonzero(crossed):
                crossed &= (quotes["bid_sz"] > 0) & (quotes["ask_sz"] > 0)
                quotes["flags"][crossed] = FLAG_CROSSED
        intake.last_tick_ns = now_ns
        self._writer.write(batch)
        self._doorbell()

    def _publish_few(self, batch: Batch, counts: tuple[int, int], intake: FeedIntake) -> bool:
        """Publish a few plain ticks one by one; return False if there are none, or others among them."""
        if self._write_few is None or counts == (0, 0):
            return False
        few = few_of(batch)
        now_ns = self._wall_ns()
        if not mark_if_plain(few, len(self.symbols), now_ns, intake.number):
            return False
        intake.ticks[QUOTES] += counts[QUOTES]
        intake.ticks[TRADES] += counts[TRADES]
        intake.last_tick_ns = now_ns
        self._write_few(few)
        self._doorbell()
        return True

    def _screened(self, batch: Batch, intake: FeedIntake) -> Batch:
        """Return ``batch`` without ticks that have invalid sizes or unknown symbols.

        In the other ticks, -0.0 sizes become 0.0 and prices of missing sides 0.
        """
        good_quotes = self._usable(batch.quotes, _QUOTE_SIDES)
        good_trades = self._usable(batch.trades, _TRADE_SIZES)
        if good_quotes is None and good_trades is None:
            return batch
        keep_quotes = np.ones(len(batch.quotes), bool) if good_quotes is None else good_quotes
        keep_trades = np.ones(len(batch.trades), bool) if good_trades is None else good_trades
        screened = batch.only(keep_quotes, keep_trades)
        intake.count("screened", len(batch) - len(screened))
        return screened

    def _usable(self, records: Records, sides: Sequence[tuple[str, str]]) -> NDArray[np.bool_] | None:
        """Return the mask of valid records, None if all are; normalise missing sides.

        ``sides`` pairs each size field with its price field, or "" if the price stays valid
        without a size.
        """
        if not len(records):
            return None
        known = len(self.symbols)
        good = records["symbol"] < known
        for size, price in sides:
            column = records[size]
            # NaN fails both comparisons.
            sized = (column > 0) & (column < np.inf)
            if np.count_nonzero(sized) < len(sized):
                zero = column == 0
                column[zero] = 0.0  # it may have been -0.0
                if price:
                    records[price][zero] = 0
                sized |= zero
            good &= sized
        return None if np.count_nonzero(good) == len(good) else good


def _check_times(records: Records, now_ns: int, intake: FeedIntake) -> None:
    """Replace times of receipt out of bounds by ``now_ns``, and impossible venue times by 0."""
    received = records["ts_recv"]
    # In unsigned arithmetic, values below the range wrap beyond its end: one comparison tests both bounds.
    since = (received - (now_ns - MAX_RECEIPT_AGE_NS)).view(np.uint64)
    strange = since > MAX_RECEIPT_AGE_NS + MAX_RECEIPT_AHEAD_NS
    if np.count_nonzero(strange):  # a quarter of the cost of any(), significant in small batches
        unbelievable = int(np.count_nonzero(received[strange]))
        received[strange] = now_ns
        if unbelievable:
            intake.count("receipt_time_replaced", unbelievable)
    event = records["ts_event"]
    impossible = event.view(np.uint64) > MAX_EVENT_NS
    if np.count_nonzero(impossible):
        event[impossible] = 0
        intake.count("event_time_impossible", int(np.count_nonzero(impossible)))
