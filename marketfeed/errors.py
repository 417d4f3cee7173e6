"""Every error this project raises, named for who must act on it."""

from __future__ import annotations

import enum
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class MarketfeedError(Exception):
    """Root of all errors raised by marketfeed."""


class ConfigError(MarketfeedError):
    """The operator must change the configuration or the command; exit status 2.

    One line for each mistake, which names the file, the key path and what is allowed there.
    """

    def __init__(self, *mistakes: str) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class ContentError(ConfigError):
    """What the configuration names, such as a file, does not hold what the configuration says of it."""


@contextmanager
def gathered(found: list[str]) -> Iterator[None]:
    """Append the mistakes of a ConfigError raised in this block to ``found``."""
    try:
        yield
    except ConfigError as error:
        found += error.mistakes


class StartError(MarketfeedError):
    """The machine refuses what the configuration asks for, such as a port in use; exit status 2."""


class LogError(MarketfeedError):
    """A latency log cannot be opened, or holds nothing that was asked for; exit status 2."""


class RecordingError(MarketfeedError):
    """A recording cannot be opened or written, or a file is none; exit status 2."""


class FeedProtocolError(MarketfeedError):
    """The venue broke its protocol; the supervisor drops the connection and reconnects."""


class SourceError(MarketfeedError):
    """A feed's source is broken for good, such as a file from some place on; the operator must mend it.

    The supervisor ends the feed as failed. Running it again would publish again what came before that place.
    """


class ControlError(MarketfeedError):
    """A worker process and the engine do not understand each other; the worker is replaced."""


class InvalidSymbolError(MarketfeedError):
    """A name that cannot be a symbol: not 1 to 24 bytes of the permitted characters."""


class SymbolsFullError(MarketfeedError):
    """The symbol table holds ``max_symbols`` names; ticks of further names are left out."""


class TapError(MarketfeedError):
    """A tap cannot be had, or is closed; the text says of which path, and why."""


class EngineGoneError(TapError):
    """The engine behind a tap has ended, and all it published has been read; connect to its successor."""


class RequestError(MarketfeedError):
    """The subscriber sent something that cannot be served; it is answered and lives.

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


class CloseCode(enum.IntEnum):
    """Why a session was closed: its WebSocket close code, and a counter each.

    4000-4499: the client may reconnect; 4500-4999: it must not. Slowness is
    a value that the shard acts on, never an exception.
    """

    NORMAL = 1000
    DRAINING = 1001
    PROTOCOL = 1002
    ABNORMAL = 1006  # the peer went away without a close frame; never sent
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
