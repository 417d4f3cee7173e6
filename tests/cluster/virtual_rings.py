"""Rings of a virtual engine, and the ledger that every tick in them is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed.cluster.frame_log import FrameLog
from marketfeed.cluster.state import Sizes
from marketfeed.core.mirror import MirrorWriter
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable

if TYPE_CHECKING:
    import numpy as np

    from marketfeed.cluster.mirror import Mirror
    from marketfeed.cluster.tee import Tee, TeeWriter
    from marketfeed.core.records import Batch

SYMBOLS: Final = 6
DEPTH: Final = 16
SIZES: Final = Sizes(SYMBOLS, DEPTH)
LOG_BYTES: Final = 20_000


class Ledger:
    """Every tick that an origin has numbered: one for each epoch and ``g``."""

    def __init__(self) -> None:
        self.adopted = self.continued = 0
        self._ticks: dict[tuple[str, int], bytes] = {}

    def add(self, epoch: str, batch: Batch) -> None:
        """Take the ticks of an origin."""
        for records in (batch.quotes, batch.trades):
            for record in records:
                key = (epoch, int(record["g"]))
                assert key not in self._ticks, f"g={key[1]} of {epoch} was given twice"
                self._ticks[key] = record.tobytes()

    def check(self, epoch: str, *parts: np.ndarray) -> None:
        """Raise AssertionError for ticks that are not those of the epoch's origin."""
        for records in parts:
            for record in records:
                key = (epoch, int(record["g"]))
                assert self._ticks.get(key) == record.tobytes(), f"another tick as g={key[1]} of {epoch}"


class CheckedWriter(MirrorWriter):
    """A mirror's writer that compares each tick with the ledger."""

    def __init__(self, rings: Rings, ledger: Ledger) -> None:
        super().__init__(rings)
        self._ledger = ledger

    def write_given(self, quotes, trades, first_g, last_g) -> None:
        super().write_given(quotes, trades, first_g, last_g)
        self._ledger.check(self.rings.epoch, quotes, trades)

    def adopt(self, quotes, trades, head, first_ns=None) -> None:
        super().adopt(quotes, trades, head, first_ns)
        self._ledger.check(self.rings.epoch, quotes, trades)


class Life:
    """One set of rings. It ends when another origin takes over; sessions then have to reconnect."""

    def __init__(self, epoch: str, term: int) -> None:
        self.epoch, self.term = epoch, term
        self.rings = Rings.private(SYMBOLS, DEPTH, epoch)
        self.symbols = SymbolTable(SYMBOLS, self.rings.names)
        self.log = FrameLog(LOG_BYTES)
        self.mirror: Mirror | None = None
        self.tee: Tee | None = None
        self.writer: TeeWriter | None = None
        self.ready = False  # holds a state
