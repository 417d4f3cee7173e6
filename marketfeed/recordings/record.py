"""``marketfeed record``: subscribes to a running engine and writes its ticks to a recording.

It is a subscriber over WebSocket with binary encoding, so it runs on any machine. Frames are written as
received, ``gap`` and ``lag`` messages included, without heartbeats. Missing ticks are counted from the
numbers of the ticks (gaps.py). After a disconnect the feed resumes: the engine replays the missed ticks that
it still has.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING, Final

import trio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from marketfeed.client import messages
from marketfeed.client.for_commands import ENDS, command_feed, lost, unknown_names, why_ended
from marketfeed.client.unknown_symbols import unmatched
from marketfeed.client.unreachable import leaf
from marketfeed.core.counts import amount
from marketfeed.core.printable import printable
from marketfeed.recordings.progress import RecordingProgress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from marketfeed.client.address import Endpoint
    from marketfeed.client.batch import Batch
    from marketfeed.client.feed import Feed
    from marketfeed.recordings.writer import RecordingWriter

WRITE_S: Final = 0.25  # between writes: at most this much is lost if the program is killed
WRITE_BYTES: Final = 1 << 20  # write earlier once this much waits
MAX_WAITING_BYTES: Final = 64 << 20  # beyond it, reading pauses until the disk catches up
REDRAW_S: Final = 0.5


class TickRecorder:
    """One run of the command."""

    def __init__(
        self,
        engine: Endpoint,
        symbols: list[str],
        tier: str | None,
        token: str | None,
        writer: RecordingWriter,
        seconds: float | None = None,
    ) -> None:
        self.recorded = RecordingProgress()
        self._began_s = time.monotonic()
        self._engine = engine
        self._symbols, self._tier, self._token = symbols, tier, token
        self._writer = writer
        self._seconds = seconds
        self._written_ids: dict[str, int] = {}  # symbols announced before the waiting frames
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._written_ticks = 0
        self._synced = False  # on this connection
        self._missed = False  # whether unknown names have been reported
        self._room = trio.Event()
        self._work = trio.Event()
        self._following = trio.CancelScope()
        self._status = "connecting"
        self._console = Console(stderr=True)

    async def run(self) -> int:
        """Record until interrupted; return the exit status."""
        failure: str | None = None
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._wait_end, signals)
                nursery.start_soon(self._show)
                try:
                    async with trio.open_nursery() as work:
                        work.start_soon(self._write)
                        failure = await self._follow()
                        work.cancel_scope.cancel()
                    self._write_waiting()
                except* OSError as group:
                    failure = _unwritten(leaf(group))
                finally:
                    nursery.cancel_scope.cancel()
        try:
            self._writer.close()
        except OSError as error:
            failure = failure or _unwritten(error)
        lacks = self._lacks()
        for line in self._summary(failure, lacks):
            _tell(line)
        return 1 if failure or lacks or not self.recorded.complete else 0

    # Ends.

    async def _wait_end(self, signals: AsyncIterator[int]) -> None:
        with trio.move_on_after(self._seconds if self._seconds is not None else float("inf")):
            await anext(signals)
        self._following.cancel()

    # The feed.

    async def _follow(self) -> str | None:
        """Take what comes until interrupted; return why it failed, None if it did not."""
        names = {"quotes": self._symbols, "trades": self._symbols, "tier": self._tier}
        failure: str | None = None
        try:
            with self._following:
                async with (
                    command_feed(self._engine, self._token, encoding="binary", **names) as feed,
                    trio.open_nursery() as beside,
                ):
                    async for batch in feed.batches():
                        self._take(batch, feed)
                        if self._synced and not self._missed:
                            self._missed = True
                            beside.start_soon(self._miss, feed)
                        if isinstance(batch.data, bytes) and batch.data:
                            await self._keep(batch.data)
        except* ENDS as group:
            self._synced = False
            failure = why_ended(group, self._engine)
        return failure

    def _take(self, batch: Batch, feed: Feed) -> None:
        for message in batch.messages:
            self.recorded.note(message)
            match message:
                case messages.Disconnected():
                    self._synced = False
                    self._status = f"{lost(message, feed)}, reconnecting"
                case messages.Synced():
                    self._status = "recording"
                    self._synced = True
        self.recorded.take(batch)

    async def _keep(self, frame: bytes) -> None:
        """Queue ``frame`` for writing; wait while the queue is full."""
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)
        if self._waiting_bytes >= WRITE_BYTES:
            self._work.set()
        while self._waiting_bytes >= MAX_WAITING_BYTES:
            self._room = trio.Event()
            await self._room.wait()

    async def _miss(self, feed: Feed) -> None:
        """Report the subscribed names that match none of the engine's symbols, after `synced`."""
        for name, text in (await unknown_names(feed, self._symbols, self.recorded.names)).items():
            _tell(f"{name}: {text} (waiting for it)")

    # The file.

    async def _write(self) -> None:
        while True:
            with trio.move_on_after(WRITE_S):
                await self._work.wait()
            self._work = trio.Event()
            frames, symbols, ticks = self._taken()
            if frames:
                now_ns = time.time_ns()
                await trio.to_thread.run_sync(self._writer.write, frames, symbols, now_ns)
                self._written_ticks = ticks

    def _write_waiting(self) -> None:
        frames, symbols, ticks = self._taken()
        if frames:
            self._writer.write(frames, symbols, time.time_ns())
            self._written_ticks = ticks

    def _taken(self) -> tuple[bytes, dict[str, int], int]:
        """Empty the queue; return its frames, the symbols announced before, and the ticks up to its end."""
        frames, before = b"".join(self._waiting), self._written_ids
        self._waiting.clear()
        self._waiting_bytes = 0
        self._room.set()
        self._written_ids = dict(self.recorded.announced)
        return frames, before, self.recorded.ticks

    # The display.

    async def _show(self) -> None:
        if not self._console.is_terminal:
            await trio.sleep_forever()
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            before, before_s = 0, time.monotonic()
            while True:
                ticks, now_s = self.recorded.ticks, time.monotonic()
                rate = (ticks - before) / max(now_s - before_s, 1e-9)
                before, before_s = ticks, now_s
                live.update(
                    Text(printable(f"{self._status}  ·  {rate:,.0f} ticks/s  ·  {self._figures()}")),
                    refresh=True,
                )
                await trio.sleep(REDRAW_S)

    def _figures(self) -> str:
        return self.recorded.figures(self._writer.raw_bytes, self._writer.written_bytes)

    def _lacks(self) -> list[str]:
        """Return what is missing besides the gaps in the numbers of ticks."""
        lacks = []
        if nothing := unmatched(self._symbols, self.recorded.names):
            lacks.append(f"no ticks of {', '.join(nothing)}")
        if unwritten := self.recorded.ticks - self._written_ticks:
            lacks.append(f"{amount(unwritten, 'ticks')} not written")
        if self.recorded.ticks and not self._synced:
            lacks.append("disconnected at the end")
        return lacks

    def _summary(self, failure: str | None, lacks: list[str]) -> list[str]:
        files = self._writer.files
        named = (
            str(files[0]) if len(files) == 1 else f"{len(files)} files, {files[0]} …" if files else "no file"
        )
        lines = [failure] if failure else []
        if files or not failure:
            whole = "complete" if self.recorded.complete and not lacks and not failure else "not complete"
            seconds = time.monotonic() - self._began_s
            said = "  ·  ".join([self._figures(), *lacks, f"{seconds:,.0f} s"])
            lines.append(f"{named}: {said}, {whole}")
        return lines


def _tell(text: str) -> None:
    print(f"marketfeed record: {printable(text)}", file=sys.stderr)


def _unwritten(error: BaseException) -> str:
    return f"cannot write: {getattr(error, 'strerror', None) or error}"
