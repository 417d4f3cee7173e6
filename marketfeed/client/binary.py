"""Binary messages of the engine as arrays: docs/protocol.md#binary. Records are views of the message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from marketfeed.client.messages import decode
from marketfeed.core.binary import HEADER, RECORD_BYTES, VERSION, Frame, Kind
from marketfeed.core.records import NO_QUOTES, NO_TRADES, QUOTE, TRADE, Records
from marketfeed.errors import FeedProtocolError

if TYPE_CHECKING:
    from marketfeed.client.messages import FromEngine

_TICKS: Final = {Kind.QUOTES: QUOTE, Kind.TRADES: TRADE}


class Contents(NamedTuple):
    """What one binary message holds. Arrays have shape ``(k,)`` and do not own their memory."""

    quotes: Records
    trades: Records
    symbols: dict[str, int]  # announced ids by name
    messages: list[FromEngine]
    sent_ns: int  # by the engine's clock
    unknown: int  # messages and frames of kinds that this version does not know


def contents_of(data: bytes) -> Contents:
    """Return what ``data`` holds; raises FeedProtocolError if it is no sequence of whole frames.

    Frames of unknown kinds are passed over.
    """
    symbols: dict[str, int] = {}
    messages: list[FromEngine] = []
    ticks: dict[int, list[Records]] = {Kind.QUOTES: [], Kind.TRADES: []}
    position = sent_ns = unknown = 0
    while position < len(data):
        kind, begin, position, sent_ns = _frame(data, position)
        if dtype := _TICKS.get(kind):  # type: ignore[call-overload]
            if (position - begin) % RECORD_BYTES:
                raise FeedProtocolError(f"{position - begin} bytes of records")
            ticks[kind].append(np.frombuffer(data, dtype, (position - begin) // RECORD_BYTES, begin))
        elif kind == Kind.SYMBOLS:
            payload = memoryview(data)[begin:position]
            symbols.update(Frame(Kind.SYMBOLS, 0, sent_ns, payload).symbols())
        elif kind == Kind.MESSAGES:
            try:
                found, passed = decode(memoryview(data)[begin:position])
            except (msgspec.DecodeError, RecursionError) as error:
                raise FeedProtocolError(f"a messages frame is not a JSON array: {error}") from None
            messages += found
            unknown += passed
        elif kind != Kind.HEARTBEAT:
            unknown += 1
    quotes, trades = _joined(ticks[Kind.QUOTES], NO_QUOTES), _joined(ticks[Kind.TRADES], NO_TRADES)
    return Contents(quotes, trades, symbols, messages, sent_ns, unknown)


def _frame(data: bytes, position: int) -> tuple[int, int, int, int]:
    """Return kind, beginning and end of the payload, and time of sending of the frame at ``position``."""
    if len(data) - position < HEADER.size:
        raise FeedProtocolError("a frame's header is cut off")
    version, kind, _, length, sent_ns = HEADER.unpack_from(data, position)
    if version != VERSION:
        raise FeedProtocolError(f"frame version {version}, not {VERSION}")
    begin = position + HEADER.size
    if len(data) - begin < length:
        raise FeedProtocolError(f"a frame of {length} bytes is cut off")
    return kind, begin, begin + length, sent_ns


def _joined(parts: list[Records], none: Records) -> Records:
    if not parts:
        return none
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
