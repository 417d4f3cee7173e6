"""The pump: the only way into the rings. Screens, stamps, writes, rings the doorbell."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

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
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.errors import ConfigError, InvalidSymbolError, SymbolsFullError

MAX_FEEDS: Final = 255  # a record's feed is a u1


class FeedIntake:
    """The engine as one feed sees it, and what came from that feed so far."""

    def __init__(self, pump: Pump, name: str, number: int, base: Path) -> None:
        self.name = name
        self.number = number  # the ``feed`` of its records
        self.base = base
        self.log = structlog.get_logger().bind(feed=name)
        self.ticks = [0] * len(CHANNELS)
        self.events: Counter[str] = Counter()
        self.last_tick_ns = 0  # Unix; 0: none yet
        self._pump = pump

    def symbol(self, name: str) -> int | None:
        """Return the id of ``name``, or None, counted, if the symbol table cannot take it."""
        try:
            return self._pump.symbols.intern(name)
        except SymbolsFullError as error:
            self._leave_out("symbols_full", str(error))
        except InvalidSymbolError as error:
            self._leave_out("invalid_symbol", str(error))
        return None

    def _leave_out(self, event: str, text: str) -> None:
        if not self.events[event]:
            self.log.error("symbol left out; further ones are only counted", reason=text)
        self.events[event] += 1

    def count(self, event: str, times: int = 1) -> None:
        """Count something worth knowing."""
        self.events[event] += times

    def publish(self, batch: Batch) -> None:
        """Put ``batch`` into the rings; its arrays are the engine's from now on. Never waits."""
        self._pump.publish(batch, self)


class Pump:
    """Writes the batches of all feeds into one block of rings.

    ``doorbell`` is called after each batch; ``wall_ns`` is the Unix clock,
    read once per batch.
    """

    def __init__(
        self,
        writer: RingWriter,
        symbols: SymbolTable,
        doorbell: Callable[[], None],
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.symbols = symbols
        self.feeds: list[FeedIntake] = []
        self._writer = writer
        self._doorbell = doorbell
        self._wall_ns = wall_ns

    def intake(self, name: str, base: Path) -> FeedIntake:
        """Return the way in for a further feed, ``name``, whose relative paths start at ``base``.

        Raises ConfigError while there are 255 already.
        """
        taken = {feed.number for feed in self.feeds}
        number = next((n for n in range(MAX_FEEDS) if n not in taken), None)
        if number is None:
            raise ConfigError(f"feeds: at most {MAX_FEEDS} at a time, those that go among them")
        intake = FeedIntake(self, name, number, base)
        self.feeds.append(intake)
        return intake

    def dismiss(self, intake: FeedIntake) -> None:
        """Let another feed have the number of one that publishes no more."""
        self.feeds.remove(intake)

    def publish(self, batch: Batch, intake: FeedIntake) -> None:
        """Screen, stamp and write ``batch``, and ring the doorbell."""
        batch = self._screened(batch, intake)
        if not len(batch):
            return
        now_ns = self._wall_ns()
        for channel, records in enumerate((batch.quotes, batch.trades)):
            if len(records):
                received = records["ts_recv"]
                if not received.all():
                    received[received == 0] = now_ns
                records["feed"] = intake.number
                records["flags"] = 0
                intake.ticks[channel] += len(records)
        if len(batch.trades):
            side = batch.trades["side"]
            side[(side != BUY) & (side != SELL)] = UNKNOWN_SIDE
        quotes = batch.quotes
        if len(quotes):
            crossed = quotes["bid_px"] >= quotes["ask_px"]
            if crossed.any():
                crossed &= (quotes["bid_sz"] > 0) & (quotes["ask_sz"] > 0)
                quotes["flags"][crossed] = FLAG_CROSSED
        intake.last_tick_ns = now_ns
        self._writer.write(batch)
        self._doorbell()

    def _screened(self, batch: Batch, intake: FeedIntake) -> Batch:
        """Return ``batch`` without ticks that no subscriber could use: impossible sizes, unknown symbols."""
        good_quotes = self._usable(batch.quotes, "bid_sz", "ask_sz")
        good_trades = self._usable(batch.trades, "size")
        if good_quotes is None and good_trades is None:
            return batch
        keep_quotes = np.ones(len(batch.quotes), bool) if good_quotes is None else good_quotes
        keep_trades = np.ones(len(batch.trades), bool) if good_trades is None else good_trades
        channels = batch.channels
        if channels is not None:
            keep = np.empty(len(channels), bool)
            keep[channels == QUOTES] = keep_quotes
            keep[channels == TRADES] = keep_trades
            channels = channels[keep]
        screened = Batch(batch.quotes[keep_quotes], batch.trades[keep_trades], channels)
        intake.count("screened", len(batch) - len(screened))
        return screened

    def _usable(self, records: Records, *sizes: str) -> NDArray[np.bool_] | None:
        """Return which records are usable, None if all are."""
        if not len(records):
            return None
        known = len(self.symbols)
        # One comparison per column: not-a-number fails both ways, and
        # infinity and negative sizes fail the bounds.
        good = records["symbol"] < known
        for size in sizes:
            column = records[size]
            good &= (column >= 0) & (column < np.inf)
        return None if good.all() else good
