"""Progress of a recording: counts, gaps, and the cursor to resume from after a reconnect. Pure: no I/O."""

from __future__ import annotations

from typing import Any

from marketfeed.core.binary import Frame, Kind
from marketfeed.core.counts import amount
from marketfeed.core.records import FLAG_SNAPSHOT, QUOTES, TRADES
from marketfeed.recordings.gaps import GapCounter


class RecordingProgress:
    """Counts of a recording's ticks and gaps, and its cursor."""

    def __init__(self) -> None:
        self.quotes = self.trades = 0
        self.announced_gaps = 0  # `gap` messages, and ends of lag
        self.missing = 0  # ticks, from the gaps in `n`
        self.reconnects = 0
        self.restarts = 0  # of the engine: ticks missed during a restart cannot be counted
        self.lagging = False  # ticks left out during lag count as missing when it ends
        self.announced: dict[str, int] = {}  # symbols of this connection
        self.names: set[str] = set()  # symbols of all connections
        self._gaps = GapCounter()
        self._epoch = ""
        self._cursor = ""  # of the last `synced` in this epoch, as received
        self._g = 0  # of the newest tick that moved the cursor since then
        self._moving = False  # whether ticks move the cursor: after `synced`, or always if resumed

    @property
    def complete(self) -> bool:
        """Whether every tick since the start has been received."""
        return not (self.missing or self.restarts or self.lagging)

    @property
    def ticks(self) -> int:
        """Number of quotes and trades received."""
        return self.quotes + self.trades

    @property
    def cursor(self) -> str | None:
        """The cursor to resume from after a reconnect; None before the first `synced`."""
        if not self._g:
            return self._cursor or None
        # The only change to a cursor that clients may make: replace its last part by the g of a later tick.
        return f"{self._cursor.rpartition(':')[0]}:{self._g}"

    def take(self, frame: Frame) -> list[dict[str, Any]]:
        """Count a frame; return the messages in it. Raises FeedProtocolError."""
        match frame.kind:
            case Kind.QUOTES | Kind.TRADES:
                records = frame.records()
                channel = QUOTES if frame.kind is Kind.QUOTES else TRADES
                self.missing += self._gaps.take(channel, records)
                self.quotes += len(records) * (channel == QUOTES)
                self.trades += len(records) * (channel == TRADES)
                fresh = records["flags"] & FLAG_SNAPSHOT == 0
                if self._moving and self._cursor and fresh.any():
                    self._g = max(self._g, int(records["g"][fresh].max()))
            case Kind.SYMBOLS:
                symbols = frame.symbols()
                self.announced.update(symbols)
                self.names.update(symbols)
            case Kind.MESSAGES:
                return frame.messages()
        return []

    def note(self, message: dict[str, Any]) -> None:
        """Update the state from a message of the stream."""
        match message:
            case {"T": "success", "epoch": epoch} if epoch != self._epoch:
                self.restarts += bool(self._epoch)
                self._epoch, self._cursor, self._g = epoch, "", 0
                self._gaps.forget()
            case {"T": "subscription"}:
                self._moving = bool(message.get("resumed"))
                self.lagging = False
            case {"T": "synced", "cursor": cursor}:
                self._moving = True
                self._cursor, self._g = cursor, 0
            case {"T": "lag", "on": True}:
                self.lagging = True
            case {"T": "gap"} | {"T": "lag"}:
                self.lagging = self.lagging and message["T"] != "lag"
                self.announced_gaps += 1

    def figures(self, raw_bytes: int, written_bytes: int) -> str:
        """Return the state as one line; ``written_bytes`` is the size of ``raw_bytes`` after compression."""
        packed = raw_bytes / written_bytes if written_bytes else 1.0
        text = f"{amount(self.quotes, 'quotes')}, {amount(self.trades, 'trades')}"
        text += f"  ·  {written_bytes / 1e6:,.1f} MB"
        text += f" (1:{packed:.1f})" if packed > 1.05 else ""
        text += f"  ·  {self.missing:,} missing" if self.missing else ""
        text += f"  ·  {amount(self.announced_gaps, 'gaps')} announced" if self.announced_gaps else ""
        text += "  ·  lagging" if self.lagging else ""
        text += f"  ·  reconnected {self.reconnects}×" if self.reconnects else ""
        return text + (f", the engine restarted {self.restarts}×" if self.restarts else "")
