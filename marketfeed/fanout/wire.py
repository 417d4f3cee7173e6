"""Encodings: assemble fragments into the bytes for a socket, once for a whole group.

    records ──► codec, each tick once ──► fragments ──► encoding ──► WebSocket frame
                                                               ├──► SSE event
                                                               └──► body of a long poll

Encodings with the same codec share lanes, and so the work of the codec; a group has one encoding. The content
of a frame is everything that a session gets between one position and the next. An encoding may pack frames of
large groups, once for all members.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

import orjson

from marketfeed.core.binary import Kind, frame_header, heartbeat_frame
from marketfeed.core.records import RECORD
from marketfeed.fanout.ws_frames import BINARY as BINARY_FRAME
from marketfeed.fanout.ws_frames import TEXT, frame, header

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_POLL_BYTES: Final = 768 << 10  # of messages in one answer to a poll; its list of resets needs the rest
TRADE_HEAD: Final = b'{"T":"t",'  # how the fragment of a trade begins
CodecName = Literal["json", "binary"]


class Moment(NamedTuple):
    """Values that all frames of one flush share."""

    epoch: str
    g: int  # position of the lane after the flush
    sent_ns: int  # Unix


class FrameContent:
    """Content of one frame. ``trades`` is ``ticks`` itself where one sequence holds both channels."""

    __slots__ = ("announced", "messages", "ticks", "trades")

    def __init__(self, mixed: bool) -> None:
        self.announced: Mapping[str, int] = {}  # id by name, of symbols that are new to the client
        self.messages: list[bytes] = []  # JSON; sent before the ticks
        self.ticks: list[bytes] = []
        self.trades: list[bytes] = self.ticks if mixed else []

    def __len__(self) -> int:
        """Return the number of ticks."""
        return len(self.ticks) if self.trades is self.ticks else len(self.ticks) + len(self.trades)

    def trade_count(self) -> int:
        """Return the number of trades; its cost grows with the ticks of both channels."""
        if self.trades is self.ticks:
            return sum(fragment.startswith(TRADE_HEAD) for fragment in self.ticks)
        return len(self.trades)

    def clear(self) -> None:
        """Empty the content for the next flush; the list objects stay the same."""
        self.announced = {}
        self.messages.clear()
        self.ticks.clear()
        self.trades.clear()


class Encoding(Protocol):
    """Assembles frames from fragments and messages. Stateless: times and positions are arguments."""

    @property
    def name(self) -> str:
        """Return the name in requests and metrics."""
        ...

    @property
    def transport(self) -> str:
        """Return the name of the transport: websocket, sse, poll or probe."""
        ...

    @property
    def codec(self) -> CodecName:
        """Return the codec of the fragments."""
        ...

    @property
    def mixed(self) -> bool:
        """Return whether one sequence holds the ticks of both channels."""
        ...

    @property
    def announces(self) -> bool:
        """Return whether fragments refer to symbols by ids, which have to be announced."""
        ...

    @property
    def counted(self) -> bool:
        """Return whether deliveries count: False for the engine's own probes."""
        ...

    @property
    def one_shot(self) -> bool:
        """Return whether a subscriber ends with its first frame, as a long poll does."""
        ...

    def frame(self, content: FrameContent, moment: Moment, ids: bool = True) -> bytes:
        """Return ``content`` as one frame; ``ids``: whether it may carry a cursor."""
        ...

    def messages(self, payload: bytes, sent_ns: int, cursor: str = "") -> bytes:
        """Return ``payload``, a JSON array of messages, as a frame that may carry ``cursor``."""
        ...

    def heartbeat(self, sent_ns: int) -> bytes:
        """Return the frame that is sent to a quiet session."""
        ...

    @property
    def packs(self) -> bool:
        """Return whether :meth:`packed` has an effect."""
        ...

    def packed(self, frame: bytes, members: int, sent_ns: int) -> bytes:
        """Return ``frame`` as a group of ``members`` is sent it."""
        ...

    @property
    def pings(self) -> bool:
        """Return whether the peer answers the pings of RFC 6455."""
        ...


def is_session(encoding: Encoding) -> bool:
    """Return whether a subscriber with ``encoding`` is a client's session, which has a ledger."""
    return encoding.counted and not encoding.one_shot


def _array(content: FrameContent) -> bytes:
    return b",".join(content.messages + content.ticks if content.messages else content.ticks)


class _Plain:
    """Sends frames as they are."""

    packs: bool = False

    def packed(self, frame: bytes, members: int, sent_ns: int) -> bytes:
        """Return the frame unchanged."""
        return frame


class JsonEncoding(_Plain):
    """A WebSocket text frame: one JSON array."""

    name: Final = "json"
    transport: Final = "websocket"
    codec: Final = "json"
    mixed: Final = True
    announces: Final = False
    counted: Final = True
    one_shot: Final = False
    pings: Final = True

    def frame(self, content: FrameContent, moment: Moment, ids: bool = True) -> bytes:
        """Return the content as one array."""
        body = _array(content)
        return b"%b[%b]" % (header(TEXT, len(body) + 2), body)

    def messages(self, payload: bytes, sent_ns: int, cursor: str = "") -> bytes:
        """Return the array as a text frame."""
        return frame(TEXT, payload)

    def heartbeat(self, sent_ns: int) -> bytes:
        """Return a `heartbeat` message."""
        return frame(TEXT, b'[{"T":"heartbeat","t":%d}]' % (sent_ns // 1000))


class BinaryEncoding(_Plain):
    """A WebSocket binary message that holds up to one frame of core/binary.py per kind."""

    name: Final = "binary"
    transport: Final = "websocket"
    codec: Final = "binary"
    mixed: Final = False
    announces: Final = True
    counted: Final = True
    one_shot: Final = False
    pings: Final = True

    def frame(self, content: FrameContent, moment: Moment, ids: bool = True) -> bytes:
        """Return announcements, messages, quotes and trades, in this order; empty ones are left out."""
        sent_ns = moment.sent_ns
        parts = [b""]
        size = 0
        for kind, payload in (
            (Kind.SYMBOLS, orjson.dumps(content.announced) if content.announced else b""),
            (Kind.MESSAGES, b"[%b]" % b",".join(content.messages) if content.messages else b""),
        ):
            if payload:
                parts += (frame_header(kind, len(payload), sent_ns), payload)
                size += len(parts[-2]) + len(payload)
        for kind, records in ((Kind.QUOTES, content.ticks), (Kind.TRADES, content.trades)):
            if records:
                length = len(records) * RECORD.itemsize
                parts.append(frame_header(kind, length, sent_ns))
                size += len(parts[-1]) + length
                parts += records
        parts[0] = header(BINARY_FRAME, size)
        return b"".join(parts)

    def messages(self, payload: bytes, sent_ns: int, cursor: str = "") -> bytes:
        """Return the array as a messages frame."""
        return frame(BINARY_FRAME, frame_header(Kind.MESSAGES, len(payload), sent_ns) + payload)

    def heartbeat(self, sent_ns: int) -> bytes:
        """Return a heartbeat frame, which has no payload."""
        return frame(BINARY_FRAME, heartbeat_frame(sent_ns))


class SseEncoding(_Plain):
    """An event of ``text/event-stream``; its id is a cursor with the ``g`` of its last tick.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    name: Final = "sse"
    transport: Final = "sse"
    codec: Final = "json"
    mixed: Final = True
    announces: Final = False
    counted: Final = True
    one_shot: Final = False
    pings: Final = False

    def frame(self, content: FrameContent, moment: Moment, ids: bool = True) -> bytes:
        """Return the content as one event."""
        if not ids or not content.ticks:
            return b"data: [%b]\n\n" % _array(content)
        last = content.ticks[-1]
        g = last[last.rindex(b":") + 1 : -1]  # cheaper than passing it on for encodings that need none
        return b"id: %b:%b\ndata: [%b]\n\n" % (moment.epoch.encode("ascii"), g, _array(content))

    def messages(self, payload: bytes, sent_ns: int, cursor: str = "") -> bytes:
        """Return the array as an event."""
        return (b"id: %b\n" % cursor.encode("ascii") if cursor else b"") + b"data: %b\n\n" % payload

    def heartbeat(self, sent_ns: int) -> bytes:
        """Return a comment, which clients ignore."""
        return b": heartbeat\n\n"


class PollEncoding(_Plain):
    """The body of an answer to a long poll, except its end, which differs from poll to poll."""

    name: Final = "poll"
    transport: Final = "poll"
    codec: Final = "json"
    mixed: Final = True
    announces: Final = False
    counted: Final = True
    one_shot: Final = True
    pings: Final = False

    def frame(self, content: FrameContent, moment: Moment, ids: bool = True) -> bytes:
        """Return cursor and messages, without ``resumed``, ``reset`` and the closing brace.

        If they exceed MAX_POLL_BYTES, the last ticks are left for the next poll.
        """
        body, g = _array(content), moment.g
        if len(body) > MAX_POLL_BYTES:
            end = body.rindex(b"},{", 0, MAX_POLL_BYTES) + 1
            if end > sum(map(len, content.messages)) + len(content.messages):  # the last one is a tick
                body = body[:end]
                g = int(body[body.rindex(b'"g":') + 4 :].rstrip(b"}").partition(b",")[0])
        return b'{"cursor":"%b:%d","messages":[%b]' % (moment.epoch.encode("ascii"), g, body)

    def messages(self, payload: bytes, sent_ns: int, cursor: str = "") -> bytes:
        """Return the array unchanged."""
        return payload

    def heartbeat(self, sent_ns: int) -> bytes:
        """Return b"": polls end soon."""
        return b""


class ProbeEncoding(JsonEncoding):
    """JSON for the engine's own probes, which have their own groups and are not counted."""

    transport: Final = "probe"  # type: ignore[misc]
    counted: Final = False  # type: ignore[misc]
    pings: Final = False  # type: ignore[misc]


JSON: Final = JsonEncoding()
PROBE: Final = ProbeEncoding()
BINARY: Final = BinaryEncoding()
SSE: Final = SseEncoding()
POLL: Final = PollEncoding()
ENCODINGS: Final[dict[str, Encoding]] = {"json": JSON, "binary": BINARY}  # names that requests accept
