"""All errors of this project, named for who must act on them."""

from __future__ import annotations

import enum
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class MarketfeedError(Exception):
    """Base class of all errors that marketfeed raises."""


class ConfigError(MarketfeedError):
    """The operator must change the configuration or the command; exit status 2.

    One line per mistake: the file, the key path, and the allowed values.
    """

    def __init__(self, *mistakes: str) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class ContentError(ConfigError):
    """A file named in the configuration does not have the content that the configuration declares."""


@contextmanager
def gathered(found: list[str]) -> Iterator[None]:
    """Catch a ConfigError of the block, and append its mistakes to ``found``."""
    try:
        yield
    except ConfigError as error:
        found += error.mistakes


class StartError(MarketfeedError):
    """The machine cannot provide what the configuration requires, such as a port; exit status 2."""


class LogError(MarketfeedError):
    """A latency log cannot be opened, or has no matching entries; exit status 2."""


class AlertLogError(MarketfeedError):
    """The alert log cannot be opened, read or written; the text says what the operator can do.

    After a failed write, none of the call may be taken as kept. A repeated call is safe.
    """


class AccessFileError(MarketfeedError):
    """The file at ``auth.path`` cannot be opened, read or written; the text says what the operator can do."""


class RecordingError(MarketfeedError):
    """A recording cannot be opened or written, or a file is not a recording; exit status 2."""


class FrameError(MarketfeedError):
    """A frame from another node is damaged or forged, or of an unknown version; it is dropped and counted."""


class FeedProtocolError(MarketfeedError):
    """The venue violated its protocol; the supervisor drops the connection and reconnects."""


class SourceError(MarketfeedError):
    """A feed's source is permanently unusable, such as a damaged file; the operator must repair it.

    The supervisor ends the feed as failed. A restart would publish the ticks before the damage again.
    """


class ControlError(MarketfeedError):
    """Invalid message between the engine and a worker process; the worker is replaced."""


class InvalidSymbolError(MarketfeedError):
    """Invalid symbol name: not 1 to 24 bytes of the permitted characters."""


class SymbolsFullError(MarketfeedError):
    """The symbol table is full (``max_symbols`` names); ticks of further symbols are dropped."""


class MirrorError(MarketfeedError):
    """Ticks of another engine do not fit to those that a mirror holds; none of them was published.

    The mirror has to fetch a state of the origin, and adopt it.
    """


class TapError(MarketfeedError):
    """A tap cannot be opened, or is closed; the text has the path and the reason."""


class EngineGoneError(TapError):
    """The engine of a tap has ended, and all its ticks were read; connect to its successor."""


class ClusterError(MarketfeedError):
    """NATS cannot be reached, or refused a request; the text has the reason in one line.

    After a write of the cluster's bucket that timed out, the value may have been written.
    """


class AccessError(MarketfeedError):
    """A key, token or ticket is not valid, or not any more; the text says why, and nothing secret."""


class KeysUnavailableError(AccessError):
    """A token cannot be verified now, because the set of keys could not be fetched; temporary."""


class RevocationError(MarketfeedError):
    """Revocations cannot be read or kept; the text has the file and says what the operator can do.

    After a failed write, the revocation may not be taken as kept. A repeated call is safe.
    """


class ConnectError(MarketfeedError):
    """The connection to an engine failed; the message gives the reason in one line.

    A feed raises it for its first connection, and reconnects by itself after later ones.
    """


class RefusedError(MarketfeedError):
    """The engine refused a client, and would refuse it again: the feed has ended.

    ``code`` is a close code from 4500 on, an :class:`ErrorCode`, or the HTTP status of the handshake.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class RequestRefusedError(MarketfeedError):
    """The engine refused one request of a client; the feed goes on.

    ``code`` is an :class:`ErrorCode`, or the HTTP status of a request over HTTP.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"error {code}: {reason}")
        self.code = code


class FeedClosedError(MarketfeedError):
    """The caller has closed the feed, and uses it all the same."""


class RequestError(MarketfeedError):
    """Invalid client request. It is answered with an error message; the session continues.

    ``code`` is an :class:`ErrorCode`; ``request_id`` is the request's own ``id``.
    """

    def __init__(self, code: ErrorCode, msg: str, request_id: str | int | None = None) -> None:
        super().__init__(msg)
        self.code = code
        self.request_id = request_id


class ErrorCode(enum.IntEnum):
    """The ``code`` of an error message to a subscriber."""

    SYNTAX = 400
    NOT_AUTHENTICATED = 401
    AUTHENTICATION_FAILED = 402
    ALREADY_AUTHENTICATED = 403
    AUTHENTICATION_TIMEOUT = 404
    SYMBOL_LIMIT = 405
    CONNECTION_LIMIT = 406
    SLOW_CLIENT = 407
    NOT_ENTITLED = 409
    INVALID_ACTION = 410
    TOO_MANY_REQUESTS = 429
    INTERNAL = 500


TEMPORARY_ERRORS = frozenset({ErrorCode.TOO_MANY_REQUESTS, ErrorCode.INTERNAL})  # a repetition may succeed


class CloseCode(enum.IntEnum):
    """Reasons for closing a session: WebSocket close codes, with a counter each.

    4000-4499: the client may reconnect; 4500-4999: it must not. Slowness is
    a value that the shard acts on, never an exception.
    """

    NORMAL = 1000
    DRAINING = 1001
    PROTOCOL = 1002
    ABNORMAL = 1006  # the connection ended without a close frame; never sent
    INVALID_DATA = 1007
    TOO_BIG = 1009
    INTERNAL = 1011
    SLOW = 4001
    IDLE = 4002
    OVERLOADED = 4003
    TOKEN_EXPIRED = 4004
    BAD_REQUEST = 4500
    AUTHENTICATION = 4501
    REVOKED = 4502
    ABUSE = 4503


CLOSE_TEXT: dict[CloseCode, str] = {
    CloseCode.NORMAL: "closed by the client",
    CloseCode.DRAINING: "the session ends here, by a shutdown or a reload of the engine",
    CloseCode.PROTOCOL: "WebSocket protocol violated",
    CloseCode.ABNORMAL: "connection lost",
    CloseCode.INVALID_DATA: "a text frame was not UTF-8",
    CloseCode.TOO_BIG: "a message was larger than limits.request_bytes",
    CloseCode.INTERNAL: "internal error",
    CloseCode.SLOW: "acknowledged nothing for limits.stall_s while data waited",
    CloseCode.IDLE: "three pings unanswered",
    CloseCode.OVERLOADED: "too many sessions",
    CloseCode.TOKEN_EXPIRED: "token expired",
    CloseCode.BAD_REQUEST: "bad requests",
    CloseCode.AUTHENTICATION: "authentication failed",
    CloseCode.REVOKED: "access revoked",
    CloseCode.ABUSE: "limits violated",
}
