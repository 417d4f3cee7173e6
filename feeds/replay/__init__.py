"""Recordings of real sessions, replayed in time.

A format is a module with a ``Decoder``: pure, from a chunk of lines to ticks.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np
import trio
from msgspec import Meta

from feeds.replay.binance_raw import BinanceRaw
from feeds.replay.recording import Decoded, Decoder
from marketfeed.errors import ConfigError
from marketfeed.ingest.feed import Intake, Publish

CHUNK_LINES: Final = 256  # decoded in one go, about 1 ms
SLOT_NS: Final = 1_000_000  # ticks due within this of replay time are one batch
LOGGED_LINES: Final = 10  # broken lines logged one by one; further ones are counted


FORMATS: Final[dict[str, type[Decoder]]] = {"binance-raw": BinanceRaw}


class ReplayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keys of a ``[[feeds]]`` table of type ``replay``."""

    path: str
    format: str = "binance-raw"
    speed: Annotated[float, Meta(ge=0, le=1e6)] = 1.0  # 1.0 as recorded, 0 as fast as it goes
    loop: bool = False
    start_sessions: Annotated[int, Meta(ge=0)] = 0


class ReplayFeed:
    """Replays one file. Ticks are stamped with the time of replay; ``ts_event`` stays the venue's."""

    Config = ReplayConfig

    def __init__(self, config: ReplayConfig, intake: Intake) -> None:
        if config.format not in FORMATS:
            raise ConfigError(f"format: {config.format!r} is not one of {', '.join(FORMATS)}")
        self.start_sessions = config.start_sessions
        self._decoder = FORMATS[config.format]()
        self._config = config
        self._intake = intake
        self._path = intake.base / config.path
        self._logged = 0
        try:
            with open_lines(self._path) as file:
                first_lines = list(islice(file, 20))
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(f"path: {self._path}: {getattr(error, 'strerror', None) or error}") from None
        if not self._decoder.looks_right(first_lines):
            raise ConfigError(f"path: {self._path} does not look like {config.format}")

    async def run(self, publish: Publish) -> None:
        """Publish the recording in its own time; again and again with ``loop``."""
        while True:
            await self._replay(publish)
            if not self._config.loop:
                return
            await trio.lowlevel.checkpoint()  # a file without ticks must not keep the engine to itself

    async def _replay(self, publish: Publish) -> None:
        start_s, first_ns = trio.current_time(), None
        for decoded in self.chunks():
            times = decoded.times_ns
            if not len(times):
                await trio.lowlevel.checkpoint()
                continue
            if first_ns is None:
                first_ns = int(times[0])
            if self._config.speed == 0:
                publish(decoded.batch)
                await trio.lowlevel.checkpoint()
                continue
            # When each tick is due, in ns after the start; a clock that went
            # back in the recording does not hold up what follows.
            due = np.maximum.accumulate(((times - first_ns) / self._config.speed).astype(np.int64))
            slots = due // SLOT_NS
            edges = [0, *(np.flatnonzero(np.diff(slots)) + 1).tolist(), len(slots)]
            for start, end in pairwise(edges):
                await trio.sleep_until(start_s + int(due[start]) / 1e9)
                publish(decoded.batch.cut(start, end))

    def chunks(self) -> Iterator[Decoded]:
        """Yield the file decoded, CHUNK_LINES lines at a time; what is broken is counted and logged."""
        line_number, damage = 1, None
        with open_lines(self._path) as file:
            while damage is None:
                lines: list[bytes] = []
                try:
                    lines.extend(islice(file, CHUNK_LINES))
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    damage = error  # what came before it is whole
                if not lines:
                    break
                decoded = self._decoder.decode(lines, self._intake.symbol)
                for event, times in decoded.events.items():
                    self._intake.count(event, times)
                for offset, what in decoded.broken:
                    self._tell_broken(line_number + offset, what)
                line_number += len(lines)
                yield decoded
        if damage is not None:
            self._tell_broken(line_number, f"the file is damaged from here on: {damage}")

    def _tell_broken(self, line: int, what: str) -> None:
        self._intake.count("broken_line")
        self._logged += 1
        if self._logged <= LOGGED_LINES:
            if self._logged == LOGGED_LINES:
                what += "; further broken lines are only counted"
            self._intake.log.warning("broken line", at=f"{self._path}:{line}", reason=what)


def open_lines(path: Path) -> io.BufferedIOBase:
    """Open ``path`` for reading lines of bytes, unpacked if its name ends in .gz."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")
