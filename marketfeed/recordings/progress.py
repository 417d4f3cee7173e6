"""Progress of a recording: counts, and what is missing. Pure: no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketfeed.client import messages
from marketfeed.core.counts import amount
from marketfeed.core.records import QUOTES, TRADES
from marketfeed.recordings.gaps import GapCounter

if TYPE_CHECKING:
    from marketfeed.client.batch import Batch
    from marketfeed.client.messages import Message


class RecordingProgress:
    """Counts of a recording's ticks and gaps."""

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

    @property
    def complete(self) -> bool:
        """Whether every tick since the start has been received."""
        return not (self.missing or self.restarts or self.lagging)

    @property
    def ticks(self) -> int:
        """Number of quotes and trades received."""
        return self.quotes + self.trades

    def take(self, batch: Batch) -> None:
        """Count the ticks of a batch, whose messages were given to :meth:`note`."""
        self.announced.update(batch.symbols)
        self.names.update(batch.symbols)
        for channel, records in ((QUOTES, batch.quotes), (TRADES, batch.trades)):
            if len(records):
                self.missing += self._gaps.take(channel, records)
        self.quotes += len(batch.quotes)
        self.trades += len(batch.trades)

    def note(self, message: Message) -> None:
        """Update the state from a message of the feed."""
        match message:
            case messages.Connected(epoch=epoch):
                self.announced = {}
                if epoch != self._epoch:
                    self.restarts += bool(self._epoch)
                    self._epoch = epoch
                    self._gaps.forget()
            case messages.Disconnected():
                self.reconnects += 1
            case messages.Subscription():
                self.lagging = False
            case messages.Lag(on=True):
                self.lagging = True
            case messages.Lag():
                self.lagging = False
                self.announced_gaps += 1
            case messages.Gap(announced=True):
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
