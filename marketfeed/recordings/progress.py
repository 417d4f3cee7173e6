"""What a recording under way has got from its engine, and where it would go on after a cut. Pure: no I/O."""

from __future__ import annotations

from typing import Any

from marketfeed.core.binary import Frame, Kind
from marketfeed.core.counts import amount
from marketfeed.core.records import FLAG_SNAPSHOT, QUOTES, TRADES
from marketfeed.recordings.gaps import Holes


class Recorded:
    """Counts, and the cursor."""

    def __init__(self) -> None:
        self.quotes = self.trades = 0
        self.told = 0  # gaps and lags
        self.missing = 0  # ticks, by the numbers of those that came
        self.reconnects = 0
        self.restarts = 0  # of the engine: what came meanwhile nobody can number
        self.lagging = False  # what is left out meanwhile is told, and numbered, once it is over
        self.announced: dict[str, int] = {}  # symbols, on this connection
        self.names: set[str] = set()  # of symbols, ever
        self._holes = Holes()
        self._epoch = ""
        self._cursor = ""  # of the last `synced` in this epoch, as it came
        self._g = 0  # of the newest tick that moved the cursor since then
        self._moving = False  # ticks move the cursor: after `synced`, or all through what was resumed

    @property
    def complete(self) -> bool:
        """Tell whether every tick since the beginning is there."""
        return not (self.missing or self.restarts or self.lagging)

    @property
    def ticks(self) -> int:
        """Return how many quotes and trades have come."""
        return self.quotes + self.trades

    @property
    def cursor(self) -> str | None:
        """What to bring to the engine after a cut; None as long as there is nothing to go on from."""
        if not self._g:
            return self._cursor or None
        # The one thing that clients may do to a cursor: put the g of a later tick in place of its last part.
        return f"{self._cursor.rpartition(':')[0]}:{self._g}"

    def take(self, frame: Frame) -> list[dict[str, Any]]:
        """Count a frame; return the messages in it. Raises FeedProtocolError."""
        match frame.kind:
            case Kind.QUOTES | Kind.TRADES:
                records = frame.records()
                channel = QUOTES if frame.kind is Kind.QUOTES else TRADES
                self.missing += self._holes.take(channel, records)
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
        """Take in what a message says of the stream."""
        match message:
            case {"T": "success", "epoch": epoch} if epoch != self._epoch:
                self.restarts += bool(self._epoch)
                self._epoch, self._cursor, self._g = epoch, "", 0
                self._holes.forget()
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
                self.told += 1

    def figures(self, raw_bytes: int, written_bytes: int) -> str:
        """Return all of it as a line for people; ``written_bytes`` are what ``raw_bytes`` were packed to."""
        packed = raw_bytes / written_bytes if written_bytes else 1.0
        text = f"{amount(self.quotes, 'quotes')}, {amount(self.trades, 'trades')}"
        text += f"  ·  {written_bytes / 1e6:,.1f} MB"
        text += f" (1:{packed:.1f})" if packed > 1.05 else ""
        text += f"  ·  {self.missing:,} missing" if self.missing else ""
        text += f"  ·  {amount(self.told, 'gaps')} told" if self.told else ""
        text += "  ·  lagging" if self.lagging else ""
        text += f"  ·  reconnected {self.reconnects}×" if self.reconnects else ""
        return text + (f", the engine restarted {self.restarts}×" if self.restarts else "")
