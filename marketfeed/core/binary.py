"""Binary frames: ticks as they lie in memory, behind a 16-byte header. Bytes in, values out; no I/O.

The same frames go to subscribers that chose binary, come from publishers, and
fill recordings. A stream is frames back to back:

    version u8 | kind u8 | flags u16 | length u32 (payload bytes) | sent_ns u64, little-endian; payload

Payloads are records of :data:`QUOTE` or :data:`TRADE`, or JSON. The parser
hands them out as views of what it was fed; only a frame that arrives in pieces
is put together, once. ``tests/core/test_binary.py`` pins every offset.
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
MAX_PAYLOAD_BYTES: Final = 16 << 20  # 262,144 records; what one frame may make a reader hold
MAX_SYMBOLS_BYTES: Final = 4 << 20  # the longest announcement of 65,536 names is 2.3 MB


class Kind(IntEnum):
    """What a frame's payload is."""

    SYMBOLS = 1  # a JSON object, name to id; announces each id before its first use
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

    Raises ValueError if that is more than a frame of this kind may hold.
    """
    if length > _LIMITS[kind]:
        raise ValueError(f"a {kind.name.lower()} frame holds at most {_LIMITS[kind]} bytes, not {length}")
    return HEADER.pack(VERSION, kind, 0, length, sent_ns)


def symbols_frame(ids: Mapping[str, int], sent_ns: int) -> bytes:
    """Return the frame that announces ``ids``, symbol name to id."""
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
    """Return a frame that says no more than that its sender lives."""
    return frame_header(Kind.HEARTBEAT, 0, sent_ns)


class Frame(NamedTuple):
    """One frame as received; ``payload`` is a view that keeps what it views alive."""

    kind: Kind
    flags: int
    sent_ns: int
    payload: memoryview

    def records(self) -> Records:
        """Return the payload of a quotes or trades frame, shape ``(k,)``: a view, not to be written."""
        return np.frombuffer(self.payload, _DTYPES[self.kind])

    def symbols(self) -> dict[str, int]:
        """Return what a symbols frame announces; raises FeedProtocolError if not names to u2 ids."""
        announced: dict[str, int] = {}
        for piece in self.symbols_in_pieces():
            announced.update(piece)
        return announced

    def symbols_in_pieces(self, size: int = 2048) -> Iterator[list[tuple[str, int]]]:
        """Yield what a symbols frame announces, ``size`` names at a time, so that others get their turns.

        All are checked before the first piece: meanwhile pieces are empty. Raises FeedProtocolError as
        :meth:`symbols` does.
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
                    raise FeedProtocolError(f"a symbols frame names what is no symbol: {name[:40]!r}")
                # type() as True is an int to isinstance.
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
    """Takes a stream in pieces of any size and gives its frames, in order.

    A broken stream stays broken: after the first FeedProtocolError, each
    further call for a frame raises it again.
    """

    def __init__(self) -> None:
        self._piece = memoryview(b"")  # fed, not yet looked at
        self._started = bytearray()  # the frame that did not end in its piece
        self._broken: FeedProtocolError | None = None

    @property
    def pending_bytes(self) -> int:
        """How many bytes wait: of a started frame, once there is no whole one left."""
        return len(self._started) + len(self._piece)

    def feed(self, data: bytes) -> None:
        """Take ``data``, immutable; it costs nothing until frames are asked for."""
        if len(self._piece):  # frames were left untaken
            data = bytes(self._piece) + data
        self._piece = memoryview(data)

    def next_frame(self) -> Frame | None:
        """Return the next whole frame, or None until more is fed.

        Raises FeedProtocolError, with the reason, for a header that cannot be
        one, as soon as it is complete: nobody has to wait for its payload.
        """
        if self._broken is not None:
            raise self._broken
        try:
            return self._frame_in_pieces() if self._started else self._frame_in_one()
        except FeedProtocolError as error:
            self._broken = error
            raise

    def __iter__(self) -> Iterator[Frame]:
        """Yield the whole frames there are."""
        while (frame := self.next_frame()) is not None:
            yield frame

    def _frame_in_one(self) -> Frame | None:
        piece = self._piece
        if len(piece) >= HEADER.size:
            kind, flags, length, sent_ns = _checked(piece)
            end = HEADER.size + length
            if len(piece) >= end:
                self._piece = piece[end:]
                return Frame(kind, flags, sent_ns, piece[HEADER.size : end])
        self._take(len(piece))
        return None

    def _frame_in_pieces(self) -> Frame | None:
        started = self._started
        if len(started) < HEADER.size:
            self._take(HEADER.size - len(started))
            if len(started) < HEADER.size:
                return None
        kind, flags, length, sent_ns = _checked(started)
        end = HEADER.size + length
        self._take(end - len(started))
        if len(started) < end:
            return None
        self._started = bytearray()
        return Frame(kind, flags, sent_ns, memoryview(started).toreadonly()[HEADER.size :])

    def _take(self, size: int) -> None:
        """Move up to ``size`` bytes from the piece to the started frame."""
        self._started += self._piece[:size]
        self._piece = self._piece[size:]


def _checked(data: bytearray | memoryview) -> tuple[Kind, int, int, int]:
    """Return kind, flags, length and sent_ns of the header at the start of ``data``, or say what is wrong."""
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
