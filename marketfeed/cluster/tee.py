"""The origin's tee: what the writer of the rings has published also goes out in frames.

    pump ──► TeeWriter ──► RingWriter ──► rings
                 └───────► Tee ──► frame log ──► sink (the link to NATS)

A reader of the rings could not do this: a busy symbol overwrites its ring within milliseconds, and what a
mirror missed could not be sent again. Records are copied once when they are appended, because the pump owns
the arrays afterwards, and once into the frame; whole frames of a large batch only into the frame.
Cost: about 0.1 µs per quote at a million quotes per second, 2 µs per batch of one (perf/cluster_tee.py).
Memory: one open frame, 256 kB; the log has its own limit.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from marketfeed.cluster.frames import Header, Kind, encode, symbols_frames, ticks_per_frame
from marketfeed.core.few import batch_of
from marketfeed.core.records import Batch, stamps_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.cluster.frame_log import FrameLog
    from marketfeed.core.symbols import SymbolTable
    from marketfeed.core.writer import RingWriter

MAX_PAYLOAD: Final = 1 << 20  # default of nats-server
LINGER_NS: Final = 1_000_000


class Tee:
    """Gathers ticks in frames; logs each sealed frame and hands it to ``sink``, which must not wait.

    ``next_g`` is the ``g`` of the first tick. ``wall_ns`` is the Unix clock of ``sent_ns``, read once per
    frame; all other times are monotonic and passed in. Names are sent before the first frame that needs them.
    """

    def __init__(
        self,
        symbols: SymbolTable,
        log: FrameLog,
        sink: Callable[[bytes], None],
        *,
        term: int,
        epoch: str,
        wall_ns: Callable[[], int],
        next_g: int = 1,
        max_payload: int = MAX_PAYLOAD,
        linger_ns: int = LINGER_NS,
    ) -> None:
        self.term, self.epoch = term, epoch
        self._symbols, self._log, self._sink, self._wall_ns = symbols, log, sink, wall_ns
        self._max_payload = max_payload
        self._linger_ns = linger_ns
        self._most = ticks_per_frame(max_payload)
        self._sealed_g = next_g - 1
        self._announced = 0  # names sent
        self._parts: tuple[list[Any], list[Any]] = ([], [])  # buffers of records, by channel
        self._counts = [0, 0]  # ticks in them
        self._due_ns = 0

    @property
    def sealed_g(self) -> int:
        """Return the last ``g`` in a sealed frame."""
        return self._sealed_g

    @property
    def due_ns(self) -> int | None:
        """Return the time at which the open frame has to be sealed, None if there is none."""
        return self._due_ns if self._open else None

    @property
    def _open(self) -> int:
        return self._counts[0] + self._counts[1]

    def append(self, batch: Batch, last_g: int, now_ns: int) -> None:
        """Take the ticks of ``batch``, which the writer has published, the last one as ``last_g``.

        Seals every frame that is full, or due at ``now_ns``. Raises ValueError if the ticks do not follow
        those before.
        """
        count = len(batch)
        if not count:
            return
        self._begin(last_g - count + 1, now_ns)
        quotes, trades = batch.quotes, batch.trades
        while self._open + count > self._most:
            room = self._most - self._open
            end = np.uint64(last_g - count + 1 + room)
            q, t = (int(stamps_of(records).searchsorted(end)) for records in (quotes, trades))
            for channel, records in enumerate((quotes[:q], trades[:t])):
                # Not copied yet, because the frame is sealed at once.
                self._take(channel, np.ascontiguousarray(records), len(records))
            self._seal()
            quotes, trades, count = quotes[q:], trades[t:], count - room
            self._due_ns = now_ns + self._linger_ns
        for channel, records in enumerate((quotes, trades)):
            self._take(channel, records.tobytes(), len(records))
        self._seal_if_due(now_ns)

    def append_few(self, few: list[tuple[int, bytearray]], last_g: int, now_ns: int) -> None:
        """Take a few ticks, channel and record of each with ``g`` and ``n``; keeps the records.

        As :meth:`append`.
        """
        self._begin(last_g - len(few) + 1, now_ns)
        for channel, record in few:
            self._take(channel, record, 1)
            if self._open == self._most:
                self._seal()
                self._due_ns = now_ns + self._linger_ns
        self._seal_if_due(now_ns)

    def _begin(self, first_g: int, now_ns: int) -> None:
        expected = self._sealed_g + self._open + 1
        if first_g != expected:
            raise ValueError(f"the tee expects the tick g={expected}, not g={first_g}")
        if not self._open:
            self._due_ns = now_ns + self._linger_ns

    def _take(self, channel: int, records: Any, count: int) -> None:
        """Add a buffer with ``count`` records to the open frame."""
        if count:
            self._parts[channel].append(records)
            self._counts[channel] += count

    def _seal_if_due(self, now_ns: int) -> None:
        if self._open and (self._open == self._most or now_ns >= self._due_ns):
            self._seal()

    def flush(self, now_ns: int) -> None:
        """Seal the open frame if it is due at ``now_ns``."""
        self._seal_if_due(now_ns)

    def _seal(self) -> None:
        """Seal the open frame, which has ticks."""
        first_g, last_g = self._sealed_g + 1, self._sealed_g + self._open
        header = self._header(Kind.TICKS, first_g, last_g, *self._counts)
        frame = encode(header, chain(*self._parts))
        for channel, parts in enumerate(self._parts):
            parts.clear()
            self._counts[channel] = 0
        self._sealed_g = last_g
        self._log.append(frame, first_g, last_g)
        self._sink(frame)

    def _header(self, kind: Kind, first_g: int, last_g: int, quotes: int = 0, trades: int = 0) -> Header:
        """Return the header of a frame that is sent next, after the names that it needs."""
        names = len(self._symbols)
        if names > self._announced:
            new = self._symbols.names(self._announced)
            for frame in symbols_frames(new, self._announced, self.term, self.epoch, self._max_payload):
                self._sink(frame)
            self._announced = names
        return Header(
            kind, self.term, self.epoch, first_g, last_g, names, quotes, trades, sent_ns=self._wall_ns()
        )

    def beat(self, now_ns: int) -> None:
        """Send a beat: all ticks up to the last sealed one have been sent."""
        self.flush(now_ns)
        self._sink(encode(self._header(Kind.BEAT, self._sealed_g + 1, self._sealed_g)))

    def handover(self, final_g: int) -> None:
        """Seal the open frame and announce ``final_g`` as the last tick of this origin.

        The feeds must have stopped. Raises ValueError if ``final_g`` is not the last tick that was appended.
        """
        if self._open:
            self._seal()
        if final_g != self._sealed_g:
            raise ValueError(f"the last tick of this origin is g={self._sealed_g}, not g={final_g}")
        self._sink(encode(self._header(Kind.HANDOVER, final_g + 1, final_g)))


class TeeWriter:
    """Writes batches to the rings, then to the tee. Replaces the RingWriter of the pump.

    ``now_ns`` is the monotonic clock of the tee, read once per batch.
    """

    def __init__(self, writer: RingWriter, tee: Tee, now_ns: Callable[[], int]) -> None:
        self._writer, self._tee, self._now_ns = writer, tee, now_ns

    def write(self, batch: Batch) -> int:
        """Publish the ticks of ``batch``; return the last ``g``. As :meth:`RingWriter.write`."""
        last_g = self._writer.write(batch)
        self._tee.append(batch, last_g, self._now_ns())
        return last_g

    def write_few(self, few: list[tuple[int, bytearray]]) -> int:
        """Publish a few ticks, channel and record of each, in order; return the last ``g``."""
        if not self._writer.takes_few(few):
            return self.write(batch_of(few))
        last_g = self._writer.write_few(few)
        self._tee.append_few(few, last_g, self._now_ns())
        return last_g
