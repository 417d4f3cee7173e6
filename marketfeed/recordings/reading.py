"""Recordings as numpy arrays, Arrow tables and pandas frames: :func:`read`.

A file holds binary frames as ``marketfeed record`` writes them (core/binary.py). Frames with the same
``sent_ns`` were one step; within it ticks are put in order of ``g``, as replay does. Several files are
one recording, in order of their names; each announces its own ids, which are mapped to ids of the recording.

A file that was cut or damaged is read up to its last whole frame; ``problems`` says so. One that does
not fit its checksum is an error.
"""

from __future__ import annotations

import glob
import warnings
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from marketfeed.core.binary import Frame, FrameParser, Kind
from marketfeed.core.counts import amount
from marketfeed.core.records import CHANNELS, DTYPES, QUOTES, TRADES, Records
from marketfeed.core.symbols import MAX_SYMBOLS
from marketfeed.errors import FeedProtocolError, RecordingError
from marketfeed.recordings import tables
from marketfeed.recordings.unpacking import CutError, DamagedRecordingError, Progress, blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES: Final = (".mfr", ".mfr.zst", ".mfr.gz")
CHUNK_ROWS: Final = 1 << 16  # 4 MiB
_UNANNOUNCED: Final = -1
_LEFT_OUT: Final = -2  # not asked for
_CHANNEL: Final = {Kind.QUOTES: QUOTES, Kind.TRADES: TRADES}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Paths = str | Path | Sequence[str | Path]
Moment = int | str | datetime  # ns since the Unix epoch; ISO 8601, UTC if it does not say; a datetime


class Chunk(NamedTuple):
    """A piece of a recording. ``symbol`` of the records is an id of the recording's."""

    quotes: Records  # (q,) QUOTE
    trades: Records  # (t,) TRADE


def read(
    path: Paths,
    symbols: str | Iterable[str] = "*",
    start: Moment | None = None,
    end: Moment | None = None,
) -> Recording:
    """Return the recording at ``path``: a file (.mfr, .mfr.zst, .mfr.gz), a folder, a pattern, or several.

    ``symbols`` are names and prefixes such as ``BTC*``. Ticks are kept that were received at or after
    ``start`` and before ``end``. Nothing but the first frame is read before it is asked for. Raises
    RecordingError if there is no such file, or it is no recording.
    """
    return Recording(path, symbols, start, end)


class Recording:
    """A recording; :func:`read` makes it.

    ``quotes`` and ``trades`` are whole arrays; :meth:`chunks` goes through a recording that is larger
    than memory.
    """

    def __init__(
        self,
        path: Paths,
        symbols: str | Iterable[str] = "*",
        start: Moment | None = None,
        end: Moment | None = None,
    ) -> None:
        """Look at the first frame; raises RecordingError."""
        several = [path] if isinstance(path, str | Path) else list(path)
        self.files = [file for one in several for file in files_at(Path(one))]
        self.problems: list[str] = []  # what could not be read, of the latest pass
        self.gaps = self.lost = 0  # that the recorder was told of, and ticks in them
        self._wanted = tuple([symbols] if isinstance(symbols, str) else symbols)
        self._start_ns = None if start is None else moment_ns(start)
        self._end_ns = None if end is None else moment_ns(end)
        self._ids: dict[str, int] = {}
        self._passed = False  # all of it was read once
        self._whole: Chunk | None = None
        for _ in self._frames(self.files[0], lambda size: None, []):
            return
        raise RecordingError(f"{self.files[0]} holds no whole frame")

    def __repr__(self) -> str:
        """Return where it is, and what is known of it."""
        known = (
            f", {amount(len(self._whole.quotes), 'quotes')}, {amount(len(self._whole.trades), 'trades')}"
            if self._whole
            else ""
        )
        return f"<Recording {', '.join(map(str, self.files))}{known}>"

    @property
    def quotes(self) -> Records:
        """All quotes, shape ``(q,)``, dtype QUOTE, in the order in which the engine had them."""
        return self._loaded().quotes

    @property
    def trades(self) -> Records:
        """All trades, shape ``(t,)``, dtype TRADE."""
        return self._loaded().trades

    @property
    def symbols(self) -> list[str]:
        """The names, by id. Those met so far while :meth:`chunks` is under way."""
        if not self._ids and not self._passed:
            for _ in self.chunks():
                pass
        return list(self._ids)

    def names(self, records: Records) -> NDArray[np.object_]:
        """Return the name of each record's symbol, shape ``(k,)``."""
        names: NDArray[np.object_] = np.array([*self.symbols, ""], object)[records["symbol"]]
        return names

    def to_arrow(self, channel: str = "quotes", prices: str = "float") -> Any:
        """Return a channel as a pyarrow Table; columns and ``prices`` as in docs/recordings.md."""
        records, names = self._channel(channel), self.symbols
        return tables.arrow_table(records, names, channel, prices)

    def to_pandas(self, channel: str = "quotes", prices: str = "float") -> Any:
        """Return a channel as a pandas DataFrame, with the columns of :meth:`to_arrow`."""
        records, names = self._channel(channel), self.symbols
        return tables.pandas_frame(records, names, channel, prices)

    def __iter__(self) -> Iterator[Chunk]:
        """Yield the recording in chunks."""
        return self.chunks()

    def chunks(self, rows: int = CHUNK_ROWS, progress: Progress = lambda size: None) -> Iterator[Chunk]:
        """Yield the recording from its start, about ``rows`` ticks at a time; each pass reads it anew.

        ``progress`` is called with sizes of what was read of the files, in bytes. Raises RecordingError if a
        packed file does not fit its checksum, which stands at its end.
        """
        problems: list[str] = []
        self.problems, self.gaps, self.lost = problems, 0, 0
        for path in self.files:
            yield from self._of_file(path, rows, progress, problems)
        self._passed = True

    def _channel(self, channel: str) -> Records:
        if channel not in CHANNELS:
            raise ValueError(f"channel is {' or '.join(CHANNELS)}, not {channel!r}")
        return self._loaded()[CHANNELS.index(channel)]

    def _loaded(self) -> Chunk:
        if self._whole is None:
            parts = list(self.chunks())
            quotes, trades = (
                np.concatenate([np.empty(0, dtype), *(part[channel] for part in parts)])
                for channel, dtype in enumerate(DTYPES)
            )
            self._whole = Chunk(quotes, trades)
            for problem in self.problems:
                warnings.warn(problem, stacklevel=3)
        return self._whole

    def _of_file(self, path: Path, rows: int, progress: Progress, problems: list[str]) -> Iterator[Chunk]:
        ids = np.full(MAX_SYMBOLS, _UNANNOUNCED, np.int32)
        held: list[tuple[int, Frame]] = []  # with the number of its step
        ticks, step, unannounced = 0, 0, 0
        sent_ns = -1
        for frame in self._frames(path, progress, problems):
            if frame.kind in _CHANNEL:
                if frame.sent_ns != sent_ns:
                    sent_ns, step = frame.sent_ns, step + 1
                    if ticks >= rows:
                        chunk, bad = self._taken(held, ids)
                        held, ticks, unannounced = [], 0, unannounced + bad
                        yield chunk
                held.append((step, frame))
                ticks += len(frame.payload) // DTYPES[QUOTES].itemsize
                continue
            try:
                if frame.kind is Kind.MESSAGES:
                    self._note(frame.messages())
                    continue
                announced = frame.symbols() if frame.kind is Kind.SYMBOLS else {}
            except FeedProtocolError as error:
                problems.append(f"{path}: unreadable from here on: {error}")
                break
            if announced and held:  # what came before has the ids of before
                chunk, bad = self._taken(held, ids)
                held, ticks, unannounced = [], 0, unannounced + bad
                yield chunk
            for name, number in announced.items():
                ids[number] = self._id(name)
        if held:
            chunk, bad = self._taken(held, ids)
            unannounced += bad
            yield chunk
        if unannounced:
            problems.append(
                f"{path}: {amount(unannounced, 'ticks')} of symbols that were not announced left out"
            )

    def _id(self, name: str) -> int:
        known = self._ids.get(name)
        if known is None:
            if not any(matches(pattern, name) for pattern in self._wanted):
                return _LEFT_OUT
            if len(self._ids) == MAX_SYMBOLS:
                self.problems.append(f"more than {MAX_SYMBOLS:,} symbols: {name} was left out")
                return _LEFT_OUT
            known = self._ids[name] = len(self._ids)
        return known

    def _taken(self, held: list[tuple[int, Frame]], ids: NDArray[np.int32]) -> tuple[Chunk, int]:
        """Return the ticks of some frames, with the recording's ids, and how many had none."""
        found: list[Records] = []
        bad = 0
        for kind, dtype in zip(_CHANNEL, DTYPES, strict=True):
            mine = [(step, frame, frame.records()) for step, frame in held if frame.kind is kind]
            records = np.concatenate([np.empty(0, dtype), *(ticks for *_, ticks in mine)])
            sizes = [len(ticks) for *_, ticks in mine]
            steps = np.repeat(np.array([step for step, *_ in mine], np.int64), sizes)
            order = np.lexsort((records["g"], steps))
            numbers = ids[records["symbol"]]
            bad += int((numbers == _UNANNOUNCED).sum())
            keep = numbers >= 0
            if self._start_ns is not None or self._end_ns is not None:
                sent = np.repeat(np.array([frame.sent_ns for _, frame, _ in mine], np.uint64), sizes)
                when = np.where(records["ts_recv"] == 0, sent.astype(np.int64), records["ts_recv"])
                keep &= when >= (self._start_ns if self._start_ns is not None else when)
                keep &= (when < self._end_ns) if self._end_ns is not None else True
            records["symbol"] = numbers
            order = order[keep[order]]
            found.append(records[order])
        return Chunk(*found), bad

    def _note(self, messages: list[Any]) -> None:
        for message in messages:
            if isinstance(message, dict) and message.get("T") == "gap":
                lost = message.get("lost")
                self.gaps += 1
                self.lost += lost if isinstance(lost, int) else 0

    def _frames(self, path: Path, progress: Progress, problems: list[str]) -> Iterator[Frame]:
        """Yield the whole frames of a file. Raises RecordingError if it does not begin as a recording."""
        parser, first, why = FrameParser(), True, ""
        try:
            for block in blocks(path, progress):
                parser.feed(block)
                for frame in parser:
                    first = False
                    yield frame
        except FeedProtocolError as error:
            if first:
                raise RecordingError(
                    f"{path} is no recording of frames, which `marketfeed record` writes"
                    f" ({', '.join(SUFFIXES)}): {error}"
                ) from None
            problems.append(f"{path}: unreadable from here on: {error}")
            return
        except DamagedRecordingError as error:
            problems.append(f"{path}: damaged: {error}; the last ticks before it may be wrong")
            return
        except CutError as error:
            why = str(error)
        if why or parser.pending_bytes:
            problems.append(
                f"{path}: cut short: {why or 'it ends within a frame'}; what came before is whole"
            )


def matches(pattern: str, name: str) -> bool:
    """Tell whether a name or prefix pattern matches ``name``."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def files_at(path: Path) -> list[Path]:
    """Return the files of a recording, in order of their names. Raises RecordingError if there are none."""
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.name.lower().endswith(SUFFIXES) and p.is_file())
    elif path.exists() or not glob.has_magic(str(path)):
        found = [path]
    else:
        found = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())
    if not found:
        raise RecordingError(f"no recording ({', '.join(SUFFIXES)}) at {path}")
    return found


def moment_ns(moment: Moment) -> int:
    """Return a moment in ns since the Unix epoch. Raises ValueError for text that is none."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (aware - _EPOCH) // timedelta(microseconds=1) * 1000
    return int(moment)
