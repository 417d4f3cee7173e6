"""How fragments become what goes into a socket: one frame, event or body for a whole group.

    records ──► codec, each tick once ──► fragments ──► encoding ──► frame of a WebSocket
                                                               ├──► event of SSE
                                                               └──► body of a long poll

Encodings with the same codec share lanes, and so the work of encoding; a
group has one encoding. To say what a frame holds there is the step:
everything that a session gets between one position and the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

import orjson

from marketfeed.core.binary import Kind, frame_header, heartbeat_frame
from marketfeed.core.records import RECORD
from marketfeed.fanout.ws_frames import BINARY as BINARY_FRAME
from marketfeed.fanout.ws_frames import PING, TEXT, frame, header

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_POLL_BYTES: Final = 768 << 10  # of messages in one body of a poll; its list of resets takes the rest
CodecName = Literal["json", "binary"]


class Moment(NamedTuple):
    """What all frames of one flush have in common."""

    epoch: str
    g: int  # where the lane stands then
    sent_ns: int  # Unix


class FrameContent:
    """What one frame is to hold. ``trades`` is ``ticks`` itself where one sequence holds both channels."""

    __slots__ = ("announced", "messages", "ticks", "trades")

    def __init__(self, mixed: bool) -> None:
        self.announced: Mapping[str, int] = {}  # ids by name, of symbols not used before
        self.messages: list[bytes] = []  # JSON, what comes before the ticks
        self.ticks: list[bytes] = []
        self.trades: list[bytes] = self.ticks if mixed else []

    def __len__(self) -> int:
        """Return how many ticks it holds."""
        return len(self.ticks) if self.trades is self.ticks else len(self.ticks) + len(self.trades)

    def clear(self) -> None:
        """Empty it for the next flush; the lists stay the same."""
        self.announced = {}
        self.messages.clear()
        self.ticks.clear()
        self.trades.clear()


class Encoding(Protocol):
    """One way to write steps and messages. Stateless: what depends on time or place is an argument."""

    @property
    def name(self) -> str:
        """Return its name, as requests and metrics have it."""
        ...

    @property
    def transport(self) -> str:
        """Return what carries it: websocket, sse or poll."""
        ...

    @property
    def codec(self) -> CodecName:
        """Return which codec's fragments it takes."""
        ...

    @property
    def mixed(self) -> bool:
        """Return whether one sequence holds both channels; else each has its own."""
        ...

    @property
    def announces(self) -> bool:
        """Return whether fragments name symbols by ids, which have to be announced."""
        ...

    @property
    def counted(self) -> bool:
        """Return whether deliveries count: False for the engine's own probes."""
        ...

    @property
    def one_shot(self) -> bool:
        """Return whether a subscriber ends with its first frame, as a long poll does."""
        ...

    def frame(self, step: FrameContent, moment: Moment, ids: bool = True) -> bytes:
        """Return ``step`` as one frame; ``ids``: the position after it may be told as a cursor."""
        ...

    def messages(self, payload: bytes, sent_ns: int, cursor: str = "") -> bytes:
        """Return a JSON array of messages as a frame, perhaps with the cursor that holds after it."""
        ...

    def heartbeat(self, sent_ns: int) -> bytes:
        """Return what is sent when nothing else was."""
        ...

    def ping(self) -> bytes:
        """Return what the peer has to answer, b"" if there is no such thing."""
        ...


def is_session(encoding: Encoding) -> bool:
    """Return whether a subscriber with ``encoding`` is a client's session, which has a ledger."""
    return encoding.counted and not encoding.one_shot


def _array(step: FrameContent) -> bytes:
    return b",".join(step.messages + step.ticks if step.messages else step.ticks)


class JsonEncoding:
    """A WebSocket text frame: one JSON array."""

    name: Final = "json"
    transport: Final = "websocket"
    codec: Final = "json"
    mixed: Final = True
    announces: Final = False
    counted: Final = True
    one_shot: Final = False

    def frame(self, step: FrameContent, moment: Moment, ids: bool = True) -> bytes:
        """Return the step as one array."""
        body = _array(step)
        return b"%b[%b]" % (header(TEXT, len(body) + 2), body)

    def messages(self, payload: bytes, sent_ns: int, cursor: str = "") -> bytes:
        """Return the array as a text frame."""
        return frame(TEXT, payload)

    def heartbeat(self, sent_ns: int) -> bytes:
        """Return a message of its own."""
        return frame(TEXT, b'[{"T":"heartbeat","t":%d}]' % (sent_ns // 1000))

    def ping(self) -> bytes:
        """Return a ping of RFC 6455."""
        return frame(PING, b"")


class BinaryEncoding:
    """A WebSocket binary message: up to one frame of core/binary.py for each kind of thing."""

    name: Final = "binary"
    transport: Final = "websocket"
    codec: Final = "binary"
    mixed: Final = False
    announces: Final = True
    counted: Final = True
    one_shot: Final = False

    def frame(self, step: FrameContent, moment: Moment, ids: bool = True) -> bytes:
        """Return announcements, messages, quotes and trades, in this order, as far as there are any."""
        sent_ns = moment.sent_ns
        parts = [b""]
        size = 0
        for kind, payload in (
            (Kind.SYMBOLS, orjson.dumps(step.announced) if step.announced else b""),
            (Kind.MESSAGES, b"[%b]" % b",".join(step.messages) if step.messages else b""),
        ):
            if payload:
                parts += (frame_header(kind, len(payload), sent_ns), payload)
                size += len(parts[-2]) + len(payload)
        for kind, records in ((Kind.QUOTES, step.ticks), (Kind.TRADES, step.trades)):
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
        """Return a frame of the kind that has no payload."""
        return frame(BINARY_FRAME, heartbeat_frame(sent_ns))

    def ping(self) -> bytes:
        """Return a ping of RFC 6455."""
        return frame(PING, b"")


class SseEncoding:
    """An event of ``text/event-stream``; its id is the cursor after it, the ``g`` of its own last tick.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    name: Final = "sse"
    transport: Final = "sse"
    codec: Final = "json"
    mixed: Final = True
    announces: Final = False
    counted: Final = True
    one_shot: Final = False

    def frame(self, step: FrameContent, moment: Moment, ids: bool = True) -> bytes:
        """Return the step as one event."""
        if not ids or not step.ticks:
            return b"data: [%b]\n\n" % _array(step)
        last = step.ticks[-1]
        g = last[last.rindex(b":") + 1 : -1]  # cheaper than to carry it along for those who need none
        return b"id: %b:%b\ndata: [%b]\n\n" % (moment.epoch.encode("ascii"), g, _array(step))

    def messages(self, payload: bytes, sent_ns: int, cursor: str = "") -> bytes:
        """Return the array as an event."""
        return (b"id: %b\n" % cursor.encode("ascii") if cursor else b"") + b"data: %b\n\n" % payload

    def heartbeat(self, sent_ns: int) -> bytes:
        """Return a comment, which clients pass over."""
        return b": heartbeat\n\n"

    def ping(self) -> bytes:
        """Return nothing: the peer cannot answer."""
        return b""


class PollEncoding:
    """The body of a long poll but for its end, which differs from poll to poll."""

    name: Final = "poll"
    transport: Final = "poll"
    codec: Final = "json"
    mixed: Final = True
    announces: Final = False
    counted: Final = True
    one_shot: Final = True

    def frame(self, step: FrameContent, moment: Moment, ids: bool = True) -> bytes:
        """Return cursor and messages, without what was resumed and without the closing brace.

        Where that is too long, what is behind some ``g`` is left for the next poll.
        """
        body, g = _array(step), moment.g
        if len(body) > MAX_POLL_BYTES:
            end = body.rindex(b"},{", 0, MAX_POLL_BYTES) + 1
            if end > sum(map(len, step.messages)) + len(step.messages):  # so its last is a tick
                body = body[:end]
                g = int(body[body.rindex(b'"g":') + 4 :].rstrip(b"}").partition(b",")[0])
        return b'{"cursor":"%b:%d","messages":[%b]' % (moment.epoch.encode("ascii"), g, body)

    def messages(self, payload: bytes, sent_ns: int, cursor: str = "") -> bytes:
        """Return the array as it is."""
        return payload

    def heartbeat(self, sent_ns: int) -> bytes:
        """Return nothing: a poll ends soon enough."""
        return b""

    def ping(self) -> bytes:
        """Return nothing: the peer cannot answer."""
        return b""


class ProbeEncoding(JsonEncoding):
    """As JSON, for the engine's own probe: in groups of their own, which nobody counts."""

    transport: Final = "probe"  # type: ignore[misc]
    counted: Final = False  # type: ignore[misc]

    def ping(self) -> bytes:
        """Return nothing: a probe does not answer."""
        return b""


JSON: Final = JsonEncoding()
PROBE: Final = ProbeEncoding()
BINARY: Final = BinaryEncoding()
SSE: Final = SseEncoding()
POLL: Final = PollEncoding()
ENCODINGS: Final[dict[str, Encoding]] = {"json": JSON, "binary": BINARY}  # what a request may name
