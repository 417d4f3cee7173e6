"""Calls of :class:`AlertService` that a worker passes to the engine: a struct each, with its arguments.

Calls and results are JSON, as alerts are in the log: ``data`` of a notice may have integers that MessagePack
has no room for. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, assert_never

import msgspec

from marketfeed.alerts.alert import Alert
from marketfeed.alerts.history import Wanted
from marketfeed.alerts.log import ALL_SYMBOLS, Silence, Start
from marketfeed.alerts.service import AlertRefusedError
from marketfeed.errors import ControlError

if TYPE_CHECKING:
    from marketfeed.alerts.service import AlertService

MAX_ENTRIES: Final = 200  # per call: with notices as large as a request may be, they fit in a frame


class _Call(msgspec.Struct, frozen=True, tag=True):
    pass


class Join(_Call, frozen=True):
    """:meth:`AlertService.join`."""

    session: str
    name: str
    start: Start
    patterns: tuple[str, ...]
    symbols: tuple[str, ...] = ALL_SYMBOLS


class Take(_Call, frozen=True):
    """:meth:`AlertService.take`."""

    session: str
    limit: int


class Acknowledge(_Call, frozen=True):
    """:meth:`AlertService.acknowledge`."""

    name: str
    ids: tuple[str, ...]


class Head(_Call, frozen=True):
    """:meth:`AlertService.head`."""


class Entries(_Call, frozen=True):
    """:meth:`AlertService.entries`."""

    after: int
    limit: int


class History(_Call, frozen=True):
    """:meth:`AlertService.history`."""

    wanted: Wanted
    before: str
    limit: int


class Publish(_Call, frozen=True):
    """:meth:`AlertService.publish`."""

    notice: Alert
    wait_s: float | None


class Resolve(_Call, frozen=True):
    """:meth:`AlertService.resolve`."""

    key: str
    by: str
    comment: str


class Silences(_Call, frozen=True):
    """:meth:`AlertService.silences`."""


class AddSilence(_Call, frozen=True):
    """:meth:`AlertService.add_silence`."""

    silence: Silence


class ExpireSilence(_Call, frozen=True):
    """:meth:`AlertService.expire_silence`."""

    silence: str
    by: str


Call = (
    Join
    | Take
    | Acknowledge
    | Head
    | Entries
    | History
    | Publish
    | Resolve
    | Silences
    | AddSilence
    | ExpireSilence
)
TOO_DEEP: Final = "the data of this notice is nested too deeply"
_calls: msgspec.json.Decoder[Call] = msgspec.json.Decoder(Call)
encode = msgspec.json.Encoder().encode  # of results


def encode_call(call: Call) -> bytes:
    """Return ``call`` for :func:`decode_call`; raises AlertRefusedError."""
    try:
        return encode(call)
    except RecursionError:
        raise AlertRefusedError(TOO_DEEP) from None


def decode_call(data: bytes) -> Call:
    """Return the call in ``data``; raises ControlError, and AlertRefusedError for a client's mistake."""
    try:
        return _calls.decode(data)
    except RecursionError:
        raise AlertRefusedError(TOO_DEEP) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ControlError(f"not a call for alerts: {error}") from None


async def perform(call: Call, service: AlertService, key: str) -> Any:
    """Make the call and return its result. ``key`` is what ``service`` calls the session of the call.

    Raises what the method raises.
    """
    match call:
        case Join(_, name, start, patterns, symbols):
            return await service.join(key, name, start, patterns, symbols)
        case Take(_, limit):
            return await service.take(key, min(limit, MAX_ENTRIES))
        case Acknowledge(name, ids):
            return await service.acknowledge(name, ids)
        case Entries(after, limit):
            return await service.entries(after, min(limit, MAX_ENTRIES))
        case History(wanted, before, limit):
            return await service.history(wanted, before, limit)
        case Publish(notice, wait_s):
            return await service.publish(notice, wait_s)
        case Head():
            return await service.head()
        case Silences():
            return await service.silences()
        case Resolve(key, by, comment):
            return await service.resolve(key, by, comment)
        case AddSilence(silence):
            return await service.add_silence(silence)
        case ExpireSilence(which, by):
            return await service.expire_silence(which, by)
        case _:
            assert_never(call)
