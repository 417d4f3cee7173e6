"""``marketfeed export``: writes a recording as Parquet, CSV or Arrow, one row group at a time.

Files are written under a temporary name, and renamed when they are complete.
"""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import dataclass
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from marketfeed.core.cells import as_text
from marketfeed.core.counts import amount
from marketfeed.core.records import CHANNELS, DTYPES, Records
from marketfeed.core.symbols import is_pattern, is_symbol
from marketfeed.errors import ConfigError, RecordingError
from marketfeed.folders import folder_problem
from marketfeed.recordings import tables
from marketfeed.recordings.reading import Recording, moment_ns, read

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

GROUP_ROWS: Final = 1 << 17  # of a row group: 8 MiB of records
_UNIX: Final = re.compile(r"[0-9]{1,10}(\.[0-9]{1,9})?")
PART: Final = ".part"  # appended to the name until the file is complete


@dataclass(frozen=True, slots=True)
class Export:
    """Options of one export: the selection, the format and the files."""

    to: Path
    channel: str | None  # None: both
    symbols: list[str]
    start: str | None
    end: str | None
    prices: str = "float"
    raw: bool = False
    force: bool = False


class TableWriter(Protocol):
    """An open file for the ticks of one channel."""

    def write(self, records: Records, names: list[str]) -> None:
        """Append ticks of one channel; ``names`` by id, a list that may grow between calls."""
        ...

    def close(self) -> None:
        """Complete and close the file."""


class Csv:
    """Writer of CSV files."""

    def __init__(self, path: Path, channel: str, export: Export) -> None:
        self._channel, self._export = channel, export
        self._file: IO[str] = path.open("w", encoding="ascii", newline="")
        self._file.write(tables.csv_header(channel))

    def write(self, records: Records, names: list[str]) -> None:
        self._file.write(
            tables.csv_rows(records, names, self._channel, self._export.prices, self._export.raw)
        )

    def close(self) -> None:
        self._file.close()


class ParquetWriter:
    """Writer of Parquet files; each write is a row group."""

    def __init__(self, path: Path, channel: str, export: Export) -> None:
        import pyarrow.parquet

        self._channel, self._prices = channel, export.prices
        schema = _empty(channel, export.prices).schema
        self._writer: Any = pyarrow.parquet.ParquetWriter(path, schema, compression="zstd")

    def write(self, records: Records, names: list[str]) -> None:
        self._writer.write_table(tables.arrow_table(records, names, self._channel, self._prices))

    def close(self) -> None:
        self._writer.close()


class Arrow:
    """Writer of Arrow IPC files, also called Feather; each write is a record batch."""

    def __init__(self, path: Path, channel: str, export: Export) -> None:
        import pyarrow.ipc

        self._channel, self._prices = channel, export.prices
        # The names of each batch extend those of the one before: a dictionary delta.
        options = pyarrow.ipc.IpcWriteOptions(
            emit_dictionary_deltas=True, compression="lz4" if path.name.endswith(f".feather{PART}") else None
        )
        schema = _empty(channel, export.prices).schema
        self._file: Any = path.open("wb")
        self._writer: Any = pyarrow.ipc.new_file(self._file, schema, options=options)

    def write(self, records: Records, names: list[str]) -> None:
        for batch in tables.arrow_table(records, names, self._channel, self._prices).to_batches():
            self._writer.write_batch(batch)

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._file.close()


def _empty(channel: str, prices: str) -> Any:
    none = np.empty(0, _DTYPE_OF[channel])
    return tables.arrow_table(none, [], channel, prices)


_DTYPE_OF: Final = dict(zip(CHANNELS, DTYPES, strict=True))
_SINKS: Final[dict[str, type[Csv | ParquetWriter | Arrow]]] = {
    ".csv": Csv, ".parquet": ParquetWriter, ".pq": ParquetWriter, ".arrow": Arrow, ".feather": Arrow,
}  # fmt: skip


def run(paths: list[Path], export: Export) -> int:
    """Export the recording; return the exit status. Raises ConfigError and RecordingError."""
    targets = _checked(export)
    recording = read(paths, export.symbols, _moment("--from", export.start), _moment("--until", export.end))
    parts = {channel: target.with_name(target.name + PART) for channel, target in targets.items()}
    writing = _Writing(parts, targets, export)
    try:
        _copy(recording, writing)
        writing.close()
        written = _renamed(writing, targets, parts, export)
    except OSError as error:
        print(f"marketfeed export: cannot write: {error.strerror or error}", file=sys.stderr)
        return 1
    finally:
        writing.abandon()
    return _told(recording, writing, written)


def _checked(export: Export) -> dict[str, Path]:
    """Check the options; return the file of each channel, for the case that both have ticks."""
    to, suffix = export.to, export.to.suffix.lower()
    if suffix not in _SINKS:
        raise ConfigError(f"--to {to}: must end in one of {', '.join(_SINKS)}")
    if _SINKS[suffix] is not Csv:
        try:
            tables.pyarrow()
        except RecordingError as error:
            raise ConfigError(f"--to {to}: {error}") from None
    if export.channel is not None and export.channel not in CHANNELS:
        raise ConfigError(f"--channel {export.channel}: must be {' or '.join(CHANNELS)}")
    if export.prices not in tables.PRICES:
        raise ConfigError(f"--prices {export.prices}: must be one of {', '.join(tables.PRICES)}")
    for name in export.symbols:
        if not (is_symbol(name) or is_pattern(name)):
            raise ConfigError(f"--symbols {name}: must be a symbol, a prefix such as 'BTC*', or '*'")
    if problem := folder_problem(to.parent):
        raise ConfigError(f"--to {to}: {problem}")
    targets = {export.channel: to} if export.channel else {
        channel: to.with_name(f"{to.stem}.{channel}{to.suffix}") for channel in CHANNELS
    }  # fmt: skip
    if export.channel:  # otherwise the files depend on the recording's channels
        _check_free(export, targets.values())
    return targets


def _check_free(export: Export, paths: Iterable[Path]) -> None:
    """Raise ConfigError if one of ``paths`` exists and must not be overwritten."""
    for path in paths:
        if path.exists() and not path.is_file():
            raise ConfigError(f"--to {path}: exists and is not a regular file")
        if path.exists() and not export.force:
            raise ConfigError(f"--to {path}: the file exists; use --force to overwrite it")


def _moment(key: str, text: str | None) -> int | None:
    try:
        if text is not None and _UNIX.fullmatch(text):
            return int(Decimal(text) * 10**9)
        return None if text is None else moment_ns(text)
    except ValueError:
        raise ConfigError(f"{key} {text}: must be a time such as 2026-11-24T20:30, or a Unix time") from None


class _Writing:
    """The open files of an export; each is opened at its first row group."""

    def __init__(self, parts: dict[str, Path], targets: dict[str, Path], export: Export) -> None:
        self._parts, self._targets, self._export = parts, targets, export
        self._sinks: dict[str, TableWriter] = {}
        self._held: dict[str, list[Records]] = {channel: [] for channel in parts}
        self._met: set[str] = set()  # channels that have ticks
        self._names: list[str] = []
        self.rows = dict.fromkeys(parts, 0)
        self.symbols: set[str] = set()

    def add(self, channel: str, records: Records, names: list[str]) -> None:
        """Take ticks, and write them once there are enough for a row group.

        Raises ConfigError as soon as it shows that a file would be written that exists.
        """
        if channel not in self._parts or not len(records):
            return
        self._names = names
        if channel not in self._met:
            self._met.add(channel)
            if len(self._met) == len(self._targets):
                _check_free(self._export, self._targets.values())
        self._held[channel].append(records)
        if sum(map(len, self._held[channel])) >= GROUP_ROWS:
            self._flush(channel)

    def _flush(self, channel: str) -> None:
        if not self._held[channel]:
            return
        records = np.concatenate(self._held[channel])
        self._held[channel] = []
        if channel not in self._sinks:
            path = self._parts[channel]
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sinks[channel] = _SINKS[self._export.to.suffix.lower()](path, channel, self._export)
        self._sinks[channel].write(records, self._names)
        self.rows[channel] += len(records)
        self.symbols.update(self._names[number] for number in np.unique(records["symbol"]).tolist())

    def spells(self, name: str) -> str:
        """Return how a symbol's name is written."""
        in_csv = _SINKS[self._export.to.suffix.lower()] is Csv
        return as_text(name) if in_csv and not self._export.raw else name

    def close(self) -> None:
        """Write what is held, and end the files. Raises OSError."""
        for channel in self._parts:
            self._flush(channel)
        while self._sinks:
            self._sinks.popitem()[1].close()

    def abandon(self) -> None:
        """Close and remove incomplete files."""
        for sink in self._sinks.values():
            with contextlib.suppress(OSError):  # the reason has been reported
                sink.close()
        self._sinks.clear()
        for part in self._parts.values():
            part.unlink(missing_ok=True)


def _copy(recording: Recording, writing: _Writing) -> None:
    total = sum(path.stat().st_size for path in recording.files)
    console = Console(stderr=True)
    columns = (TextColumn("exporting"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("exporting", total=total)
        for chunk in recording.chunks(progress=lambda size: bar.advance(task, size)):
            names = recording.symbols
            for channel, records in zip(CHANNELS, chunk, strict=True):
                writing.add(channel, records, names)


def _renamed(
    writing: _Writing, targets: dict[str, Path], parts: dict[str, Path], export: Export
) -> dict[str, Path]:
    """Rename the files that hold ticks; return them by channel. Raises ConfigError and OSError."""
    there = [channel for channel, rows in writing.rows.items() if rows]
    written = {channel: export.to if len(there) == 1 else targets[channel] for channel in there}
    _check_free(export, written.values())
    for channel in there:
        parts[channel].replace(written[channel])
    return written


def _told(recording: Recording, writing: _Writing, written: dict[str, Path]) -> int:
    say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print
    for channel, path in written.items():
        say(f"{path}: {writing.rows[channel]:,} {channel}, {path.stat().st_size / 1e6:,.1f} MB")
    changed = sorted(name for name in writing.symbols if writing.spells(name) != name)
    if changed:
        few = ", ".join(changed[:5])
        say(f"note: {few}: written with a leading ', so that spreadsheets do not run it; --raw omits the '")
    if recording.gaps:
        say(
            f"note: the recording has {amount(recording.gaps, 'gaps')}:"
            f" {amount(recording.lost, 'ticks')} {'was' if recording.lost == 1 else 'were'} lost"
        )
    for problem in recording.problems:
        say(f"marketfeed export: {problem}")
    if not written:
        say("marketfeed export: nothing written: the recording has no ticks of this selection")
    return 1 if recording.problems or not written else 0
