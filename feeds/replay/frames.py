"""Recordings of ``marketfeed record``: consecutive binary frames.

``path`` is a file, a pattern such as ``day.*.mfr.zst``, or a folder; files are
read in order of their names, as one recording. Each file announces its own symbols.
Frames with the same ``sent_ns`` form a step, whose ticks of both channels are ordered by ``g``.
A truncated file is read up to its last complete frame, and reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from marketfeed.core.binary import Frame, FrameParser, Kind
from marketfeed.core.records import FLAG_SNAPSHOT, QUOTE, QUOTES, TRADE, TRADES, Batch, Records
from marketfeed.core.symbols import MAX_SYMBOLS
from marketfeed.errors import ConfigError, FeedProtocolError
from marketfeed.feeds.replay.archives import SMALL_BUDGET, Member, members, refuse_if_wrong, suffix, verify
from marketfeed.feeds.replay.recording import NOTHING, DamagedError, Decoded, Reporter, Symbol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

MAX_STEP_BYTES: Final = 4 << 20  # larger steps are split
MAX_TICKS: Final = 4096  # per batch
_UNKNOWN: Final = -1  # announced, but refused by the symbol table
_UNANNOUNCED: Final = -2
_CHANNEL: Final = {Kind.QUOTES: QUOTES, Kind.TRADES: TRADES}
_NO_TIMES: Final = np.empty(0, np.int64)


class Frames:
    """Source for a recording of binary frames, in one file or several."""

    def __init__(self, paths: list[Path], symbol: Symbol, reporter: Reporter) -> None:
        """Read the first frame; raises ConfigError if there is none."""
        self._files: list[tuple[Path, Member]] = []
        budget = SMALL_BUDGET
        for file in paths:
            if suffix(file) == ".zip":
                raise ConfigError(f"path: {file}: recordings of frames are plain, .zst, .gz, .bz2 or .xz")
            (member,) = members(file)
            budget = refuse_if_wrong(file, [member], budget)
            self._files.append((file, member))
        self._symbol = symbol
        self._reporter = reporter
        for file, member in self._files:
            try:
                first = next(self._frames(file, member, quiet=True), None)
            except FeedProtocolError as error:
                raise ConfigError(
                    f"path: {file} is not a recording of `marketfeed record`: {error}"
                ) from None
            if first is not None:
                return
        others = ", and neither do the files after it" if len(paths) > 1 else ""
        raise ConfigError(f"path: {paths[0]} holds no complete frame{others}")

    def chunks(self) -> Iterator[Decoded]:
        """Yield one decoded pass over all files."""
        for path, member in self._files:
            for _ in verify(path, [member]):
                yield NOTHING
            ids = np.full(MAX_SYMBOLS, _UNANNOUNCED, np.int32)
            step: list[Frame] = []
            step_bytes = 0
            try:
                for frame in self._frames(path, member):
                    self._reporter.read("frames", 1)
                    if step and (frame.sent_ns != step[0].sent_ns or step_bytes > MAX_STEP_BYTES):
                        yield from self._ticks(step, ids, path)
                        step, step_bytes = [], 0
                    if frame.kind in _CHANNEL:
                        step.append(frame)
                        step_bytes += len(frame.payload)
                    elif frame.kind is Kind.SYMBOLS:
                        for name, number in frame.symbols().items():
                            known = self._symbol(name)
                            ids[number] = _UNKNOWN if known is None else known
                    elif frame.kind is Kind.MESSAGES:
                        self._read_messages(frame.messages())
            except FeedProtocolError as error:
                self._reporter.damaged(str(path), str(error), "record")
            if step:
                yield from self._ticks(step, ids, path)

    def _frames(self, path: Path, member: Member, quiet: bool = False) -> Iterator[Frame]:
        """Yield the complete frames of one file; raises FeedProtocolError for anything else."""
        parser, cut = FrameParser(), ""
        try:
            for block in member.blocks():
                parser.feed(block)
                yield from parser
        except DamagedError as error:
            if not error.cut:
                raise FeedProtocolError(error.reason) from None
            cut = error.reason
        except OSError as error:
            raise FeedProtocolError(error.strerror or str(error)) from None
        if not quiet and (cut or parser.pending_bytes):
            self._reporter.broken(str(path), f"cut short: {cut or 'it ends within a frame'}", "record")

    def _read_messages(self, messages: list[Any]) -> None:
        """Count the gaps that the engine reported to the recorder."""
        gaps = [m for m in messages if isinstance(m, dict) and m.get("T") == "gap"]
        lost = [m["lost"] for m in gaps if isinstance(m.get("lost"), int)]
        self._reporter.events({"recorded_gap": len(gaps), "recorded_lost": sum(lost)})

    def _ticks(self, step: list[Frame], ids: NDArray[np.int32], path: Path) -> Iterator[Decoded]:
        """Yield the ticks of one step in order of ``g``."""
        records: list[Records] = [np.empty(0, QUOTE), np.empty(0, TRADE)]
        times: list[NDArray[np.int64]] = [_NO_TIMES, _NO_TIMES]
        stamps: list[NDArray[Any]] = [np.empty(0, np.uint64), np.empty(0, np.uint64)]
        for frame in step:
            channel = _CHANNEL[frame.kind]
            ticks = frame.records().copy()
            numbers = ids[ticks["symbol"]]
            if (numbers == _UNANNOUNCED).any():
                self._reporter.broken(str(path), "ticks of a symbol that was not announced", "record")
            ticks, numbers = ticks[numbers >= 0], numbers[numbers >= 0]
            ticks["symbol"] = numbers
            # Snapshot ticks may be hours old; they are due when they were sent.
            late = (ticks["ts_recv"] == 0) | (ticks["flags"] & FLAG_SNAPSHOT > 0)
            due = np.where(late, frame.sent_ns, ticks["ts_recv"])
            records[channel] = np.concatenate([records[channel], ticks])
            times[channel] = np.concatenate([times[channel], due])
            stamps[channel] = np.concatenate([stamps[channel], ticks["g"]])
        quotes, trades = records
        for ticks in records:
            ticks["ts_recv"], ticks["g"], ticks["n"], ticks["feed"], ticks["flags"] = 0, 0, 0, 0, 0
        channels = np.repeat(np.array([QUOTES, TRADES], np.uint8), [len(quotes), len(trades)])
        order = np.argsort(np.concatenate(stamps), kind="stable")
        # Batches require each channel in order of g, too.
        quotes, trades = (r[np.argsort(s, kind="stable")] for r, s in zip(records, stamps, strict=True))
        batch = Batch(quotes, trades, channels[order])
        due = np.concatenate(times)[order]
        for start in range(0, len(batch), MAX_TICKS):
            end = min(start + MAX_TICKS, len(batch))
            yield Decoded(batch.cut(start, end), due[start:end])
