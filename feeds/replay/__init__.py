"""Feed type ``replay``: recorded market data, replayed in its own time.

Each format is a module with a :class:`~marketfeed.feeds.replay.recording.Source`, which
decodes the file into ticks with times, in chunks of a few milliseconds. This module
paces, loops and reports recordings of all formats.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
import numpy as np
import trio
from msgspec import Meta
from numpy.typing import NDArray

from marketfeed.errors import ConfigError, ContentError, MarketfeedError, SourceError, gathered
from marketfeed.feeds.replay.binance_raw import BinanceRaw
from marketfeed.feeds.replay.columns import Layout, TableKeys, pattern
from marketfeed.feeds.replay.dbn import Dbn
from marketfeed.feeds.replay.dbn_ticks import Venues
from marketfeed.feeds.replay.delimited import Delimited
from marketfeed.feeds.replay.files import InOrder, files_of
from marketfeed.feeds.replay.frames import Frames
from marketfeed.feeds.replay.lines import Lines
from marketfeed.feeds.replay.parquet import Parquet
from marketfeed.feeds.replay.recording import Decoded, Reporter, Source, Symbol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from marketfeed.core.records import Batch
    from marketfeed.ingest.feed import Intake, Pass, Publish

FORMATS: Final = ("binance-raw", "csv", "parquet", "dbn", "marketfeed")
FOR_DBN: Final = ("symbol", "merge")  # keys of TableKeys that dbn shares
TABLES: Final = ("csv", "parquet")
Times = NDArray[np.int64]  # (k,) ns since the Unix epoch
SLOT_NS: Final = 1_000_000  # of replay time; ticks due within one slot are one batch


class ReplayConfig(TableKeys, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Keys of a ``[[feeds]]`` table of type ``replay``; those of TableKeys are for csv and parquet."""

    path: str
    format: str = "binance-raw"
    speed: Annotated[float, Meta(ge=0, le=1_000_000)] = 1.0  # 1.0: as recorded; 0: unpaced
    loop: bool = False
    start_sessions: Annotated[int, Meta(ge=0)] = 0
    clock: Annotated[str, Meta(max_length=64)] = ""  # feeds with the same clock are replayed in step
    take: Literal["all", "quotes", "trades"] = "all"  # channels of a DBN file


class ReplayFeed:
    """Replays one recording.

    ``ts_recv`` is the time of replay; ``ts_event`` stays the venue's time.
    """

    Config = ReplayConfig

    def __init__(self, config: ReplayConfig, intake: Intake) -> None:
        """Decode the first rows; raises ConfigError if the recording does not match ``config``."""
        self.start_sessions = config.start_sessions
        self._config = config
        self._intake = intake
        self._clock = intake.clock(config.clock, config.speed, config.loop)
        self._reporter = Reporter(intake)
        self._published = 0  # ticks, in the current run
        self._refused = False  # the symbol table refused a name; its ticks are dropped
        try:
            self._source = _source(config, intake, self._symbol, self._reporter)
        except Exception as error:
            if isinstance(error, MarketfeedError):
                raise
            # A file may hold anything; a decoder that fails on it cannot replay it.
            raise ContentError(f"path: {config.path} cannot be read: {_one_line(error)}") from error

    def _symbol(self, name: str) -> int | None:
        number = self._intake.symbol(name)
        self._refused = self._refused or number is None
        return number

    async def run(self, publish: Publish) -> None:
        """Publish the recording in its own time; with ``loop``, repeatedly.

        Raises SourceError after a pass in which a file was damaged or held no
        tick, and immediately when a decoder fails: another run would publish
        the same ticks and stop at the same place.
        Raises OSError if a file cannot be opened.
        """
        self._published = 0
        while True:
            self._reporter.begin()
            published = self._published
            try:
                await self._replay(publish)
            except SourceError:
                raise
            except Exception as error:
                if isinstance(error, OSError) and not self._published:
                    raise
                where = f"{self._config.path}, after {self._published} ticks"
                raise SourceError(f"{where}: {_one_line(error)}") from error
            if self._reporter.damage:
                raise SourceError(self._reporter.damage)
            if self._published == published and not self._refused:
                raise SourceError(f"{self._config.path}: no tick in it: {self._reporter.account()}")
            if not self._config.loop:
                return
            await trio.lowlevel.checkpoint()  # a file without ticks must not block the event loop

    async def _replay(self, publish: Publish) -> None:
        under_way: Pass | None = None
        finished = False
        try:
            last_ns = 0
            for decoded in self.chunks():
                if not len(decoded.times_ns):
                    await trio.lowlevel.checkpoint()
                    continue
                if under_way is None:
                    last_ns = int(decoded.times_ns[0])
                    under_way = await self._clock.begin(last_ns)
                # If the recorded time steps back, later ticks are due at once.
                times = np.maximum.accumulate(np.maximum(decoded.times_ns, last_ns))
                last_ns = int(times[-1])
                self._published += len(times)
                late = int(np.searchsorted(times, under_way.from_ns)) if under_way.from_ns > times[0] else 0
                self._reporter.events({"before_clock": late})
                if self._config.speed == 0:
                    await self._publish_at_once(decoded.batch, times, late, publish)
                else:
                    await self._publish_in_time(decoded.batch, times, late, under_way, publish)
            if under_way is None:
                await self._clock.begin(None)
            finished = True
        finally:
            self._clock.end(finished)

    async def _publish_in_time(
        self, batch: Batch, times: Times, start: int, under_way: Pass, publish: Publish
    ) -> None:
        """Publish the ticks of ``batch`` from ``start`` on when they are due; ``times`` never decrease."""
        due = ((times - under_way.began_ns) / self._config.speed).astype(np.int64)
        slots = due[start:] // SLOT_NS
        edges = [start, *(np.flatnonzero(np.diff(slots)) + 1 + start).tolist(), len(times)]
        for at, end in pairwise(edges):
            while at < end:
                bound_ns = await self._clock.wait_earliest(int(times[at]))
                await trio.sleep_until(under_way.began_s + int(due[at]) / 1e9)
                stop = min(end, int(np.searchsorted(times, bound_ns, "right")))
                publish(batch.cut(at, stop))
                at = stop

    async def _publish_at_once(self, batch: Batch, times: Times, at: int, publish: Publish) -> None:
        """Publish the ticks of ``batch`` from ``at`` on, at the pace of the sessions that get every tick."""
        pending = _PendingBatch(batch, times, at, publish)
        while (next_ns := pending.next_ns) is not None:
            await self._clock.wait_earliest(next_ns, pending)
            if pending.next_ns is not None:  # another feed's play() may have published it all
                self._clock.play(await self._intake.wait_room())

    def chunks(self) -> Iterator[Decoded]:
        """Yield one decoded pass of the recording; broken rows are counted and logged."""
        return self._source.chunks()

    @property
    def damage(self) -> str:
        """Place and reason of the first damage in the current pass; "" if there is none."""
        return self._reporter.damage


class _PendingBatch:
    """The unpublished rest of a batch; implements :class:`~marketfeed.ingest.feed.PendingBatch`."""

    def __init__(self, batch: Batch, times: Times, at: int, publish: Publish) -> None:
        self._batch, self._times, self._at, self._publish = batch, times, at, publish

    @property
    def next_ns(self) -> int | None:
        return int(self._times[self._at]) if self._at < len(self._times) else None

    def publish(self, upto_ns: int, most: int) -> int:
        at = self._at
        self._at = end = min(at + most, int(np.searchsorted(self._times, upto_ns, "right")))
        self._publish(self._batch if end - at == len(self._batch) else self._batch.cut(at, end))
        return end - at


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _source(config: ReplayConfig, intake: Intake, symbol: Symbol, reporter: Reporter) -> Source:
    """Open the recording that ``config`` names; raises ConfigError."""
    if config.format not in FORMATS:
        raise ConfigError(f"format: {config.format!r} is not one of {', '.join(FORMATS)}")
    found: list[str] = []
    if config.format not in TABLES:
        for field in msgspec.structs.fields(TableKeys):
            unset = {} if field.default is msgspec.NODEFAULT else field.default
            for_dbn = field.name in FOR_DBN
            if getattr(config, field.name) != unset and not (for_dbn and config.format == "dbn"):
                formats = "csv, parquet or dbn" if for_dbn else "csv or parquet"
                found.append(f"{field.name}: only with format {formats}")
    else:
        with gathered(found):
            Layout(config, config.format)  # before opening files, so that all mistakes are reported
    if config.take != "all" and config.format != "dbn":
        found.append("take: only with format dbn")
    if config.format == "dbn" and config.merge == "exchange":
        found.append("merge: with dbn 'none' or 'all'; symbol = '{symbol}.{venue}' keeps venues apart")
    path, paths = intake.base / config.path, []
    with gathered(found):
        paths = files_of(path, config.format, None if found else pattern(config.member))
    if found:
        raise ConfigError(*found)
    try:
        return _opened(config, path, paths, symbol, reporter)
    except ConfigError as error:
        raise ContentError(*error.mistakes) from error.__cause__


def _opened(
    config: ReplayConfig, path: Path, paths: list[Path], symbol: Symbol, reporter: Reporter
) -> Source:
    if config.format == "marketfeed":
        return Frames(paths, symbol, reporter)
    only_file = paths == [path]  # one of several files may have no tick

    def opened(path: Path) -> Source:
        match config.format:
            case "csv":
                return Delimited(path, config, symbol, reporter, only_file)
            case "parquet":
                return Parquet(path, config, symbol, reporter, only_file)
            case "dbn":
                choice = Venues(config.symbol or "{symbol}", config.merge == "all", config.take)
                return Dbn(path, choice, symbol, reporter, only_file)
            case _:
                return Lines(path, config.format, BinanceRaw, symbol, reporter, only_file)

    return opened(path) if only_file else InOrder(paths, opened, reporter)
