"""Binary frames: records as they are in memory, behind a 16-byte header. Bytes in, values out; no I/O.

The same frames are sent to subscribers with the binary encoding, received from publishers and stored in
recordings. A stream is a sequence of frames:

    version u8 | kind u8 | flags u16 | length u32 (payload bytes) | sent_ns u64, little-endian; payload

Payloads are records of :data:`QUOTE` or :data:`TRADE`, or JSON. The parser returns them as views of its
input; only a frame that arrives in several parts is copied, once. ``tests/core/test_binary.py`` pins every
offset.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import orjson

from marketfeed.core.records import QUOTE, TRADE, Records
from marketfeed.core.symbols import MAX_SYMBOLS, is_symbol
from marketfeed.errors import FeedProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

VERSION: Final = 1
HEADER: Final = struct.Struct("<BBHIQ")
RECORD_BYTES: Final = QUOTE.itemsize
MAX_PAYLOAD_BYTES: Final = 16 << 20  # 262,144 records; bounds the memory of a reader
MAX_SYMBOLS_BYTES: Final = 4 << 20  # the longest announcement of 65,536 names is 2.3 MB


class Kind(IntEnum):
    """Kind of payload."""

    SYMBOLS = 1  # a JSON object of names and ids; announces each id before its first use
    QUOTES = 2
    TRADES = 3
    MESSAGES = 4  # a JSON array of messages: everything that is not a tick
    HEARTBEAT = 5  # no payload


_LIMITS: Final = {
    Kind.SYMBOLS: MAX_SYMBOLS_BYTES,
    Kind.QUOTES: MAX_PAYLOAD_BYTES,
    Kind.TRADES: MAX_PAYLOAD_BYTES,
    Kind.MESSAGES: MAX_PAYLOAD_BYTES,
    Kind.HEARTBEAT: 0,
}
_DTYPES: Final = {Kind.QUOTES: QUOTE, Kind.TRADES: TRADE}


def frame_header(kind: Kind, length: int, sent_ns: int) -> bytes:
    """Return the header of a frame whose payload has ``length`` bytes.

    Raises ValueError if ``length`` exceeds the limit of the kind.
    """
    if length > _LIMITS[kind]:
        raise ValueError(f"a {kind.name.lower()} frame holds at most {_LIMITS[kind]} bytes, not {length}")
    return HEADER.pack(VERSION, kind, 0, length, sent_ns)


def symbols_frame(ids: Mapping[str, int], sent_ns: int) -> bytes:
    """Return a frame that announces ``ids``, symbol name to id."""
    payload = orjson.dumps(dict(ids))
    return frame_header(Kind.SYMBOLS, len(payload), sent_ns) + payload


def quotes_frame(records: Records, sent_ns: int) -> bytes:
    """Return a frame of QUOTE records, shape ``(k,)``."""
    return _records_frame(Kind.QUOTES, records, sent_ns)


def trades_frame(records: Records, sent_ns: int) -> bytes:
    """Return a frame of TRADE records, shape ``(k,)``."""
    return _records_frame(Kind.TRADES, records, sent_ns)


def _records_frame(kind: Kind, records: Records, sent_ns: int) -> bytes:
    if records.dtype != _DTYPES[kind]:
        raise ValueError(f"a {kind.name.lower()} frame does not hold {records.dtype}")
    payload = np.ascontiguousarray(records).view(np.uint8)
    return b"".join((frame_header(kind, payload.nbytes, sent_ns), payload.data))


def messages_frame(fragments: Sequence[bytes], sent_ns: int) -> bytes:
    """Return a frame that holds the JSON ``fragments`` as one array."""
    body = b",".join(fragments)
    return b"%b[%b]" % (frame_header(Kind.MESSAGES, len(body) + 2, sent_ns), body)


def heartbeat_frame(sent_ns: int) -> bytes:
    """Return a heartbeat frame, which has no payload."""
    return frame_header(Kind.HEARTBEAT, 0, sent_ns)


class Frame(NamedTuple):
    """One received frame; ``payload`` is a view that keeps its buffer alive."""

    kind: Kind
    flags: int
    sent_ns: int
    payload: memoryview

    def records(self) -> Records:
        """Return the payload of a quotes or trades frame, shape ``(k,)``: a read-only view."""
        return np.frombuffer(self.payload, _DTYPES[self.kind])

    def symbols(self) -> dict[str, int]:
        """Return the ids of a symbols frame by name; raises FeedProtocolError if it is invalid."""
        announced: dict[str, int] = {}
        for batch in self.symbols_in_batches():
            announced.update(batch)
        return announced

    def symbols_in_batches(self, size: int = 2048) -> Iterator[list[tuple[str, int]]]:
        """Yield the names and ids of a symbols frame in lists of ``size``; other tasks can run in between.

        All names are validated before the first list that is not empty: until then the lists are empty.
        Raises FeedProtocolError as :meth:`symbols` does.
        """
        announced = self._json()
        if not isinstance(announced, dict):
            raise FeedProtocolError("a symbols frame must hold a JSON object")
        pairs = list(announced.items())
        for start in range(0, len(pairs), size):
            if start:
                yield []
            for name, number in pairs[start : start + size]:
                if not is_symbol(name):
                    raise FeedProtocolError(f"a symbols frame contains an invalid symbol: {name[:40]!r}")
                # type(), because isinstance(True, int) is True.
                if type(number) is not int or not 0 <= number < MAX_SYMBOLS:
                    raise FeedProtocolError(
                        f"a symbols frame gives {name} the id {str(number)[:40]}, not 0 to {MAX_SYMBOLS - 1}"
                    )
        if len(set(announced.values())) != len(announced):
            raise FeedProtocolError("a symbols frame gives one id to two names")
        for start in range(0, len(pairs), size):
            yield pairs[start : start + size]

    def messages(self) -> list[Any]:
        """Return the messages of a messages frame; raises FeedProtocolError if they are not a JSON array."""
        messages = self._json()
        if not isinstance(messages, list):
            raise FeedProtocolError("a messages frame must hold a JSON array")
        return messages

    def _json(self) -> Any:
        try:
            return orjson.loads(self.payload)
        except orjson.JSONDecodeError as error:
            raise FeedProtocolError(f"a {self.kind.name.lower()} frame is not JSON: {error}") from None


class FrameParser:
    """Incremental parser: takes a stream in parts of any size and returns its frames in order.

    After the first FeedProtocolError each further call raises it again.
    """

    def __init__(self) -> None:
        self._input = memoryview(b"")  # not parsed yet
        self._started = bytearray()  # a frame that continues after the present input
        self._broken: FeedProtocolError | None = None

    @property
    def pending_bytes(self) -> int:
        """Bytes that belong to no returned frame yet."""
        return len(self._started) + len(self._input)

    def feed(self, data: bytes) -> None:
        """Append ``data``, which must be immutable. Parses nothing."""
        if len(self._input):  # not all frames were requested
            data = bytes(self._input) + data
        self._input = memoryview(data)

    def next_frame(self) -> Frame | None:
        """Return the next complete frame, None if more input is needed.

        Raises FeedProtocolError for an invalid header as soon as it is complete, before its payload.
        """
        if self._broken is not None:
            raise self._broken
        try:
            return self._continued_frame() if self._started else self._whole_frame()
        except FeedProtocolError as error:
            self._broken = error
            raise

    def __iter__(self) -> Iterator[Frame]:
        """Iterate over the complete frames."""
        while (frame := self.next_frame()) is not None:
            yield frame

    def _whole_frame(self) -> Frame | None:
        data = self._input
        if len(data) >= HEADER.size:
            kind, flags, length, sent_ns = _checked(data)
            end = HEADER.size + length
            if len(data) >= end:
                self._input = data[end:]
                return Frame(kind, flags, sent_ns, data[HEADER.size : end])
        self._move(len(data))
        return None

    def _continued_frame(self) -> Frame | None:
        started = self._started
        if len(started) < HEADER.size:
            self._move(HEADER.size - len(started))
            if len(started) < HEADER.size:
                return None
        kind, flags, length, sent_ns = _checked(started)
        end = HEADER.size + length
        self._move(end - len(started))
        if len(started) < end:
            return None
        self._started = bytearray()
        return Frame(kind, flags, sent_ns, memoryview(started).toreadonly()[HEADER.size :])

    def _move(self, size: int) -> None:
        """Move up to ``size`` bytes from the input to the started frame."""
        self._started += self._input[:size]
        self._input = self._input[size:]


def _checked(data: bytearray | memoryview) -> tuple[Kind, int, int, int]:
    """Parse the header at the start of ``data``; raises FeedProtocolError."""
    version, number, flags, length, sent_ns = HEADER.unpack_from(data)
    if version != VERSION:
        raise FeedProtocolError(f"frame version {version}, not {VERSION}")
    limit = _LIMITS.get(number)
    if limit is None:
        raise FeedProtocolError(f"frame kind {number}, not 1 to {max(Kind)}")
    kind = Kind(number)
    if length > limit:
        raise FeedProtocolError(f"a {kind.name.lower()} frame of {length} bytes; at most {limit}")
    if kind in _DTYPES and length % RECORD_BYTES:
        raise FeedProtocolError(
            f"a {kind.name.lower()} frame of {length} bytes, no multiple of {RECORD_BYTES}"
        )
    return kind, flags, length, sent_ns
