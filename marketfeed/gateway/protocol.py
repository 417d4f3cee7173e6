"""Messages of a session: parse requests, build responses as JSON arrays without framing. Pure.

docs/protocol.md describes the messages for users.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from marketfeed.api import fields
from marketfeed.api.fields import MAX_ID, MAX_INT, MIN_INT
from marketfeed.api.messages import (
    Acked,
    Authenticated,
    Closing,
    Connected,
    Error,
    Message,
    Pong,
    Subscription,
)
from marketfeed.api.requests import REQUESTS, ClientRequest, Ping, Subscribe, Unsubscribe
from marketfeed.core.cursor import Cursor, parse_cursor
from marketfeed.core.symbols import MAX_NAME_BYTES
from marketfeed.errors import CLOSE_TEXT, CloseCode, ErrorCode, RequestError
from marketfeed.fanout.interest import Names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marketfeed.alerts.log import Acknowledged
    from marketfeed.fanout.resume import Resumption
    from marketfeed.fanout.tiers import Tier

VERSION: Final = 1
MAX_ECHO: Final = 300  # characters of an error's text, which may quote the request
# A symbol or a pattern, as in is_symbol and is_pattern, but three times as fast.
_NAME: Final = re.compile(fields.NAME)
RequestId = str | int | None


class NotJsonError(Exception):
    """A frame is not JSON; the session is closed."""


def parse_request(text: str | bytes) -> ClientRequest:
    """Return the request in ``text``.

    Raises NotJsonError if ``text`` is not JSON, and RequestError, with the request's id if it has
    one, for every other error.
    """
    try:
        data = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise NotJsonError(str(error)) from None
    except RecursionError:
        raise NotJsonError("nested too deeply") from None
    if not isinstance(data, dict):
        raise RequestError(ErrorCode.SYNTAX, "a request is one JSON object")
    id_ = data.get("id")
    if not isinstance(id_, str | int) or isinstance(id_, bool):
        id_ = None
    if not _can_be_id(id_):
        raise RequestError(ErrorCode.SYNTAX, "id: at most 256 characters, or an integer of at most 64 bits")
    action = data.get("action")
    kind = REQUESTS.get(action) if isinstance(action, str) else None
    if kind is None:
        got = f"not {_shown(action)}" if "action" in data else "missing"
        raise RequestError(ErrorCode.INVALID_ACTION, f"action: one of {', '.join(REQUESTS)}; {got}", id_)
    try:
        request: ClientRequest = msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise RequestError(ErrorCode.SYNTAX, _complaint(data, kind) or _one_line(str(error)), id_) from None
    if isinstance(request, Ping) and isinstance(request.t, int) and not MIN_INT <= request.t <= MAX_INT:
        raise RequestError(ErrorCode.SYNTAX, "t: an integer of at most 64 bits", id_)
    return request


_NAMES: Final = "a list of strings, each a symbol or prefix*"
_TEXT: Final = "a string"
_RULES: Final = "a list of strings"
_ALLOWED: Final[dict[str, str]] = {
    "id": "a string or an integer", "quotes": _NAMES, "trades": _NAMES, "tier": _TEXT, "encoding": _TEXT,
    "compress": "true or false", "after": _TEXT, "token": _TEXT, "t": "a number or a string",
    "alerts": _RULES, "consumer": _TEXT, "start": '"now" or "all"',
}  # fmt: skip


def _complaint(data: dict[str, Any], kind: type[Any]) -> str:
    """Return the first error in ``data`` as a request of ``kind``: the key, the allowed and the sent value.

    Returns "" if there is none. Each value is checked once, because the client chooses their number.
    """
    known = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in data.items():
        if key not in known:
            return f"{_shown(key)}: unknown key; allowed: {', '.join(known)}"
        try:
            msgspec.convert(value, known[key])
        except msgspec.ValidationError:
            if isinstance(value, list) and (allowed := _ALLOWED[key]) in (_NAMES, _RULES):
                place, value = next((i, one) for i, one in enumerate(value) if not isinstance(one, str))
                return f"{key}: {allowed}; at index {place} it is {_shown(value)}"
            return f"{key}: {_ALLOWED[key]}, not {_shown(value)}"
    return ""


def _shown(value: Any) -> str:
    """Return a value that a client sent as at most about 40 characters of printable ASCII."""
    match value:
        case str():
            return ascii(value[:40])
        case dict() | list():
            return "an object" if isinstance(value, dict) else "a list"
        case None | bool():
            return json.dumps(value)
        case _:
            return str(value) if -(2**64) < value < 2**64 else "a number"


class _Named(msgspec.Struct, frozen=True):
    id: str | int | None = None


def id_of(text: str | bytes) -> RequestId:
    """Return the ``id`` of a request that is not parsed otherwise; None if it has none."""
    try:
        id_ = msgspec.json.decode(text, type=_Named).id
    except (msgspec.DecodeError, RecursionError):
        return None
    return id_ if _can_be_id(id_) else None


def _can_be_id(id_: RequestId) -> bool:
    return len(id_) <= MAX_ID if isinstance(id_, str) else id_ is None or MIN_INT <= id_ <= MAX_INT


def names_of(request: Subscribe | Unsubscribe) -> Names:
    """Return the request's names without duplicates; raises RequestError for an invalid name."""
    for name in (*request.quotes, *request.trades):
        if _NAME.fullmatch(name) is None:
            raise RequestError(
                ErrorCode.SYNTAX,
                f"not a symbol or prefix*: {name[:40]!r} (1 to {MAX_NAME_BYTES} printable ASCII characters"
                ' without space , * " and backslash)',
                request.id,
            )
    return Names(request.quotes, request.trades)


def _array(message: Message) -> bytes:
    return msgspec.json.encode((message,))


def _id(id_: RequestId) -> str | int | msgspec.UnsetType:
    return msgspec.UNSET if id_ is None else id_


def connected(epoch: str, session: str, tiers: Iterable[Tier]) -> bytes:
    """Return the first message of every session."""
    deliveries: dict[str, Literal["every", "latest"]] = {
        tier.name: "every" if tier.every else "latest" for tier in tiers
    }
    return _array(Connected("connected", VERSION, epoch, session, deliveries))


def authenticated(tier: str, id_: RequestId, ttl_s: int | None = None) -> bytes:
    """Return the response to a successful ``auth``."""
    told = msgspec.UNSET if ttl_s is None else ttl_s
    return _array(Authenticated("authenticated", tier, told, id=_id(id_)))


def subscription(
    names: Names,
    tier: str,
    encoding: str,
    id_: RequestId,
    resumption: Resumption | None = None,
    alerts: tuple[str, ...] = (),
    consumer: str | None = None,
    compress: bool = False,
) -> bytes:
    """Return the response to ``subscribe`` and ``unsubscribe``: the complete subscription."""
    who = msgspec.UNSET if consumer is None else consumer
    resumed: bool | msgspec.UnsetType = msgspec.UNSET
    reset: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    if resumption is not None:
        resumed, reset = resumption.resumed, resumption.reset
    told = Subscription(
        names.quotes,
        names.trades,
        alerts,
        tier,
        encoding,
        compress or msgspec.UNSET,
        who,
        resumed,
        reset,
        id=_id(id_),
    )
    return _array(told)


def cursor_of(request: Subscribe) -> Cursor | None:
    """Return the cursor in the request; raises RequestError for an invalid one."""
    if request.after is None:
        return None
    try:
        return parse_cursor(request.after)
    except ValueError as error:
        raise RequestError(ErrorCode.SYNTAX, f"after: {error}", request.id) from None


def acked(found: Acknowledged, id_: RequestId) -> bytes:
    """Return the response to ``ack``."""
    return _array(Acked(found.ids, found.unknown or msgspec.UNSET, id=_id(id_)))


def pong(request: Ping) -> bytes:
    """Return the response to ``ping``."""
    return _array(Pong(msgspec.UNSET if request.t is None else request.t, id=_id(request.id)))


def error(code: ErrorCode, msg: str, id_: RequestId = None) -> bytes:
    """Return an error message."""
    return _array(Error(int(code), msg, id=_id(id_)))


def closing(code: CloseCode, retry_ms: int | None, url: str | None = None) -> bytes:
    """Return the last message before a close, with the reason for it; ``url`` is where to reconnect."""
    retry: int | msgspec.UnsetType = msgspec.UNSET if retry_ms is None else retry_ms
    return _array(Closing(int(code), CLOSE_TEXT[code], retry, msgspec.UNSET if url is None else url))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MAX_ECHO]
