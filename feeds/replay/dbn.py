"""Databento's DBN, versions 1 to 3: files, metadata, and the schemas that can be replayed.

dbn_ticks.py converts records to ticks; dbn_names.py names their instruments.

Source: Databento, "Databento Binary Encoding".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed.core.counts import amount
from marketfeed.errors import ConfigError
from marketfeed.feeds.replay.archives import members, refuse_if_wrong, suffix, verify
from marketfeed.feeds.replay.dbn_names import Instruments, spans_of
from marketfeed.feeds.replay.dbn_ticks import Decoding, Layouts, Venues
from marketfeed.feeds.replay.recording import NOTHING, DamagedError, Decoded, Reporter, Symbol, needs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROBE_BYTES: Final = 1 << 20  # of records; a file without a tick in them is searched no further
_PREFIX_BYTES: Final = 8  # "DBN", version, length of the metadata
_MAX_METADATA: Final = 64 << 20
_QUOTES: Final = ("mbp-1", "mbp-10", "bbo-1s", "bbo-1m", "cmbp-1", "cbbo-1s", "cbbo-1m")
_SAMPLED: Final = ("bbo-1s", "bbo-1m", "cbbo-1s", "cbbo-1m")  # without trades
_SCHEMAS: Final = (*_QUOTES, "tbbo", "tcbbo", "trades")


class Dbn:
    """One DBN file."""

    def __init__(
        self, path: Path, choice: Venues, symbol: Symbol, reporter: Reporter, only_file: bool = True
    ) -> None:
        """Decode the metadata and the first records; raises ConfigError."""
        try:
            import databento_dbn
        except ImportError:
            raise needs("databento-dbn", "dbn", "format: dbn") from None
        self._path = path
        self._choice = choice
        self._symbol = symbol
        self._reporter = reporter
        if suffix(path) == ".zip":
            raise ConfigError(f"path: {path}: DBN files are plain, .zst, .gz, .bz2 or .xz")
        (self._member,) = members(path)
        refuse_if_wrong(path, [self._member])
        self._layouts = Layouts(databento_dbn)
        head = b""
        try:
            for block in self._member.blocks():
                head += block
                if len(head) >= _PREFIX_BYTES and len(head) >= _metadata_end(head):
                    break
        except DamagedError as error:
            raise ConfigError(f"path: {path} is not a complete DBN file: {error}") from None
        end = _metadata_end(head) if head.startswith(b"DBN") and len(head) >= _PREFIX_BYTES else 0
        if not end or len(head) < end:
            raise ConfigError(f"path: {path} does not look like dbn")
        try:
            metadata = databento_dbn.Metadata.decode(head[:end])
        except (databento_dbn.DBNError, ValueError) as error:
            raise ConfigError(f"path: {path}: {error}") from None
        self._start = end
        self._schema = None if metadata.schema is None else str(metadata.schema)
        self._spans = spans_of(metadata)
        self._refuse_schema()
        self._probe(only_file)

    def _refuse_schema(self) -> None:
        """Raise ConfigError if the file's schema holds none of the channels in ``take``."""
        schema, take = self._schema, self._choice.take
        if schema == "mbo" and take != "trades":
            raise ConfigError(
                f"path: {self._path} holds mbo, single orders; quotes from it need an order book: "
                "take = 'trades' replays its trades; mbp-1 and mbp-10 have quotes"
            )
        if schema is not None and schema not in (*_SCHEMAS, "mbo"):
            raise ConfigError(
                f"path: {self._path} holds {schema}, neither quotes nor trades; "
                f"supported are {', '.join(_SCHEMAS)}"
            )
        if (take == "quotes" and schema == "trades") or (take == "trades" and schema in _SAMPLED):
            raise ConfigError(f"take: {take!r}, but {self._path} holds {schema}, which has none")

    def _probe(self, only_file: bool) -> None:
        """Raise ConfigError if instruments of the first records have no names, or a short file has no tick.

        One of several files (``only_file`` is False) may have no tick.
        """
        decoding = self._decoding(lambda name: 0)
        read = records = 0
        passed: dict[str, int] = {}
        damage: list[str] = []
        for data, count, found in self._runs(decoding, damage):
            if len(found.batch):
                return
            read, records = read + data, records + count
            for kind, times in found.passed.items():
                passed[kind] = passed.get(kind, 0) + times
            if read >= PROBE_BYTES:
                break
        if "unnamed instrument" in decoding.notices:
            raise ConfigError(f"symbol: {self._path}: {decoding.notices['unnamed instrument']}")
        if only_file and records and read < PROBE_BYTES and not damage:
            kinds = (
                ", ".join(f"{times:,} {kind}" for kind, times in passed.items())
                or "none of the requested channels"
            )
            raise ConfigError(f"path: {self._path}: no tick in it: {amount(records, 'records')} ({kinds})")

    def _decoding(self, symbol: Symbol) -> Decoding:
        instruments = Instruments(self._spans, self._choice.symbol, symbol)
        if self._choice.merge and instruments.by_venue:
            raise ConfigError("symbol: with merge = 'all' quotes have no {venue} or {publisher}")
        before_trade = self._schema in ("tbbo", "tcbbo")
        return Decoding(self._layouts, instruments, self._choice, before_trade, mixed=self._schema is None)

    def chunks(self) -> Iterator[Decoded]:
        """Yield one decoded pass of the file."""
        for _ in verify(self._path, [self._member]):
            yield NOTHING
        decoding, damage, end = self._decoding(self._symbol), list[str](), self._start
        for run_bytes, count, found in self._runs(decoding, damage):
            end += run_bytes
            self._reporter.read("records", count)
            self._reporter.events(found.events)
            self._reporter.passed(found.passed)
            for about, text in decoding.notices.items():
                self._reporter.notice(about, text)
            yield found
        if damage:
            self._reporter.damaged(f"{self._path}:byte {end}", damage[0], "record")

    def _runs(self, decoding: Decoding, damage: list[str]) -> Iterator[tuple[int, int, Decoded]]:
        """Yield bytes, count and ticks per run of records of one type; appends faults to ``damage``."""
        rest, skip, why = b"", self._start, ""
        blocks = self._member.blocks()
        while True:
            try:
                block = next(blocks, b"")
            except DamagedError as error:
                why, block = str(error), b""
            if not block:
                break
            if skip:
                block, skip = block[skip:], max(skip - len(block), 0)
            rest += block
            while len(rest) > 1 and rest[0] and len(rest) >= rest[0] * 4:
                run_bytes, count, found = decoding.run(rest)
                rest = rest[run_bytes:]
                yield run_bytes, count, found
            if rest and not rest[0]:
                why = "a record of length 0"
                break
        if why or rest:
            damage.append(why or "it ends within a record")


def _metadata_end(head: bytes) -> int:
    return _PREFIX_BYTES + min(int.from_bytes(head[4:8], "little"), _MAX_METADATA)
