"""Reading of recordings as numpy arrays, Arrow tables and pandas frames: :func:`read`.

A file holds binary frames as ``marketfeed record`` writes them (core/binary.py). Frames with the same
``sent_ns`` were sent together; their ticks are sorted by ``g``, as replay does. Several files, sorted by
name, form one recording; the symbol ids of each are mapped to ids of the recording. A file that is cut
short or damaged is read up to its last whole frame, and noted in ``problems``; a checksum that does not
match is an error.
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
_LEFT_OUT: Final = -2  # not selected
_CHANNEL: Final = {Kind.QUOTES: QUOTES, Kind.TRADES: TRADES}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Paths = str | Path | Sequence[str | Path]
Moment = int | str | datetime  # ns since the Unix epoch; ISO 8601 or a datetime, UTC by default


class Chunk(NamedTuple):
    """Consecutive ticks of a recording. ``symbol`` of the records is an id of the recording."""

    quotes: Records  # (q,) QUOTE
    trades: Records  # (t,) TRADE


def read(
    path: Paths,
    symbols: str | Iterable[str] = "*",
    start: Moment | None = None,
    end: Moment | None = None,
) -> Recording:
    """Return the recording at ``path``: a file (.mfr, .mfr.zst, .mfr.gz), a folder, a pattern, or several.

    ``symbols`` selects names and prefixes such as ``BTC*``; ``start`` and ``end`` select ticks received at
    or after ``start`` and before ``end``. Only the first frame is read at once, the rest on access. Raises
    RecordingError if there is no such file, or it is not a recording.
    """
    return Recording(path, symbols, start, end)


class Recording:
    """A recording, as returned by :func:`read`.

    ``quotes`` and ``trades`` hold all ticks in memory; :meth:`chunks` iterates over a recording of any size.
    """

    def __init__(
        self,
        path: Paths,
        symbols: str | Iterable[str] = "*",
        start: Moment | None = None,
        end: Moment | None = None,
    ) -> None:
        """Read the first frame; raises RecordingError."""
        several = [path] if isinstance(path, str | Path) else list(path)
        self.files = [file for one in several for file in files_at(Path(one))]
        self.problems: list[str] = []  # what the latest pass could not read
        self.gaps = self.lost = 0  # gaps announced to the recorder, and ticks lost in them
        self._wanted = tuple([symbols] if isinstance(symbols, str) else symbols)
        self._start_ns = None if start is None else moment_ns(start)
        self._end_ns = None if end is None else moment_ns(end)
        self._ids: dict[str, int] = {}
        self._passed = False  # whether a pass has reached the end
        self._whole: Chunk | None = None
        for _ in self._frames(self.files[0], lambda size: None, []):
            return
        raise RecordingError(f"{self.files[0]} contains no complete frame")

    def __repr__(self) -> str:
        """Return the paths, and the numbers of ticks once they are loaded."""
        known = (
            f", {amount(len(self._whole.quotes), 'quotes')}, {amount(len(self._whole.trades), 'trades')}"
            if self._whole
            else ""
        )
        return f"<Recording {', '.join(map(str, self.files))}{known}>"

    @property
    def quotes(self) -> Records:
        """All quotes, shape ``(q,)``, dtype QUOTE, in the engine's order."""
        return self._loaded().quotes

    @property
    def trades(self) -> Records:
        """All trades, shape ``(t,)``, dtype TRADE."""
        return self._loaded().trades

    @property
    def symbols(self) -> list[str]:
        """The names, by id. During :meth:`chunks`, those found so far."""
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
        return self.chunks()

    def chunks(self, rows: int = CHUNK_ROWS, progress: Progress = lambda size: None) -> Iterator[Chunk]:
        """Yield the recording from its start, about ``rows`` ticks at a time; each call rereads the files.

        ``progress`` is called with numbers of bytes read. Raises RecordingError if a checksum does not match.
        """
        problems: list[str] = []
        self.problems, self.gaps, self.lost = problems, 0, 0
        for path in self.files:
            yield from self._of_file(path, rows, progress, problems)
        self._passed = True

    def _channel(self, channel: str) -> Records:
        if channel not in CHANNELS:
            raise ValueError(f"channel must be {' or '.join(CHANNELS)}, not {channel!r}")
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
        held: list[tuple[int, Frame]] = []  # number of its step (one `sent_ns`), frame
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
            if announced and held:  # earlier frames use the earlier ids
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
                f"{path}: left out {amount(unannounced, 'ticks')} with symbol ids that were not announced"
            )

    def _id(self, name: str) -> int:
        known = self._ids.get(name)
        if known is None:
            if not any(matches(pattern, name) for pattern in self._wanted):
                return _LEFT_OUT
            if len(self._ids) == MAX_SYMBOLS:
                self.problems.append(f"more than {MAX_SYMBOLS:,} symbols: left out {name}")
                return _LEFT_OUT
            known = self._ids[name] = len(self._ids)
        return known

    def _taken(self, held: list[tuple[int, Frame]], ids: NDArray[np.int32]) -> tuple[Chunk, int]:
        """Return the ticks of ``held`` with ids of the recording, and how many had ids never announced."""
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
        """Yield the complete frames of a file. Raises RecordingError if it does not begin with one."""
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
                    f"{path} is not a recording as `marketfeed record` writes them"
                    f" ({', '.join(SUFFIXES)}): {error}"
                ) from None
            problems.append(f"{path}: unreadable from here on: {error}")
            return
        except DamagedRecordingError as error:
            problems.append(f"{path}: damaged: {error}; the last ticks before that may be wrong")
            return
        except CutError as error:
            why = str(error)
        if why or parser.pending_bytes:
            problems.append(
                f"{path}: cut short: {why or 'it ends within a frame'}; the ticks before that are intact"
            )


def matches(pattern: str, name: str) -> bool:
    """Return whether a name or prefix pattern matches ``name``."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def files_at(path: Path) -> list[Path]:
    """Return the files of a recording, sorted by name. Raises RecordingError if there are none."""
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
    """Return a moment in ns since the Unix epoch. Raises ValueError for a string that is not ISO 8601."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (aware - _EPOCH) // timedelta(microseconds=1) * 1000
    return int(moment)
