"""Messages of a feed: those of the wire, and those that the client adds in their place in the stream.

Messages of the wire are the structs of ``marketfeed.api.messages``, without their refusal of unknown keys: a
newer engine may send more. The client adds :class:`Connected`, :class:`Disconnected`, :class:`Resumed`,
:class:`Reset`, and each :class:`Gap` with ``announced=False``. Fields have the names of docs/protocol.md;
``as`` and ``try``, which are keywords of Python, are ``as_`` and ``try_``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from marketfeed.api import messages as wire


class Quote(wire.Quote, frozen=True, forbid_unknown_fields=False, gc=False):
    """The best bid and ask of symbol ``S``: prices ``bp`` and ``ap``, None where the size is 0.

    ``bs`` and ``as_`` are the sizes, ``t`` and ``r`` the venue's time and the engine's time of receipt in
    microseconds since the Unix epoch. ``n`` numbers the quotes of the symbol, ``g`` all ticks of the engine.
    ``snap`` is 1 in snapshots, else UNSET.
    """


class Trade(wire.Trade, frozen=True, forbid_unknown_fields=False):
    """A trade of symbol ``S``: price ``p``, size ``s``, aggressor ``d``, the venue's id ``i``.

    ``c`` holds the conditions, or is UNSET. The other fields are those of a quote.
    """

    d: Annotated[str, Meta(description="Aggressor: `b`, `s`, or `-` if unknown.")]  # type: ignore[assignment]


class Alert(wire.Alert, frozen=True, forbid_unknown_fields=False, dict=True):
    """What a rule found, or a notice; docs/protocol.md has the fields.

    Identify it by ``id``: an alert that was not acknowledged comes again.
    """

    sev: str  # type: ignore[assignment]
    state: str  # type: ignore[assignment]

    async def acknowledge(self) -> None:
        """Acknowledge the alert, and wait until that is on disk. For alerts that a feed delivered."""
        await self.__dict__["_settle"]([self.id])


class Gap(wire.Gap, frozen=True, forbid_unknown_fields=False, kw_only=True):
    """``lost`` ticks of ``S`` on ``channel`` are missing; the next has the number ``n``.

    With ``announced`` the engine said so, because its rings no longer held them. Without it the client found
    the hole by the numbers of the ticks: something between engine and client lost them.
    """

    announced: bool = True


class Lag(wire.Lag, frozen=True, forbid_unknown_fields=False):
    """The session fell behind (``on`` is true), or has caught up: ``conflated`` quotes were left out."""


class Synced(wire.Synced, frozen=True, forbid_unknown_fields=False):
    """The snapshot or the missed ticks of the request ``id`` have been sent, up to ``cursor``."""


class Subscription(wire.Subscription, frozen=True, forbid_unknown_fields=False, kw_only=True):
    """The whole subscription, in answer to the request ``id``, or because the engine has changed it."""


class Error(wire.Error, frozen=True, forbid_unknown_fields=False):
    """The engine took something away, such as names that are no longer entitled, or is not able to do it now.

    With code 429 or 500 the client repeats the request. What the engine refuses for good raises
    RequestRefusedError where it was asked for.
    """


class Source(wire.Source, frozen=True, forbid_unknown_fields=False):
    """The source of the ticks of ``shard`` is not heard (``state`` is `stale`), or is again (`live`).

    The feed goes on; what it receives meanwhile may be out of date.
    """

    state: str  # type: ignore[assignment]


class Closing(wire.Closing, frozen=True, forbid_unknown_fields=False):
    """The engine ends the session; :class:`Disconnected` follows."""


class Acked(wire.Acked, frozen=True, forbid_unknown_fields=False):
    """Answer to an acknowledgement; not delivered."""


class Heartbeat(wire.Heartbeat, frozen=True, forbid_unknown_fields=False):
    """The engine had nothing else to send; not delivered."""


class Pong(wire.Pong, frozen=True, forbid_unknown_fields=False):
    """Answer to a ping; not delivered."""


class Success(msgspec.Struct, frozen=True, tag_field="T", tag="success"):
    """The first message of a session, or the answer to `auth`; not delivered."""

    msg: str
    protocol: int = 0
    epoch: str = ""
    session: str = ""
    tiers: dict[str, str] = {}
    tier: str = ""
    ttl_s: float | None = None
    id: str | int | None = None


class Connected(msgspec.Struct, frozen=True, tag_field="T", tag="connected"):
    """A connection is open, and authenticated if there is a token; the subscriptions follow.

    ``epoch`` is that of the engine's rings, ``session`` the id of the session in the engine's log. ``tiers``
    says of each tier whether it sends `every` tick or the `latest` of each symbol.
    """

    epoch: str
    session: str
    protocol: int
    tiers: dict[str, str]


class Disconnected(msgspec.Struct, frozen=True, tag_field="T", tag="disconnected"):
    """There is no connection: lost, closed with ``code`` and ``reason``, or not to be had (1006).

    The next attempt comes after ``retry_ms``. ``announced``: the engine said so, in `closing`.
    """

    code: int
    reason: str
    retry_ms: int
    announced: bool = False


class Resumed(msgspec.Struct, frozen=True, tag_field="T", tag="resumed"):
    """What was missed since ``cursor`` follows for the request ``id``.

    Symbols for which it does not are in a :class:`Reset` after this message.
    """

    cursor: str
    id: int


class Reset(msgspec.Struct, frozen=True, tag_field="T", tag="reset"):
    """Ticks of ``symbols`` may be missing, and their number is unknown; snapshots follow.

    ``symbols`` are symbols, or names of the request ``id`` as written. ``cause`` is

    - `overwritten`: the engine no longer has the ticks since the cursor,
    - `epoch`: the engine was restarted,
    - `unsynced`: the connection was lost before the first `synced` of the request,
    - `cursor`: the engine refused the cursor.
    """

    symbols: Sequence[str]
    cause: Literal["overwritten", "epoch", "unsynced", "cursor"]
    id: int


FromEngine = (
    Quote | Trade | Gap | Lag | Synced | Subscription | Alert | Error | Source | Closing
    | Acked | Heartbeat | Pong | Success
)  # fmt: skip
Message = (
    Quote | Trade | Gap | Lag | Synced | Subscription | Alert | Error | Source | Closing
    | Connected | Disconnected | Resumed | Reset
)  # fmt: skip
ARRAY: Final = msgspec.json.Decoder(list[FromEngine])
_RAW: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ONE: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(FromEngine)


def decode(text: str | bytes | memoryview) -> tuple[list[FromEngine], int]:
    """Return the messages of a JSON array, and how many were passed over as unknown.

    Raises msgspec.DecodeError if ``text`` is no JSON array.
    """
    try:
        return ARRAY.decode(text), 0
    except msgspec.ValidationError:
        pass  # of a newer protocol: only what is unknown is passed over
    messages: list[FromEngine] = []
    parts = _RAW.decode(text)
    for part in parts:
        try:
            messages.append(_ONE.decode(part))
        except msgspec.ValidationError:
            continue
    return messages, len(parts) - len(messages)
