"""``marketfeed watch``: shows the ticks of one feed, which reconnects and resumes.

On a terminal as a table (board.py, live_table.py), otherwise as one line per tick.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import trio
from rich.console import Console

from marketfeed.cli.board import Board, line_of, notice_of
from marketfeed.cli.live_table import LiveTable
from marketfeed.cli.piped import PipeClosedError, discard_stdout, print_flushed
from marketfeed.cli.view import View
from marketfeed.client import messages
from marketfeed.client.for_commands import ENDS, command_feed, known_tiers, lost, unknown_names, why_ended
from marketfeed.client.refusals import FIRST_FINAL_CODE
from marketfeed.core.printable import printable
from marketfeed.errors import RequestRefusedError

if TYPE_CHECKING:
    from marketfeed.client.address import Endpoint
    from marketfeed.client.batch import Batch
    from marketfeed.client.feed import Feed
    from marketfeed.client.messages import Message


class Watch:
    """One run of the command."""

    def __init__(
        self,
        engine: Endpoint,
        symbols: list[str],
        tier: str | None,
        token: str | None,
        console: Console | None = None,
    ) -> None:
        self._engine, self._symbols = engine, symbols
        self._tier, self._token = tier, token
        self._board, self._view = Board(), View()
        self._console = console or Console()
        self._plain = not self._console.is_terminal or self._console.is_dumb_terminal
        self._last_words = ""  # printed after the terminal is restored
        self._everything = trio.CancelScope()  # the end of the command
        self._tier_asked = trio.Event()  # by keys

    async def run(self) -> int:
        """Watch until interrupted; return the exit status."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                self._everything = nursery.cancel_scope
                nursery.start_soon(self._wait_interrupt, signals)
                if self._plain:
                    await self._follow()
                else:
                    table = LiveTable(self._console, self._board, self._view, self._engine.url, self._pressed)
                    await table.around(self._follow)
                nursery.cancel_scope.cancel()
        if self._last_words:
            _tell(self._last_words)
        return 1 if self._last_words else 0

    async def _wait_interrupt(self, signals: AsyncIterator[int]) -> None:
        await anext(signals)
        self._everything.cancel()

    def _pressed(self) -> None:
        if self._view.quit:
            self._everything.cancel()
        if self._view.tier_steps:
            self._tier_asked.set()

    async def _change_tiers(self, feed: Feed) -> None:
        """Change to the tiers that keys choose, on the open connection."""
        tiers: list[str] = []
        while True:
            await self._tier_asked.wait()
            self._tier_asked = trio.Event()
            tiers = tiers or await known_tiers(feed)
            steps, self._view.tier_steps = self._view.tier_steps, 0
            if feed.tier not in tiers:
                self._board.notices.append("the tier cannot be changed: the engine does not tell its tiers")
                continue
            try:
                await feed.set_tier(tiers[(tiers.index(feed.tier) + steps) % len(tiers)])
            except RequestRefusedError as error:
                self._board.notices.append(str(error))

    # The feed.

    async def _follow(self) -> None:
        """Show what comes until the feed ends for good."""
        names = {"quotes": self._symbols, "trades": self._symbols, "tier": self._tier}
        try:
            async with (
                command_feed(self._engine, self._token, **names) as feed,
                trio.open_nursery() as beside,
            ):
                beside.start_soon(self._change_tiers, feed)
                async for batch in feed.batches():
                    self._show(batch, feed)
                    if any(isinstance(message, messages.Synced) for message in batch.messages):
                        beside.start_soon(self._miss, feed)
        except* PipeClosedError:
            discard_stdout()
        except* ENDS as group:
            self._last_words = why_ended(group, self._engine)

    def _show(self, batch: Batch, feed: Feed) -> None:
        now_s = time.time()
        shown = batch.in_order()
        for message in shown:
            self._take(message, now_s, feed)
        if self._plain:
            print_flushed(*(printable(line) for line in map(line_of, shown) if line))

    def _take(self, message: Message, now_s: float, feed: Feed) -> None:
        if isinstance(message, messages.Disconnected):
            self._board.status = f"{lost(message, feed)}, reconnecting"
            if message.announced:  # a notice has told it
                self._board.status = "reconnecting"
            elif self._plain:
                _tell(self._board.status)
        self._board.fold(message, now_s)
        notice = notice_of(message)
        if self._plain and notice is not None:
            again = isinstance(message, messages.Closing) and message.code < FIRST_FINAL_CODE
            _tell(f"{notice}, reconnecting" if again else notice)

    async def _miss(self, feed: Feed) -> None:
        """Report the subscribed names that match none of the engine's symbols, after `synced`."""
        if self._board.unknown:
            return
        for name, text in (await unknown_names(feed, self._symbols, self._board.rows)).items():
            self._board.unknown[name] = f"{text} (waiting for it)"
            if self._plain:
                _tell(f"{name}: {self._board.unknown[name]}")


def _tell(text: str) -> None:
    print(f"marketfeed watch: {printable(text)}", file=sys.stderr)
