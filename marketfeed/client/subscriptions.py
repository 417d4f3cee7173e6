"""What a feed has subscribed to: requests, repeated on each connection, each with its own cursor.

    unsent ──► sent ──► answered ──► synced          a lost connection makes each of them unsent again

docs/protocol.md#cursors has the rules. A cursor comes with `synced`, for the request it answers and for
every other one without an open request. Ticks move it: those of one session come in order of ``g``, so a
tick moves the cursors of all requests that are synced, or that were resumed in full.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from marketfeed.client.messages import Reset, Resumed
from marketfeed.errors import TEMPORARY_ERRORS, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from marketfeed.client.messages import Error, Subscription

MOST_SENT: Final = 32  # unanswered at a time: engines limit requests per second
REPEAT_S: Final = 1.0  # before a request is repeated that the engine could not execute now
FOLDED_BYTES: Final = 4096  # of names in requests merged into one: engines limit the size of a request


class Stage(enum.IntEnum):
    """How far a request has come on this connection."""

    UNSENT = 0
    SENT = 1
    ANSWERED = 2
    SYNCED = 3


@dataclass(slots=True, eq=False)
class Request:
    """One `subscribe`. ``consumer`` and ``start`` belong to ``alerts``."""

    id: int
    quotes: list[str] = field(default_factory=list)
    trades: list[str] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)
    consumer: str | None = None
    start: str | None = None
    tier: str | None = None
    cursor: str = ""  # of the last `synced`, or what the caller gave
    epoch: str = ""  # of the cursor; "": another client's, unknown
    g: int = 0  # of the newest tick that moved the cursor since
    at: int = 0  # position of the cursor, so that it does not go back
    stage: Stage = Stage.UNSENT
    moves: bool = False  # on this connection: before `synced`, because it was resumed in full
    known: bool = False  # the engine has answered it on some connection
    vital: bool = False  # no caller waits for the answer: a refusal ends the feed
    sent_cursor: str = ""  # with which it was sent on this connection
    sent_names: tuple[str, ...] = ()  # names may be removed before the answer
    refused_cursor: bool = False
    not_before_s: float = 0.0

    @property
    def after(self) -> str:
        """The cursor to resume from; "" before there is one."""
        # The only change to a cursor that clients may make: replace its last part by the g of a later tick.
        return f"{self.cursor.rpartition(':')[0]}:{self.g}" if self.g else self.cursor

    @property
    def names(self) -> list[str]:
        """Names of symbols, without duplicates."""
        return list(dict.fromkeys((*self.quotes, *self.trades)))

    def place(self, cursor: str, epoch: str) -> None:
        """Set the cursor, which is of ``epoch``."""
        position = cursor.rpartition(":")[2]
        at = int(position) if position.isdecimal() and position.isascii() and len(position) < 30 else 0
        self.cursor, self.epoch, self.g, self.at = cursor, epoch, 0, at

    def text(self, tier: str | None, encoding: str, compress: bool = False) -> str:
        """Return the request as JSON, and note its cursor."""
        asked: dict[str, Any] = {"action": "subscribe", "id": self.id, "encoding": encoding}
        if compress:
            asked["compress"] = True
        for key in ("quotes", "trades", "alerts", "consumer", "start"):
            if value := getattr(self, key):
                asked[key] = value
        if tier := self.tier or tier:
            asked["tier"] = tier
        self.sent_names = tuple(self.names)
        self.sent_cursor = self.after if self.quotes or self.trades else ""
        if self.sent_cursor:
            asked["after"] = self.sent_cursor
        return msgspec.json.encode(asked).decode()


class Subscriptions:
    """All requests of a feed; ``tier`` is the last one that it asked for, None for the engine's choice."""

    def __init__(self, encoding: str, tier: str | None = None, compress: bool = False) -> None:
        self.requests: dict[int, Request] = {}
        self.tier = tier
        self._encoding, self._compress = encoding, compress
        self._next_id = 1
        self._pause_s = 0.0  # nothing is sent before
        self._leaving: dict[int, str] = {}  # `unsubscribe` requests under way, as text
        self._unsent: list[tuple[float, int]] = []  # those of them to send, with the time

    def new_id(self) -> int:
        """Return an id for a request."""
        self._next_id += 1
        return self._next_id - 1

    def add(self, **wanted: Any) -> Request:
        """Add a request with the fields of :class:`Request`; it is sent as soon as there is a session."""
        request = Request(self.new_id(), **wanted)
        request.place(request.cursor, "")
        self.requests[request.id] = request
        return request

    def remove(self, quotes: Sequence[str], trades: Sequence[str], alerts: Sequence[str]) -> int:
        """Remove names from all requests; return the id of the `unsubscribe` that is sent."""
        leaving = (set(quotes), set(trades), set(alerts))
        for request in list(self.requests.values()):
            for kept, gone in zip((request.quotes, request.trades, request.alerts), leaving, strict=True):
                kept[:] = [name for name in kept if name not in gone]
            if not (request.names or request.alerts) and request.stage is not Stage.SENT:
                del self.requests[request.id]
        number = self.new_id()
        asked = {"action": "unsubscribe", "quotes": quotes, "trades": trades, "alerts": alerts, "id": number}
        self._leaving[number] = msgspec.json.encode(asked).decode()
        self._unsent.append((0.0, number))
        return number

    @property
    def cursor(self) -> str | None:
        """The lowest cursor of all requests for ticks; None while one has none, or if there are none."""
        wanted = [one for one in self.requests.values() if one.names]
        if not wanted or not all(one.cursor for one in wanted):
            return None
        return min(wanted, key=lambda one: one.at).after

    def names_before(self, number: int) -> tuple[list[str], list[str]]:
        """Return the names of quotes and of trades of the requests before ``number``."""
        former = [request for request in self.requests.values() if request.id < number]
        quotes = [name for request in former for name in request.quotes]
        return quotes, [name for request in former for name in request.trades]

    def complete(self, answer: Subscription) -> bool:
        """Return whether ``answer`` shows all names: requests of a new connection are answered singly."""
        number = answer.id
        before = number if number in self._leaving else self._next_id  # later requests do not count
        return all(
            one.stage >= Stage.ANSWERED or one.id == number
            for one in self.requests.values()
            if one.id < before
        )

    @property
    def synced(self) -> bool:
        """Whether every request has been sent all that it missed."""
        return all(request.stage is Stage.SYNCED for request in self.requests.values())

    def to_send(self, epoch: str, now_s: float) -> Iterator[str]:
        """Yield the requests to send now, on a session of ``epoch``."""
        if now_s < self._pause_s:
            return
        room = MOST_SENT - sum(one.stage is Stage.SENT for one in self.requests.values())
        # Those with a cursor first: a symbol that another one adds would get a snapshot.
        unsent = [one for one in self.requests.values() if one.stage is Stage.UNSENT]
        for request in sorted(unsent, key=lambda one: not one.cursor)[: max(room, 0)]:
            if request.not_before_s <= now_s:
                if request.epoch not in ("", epoch):
                    request.place("", request.epoch)
                request.stage = Stage.SENT
                yield request.text(self.tier, self._encoding, self._compress)
        due, self._unsent = self._unsent, [one for one in self._unsent if one[0] > now_s]
        for at_s, number in due:
            if at_s <= now_s:
                yield self._leaving[number]

    def next_s(self) -> float:
        """Return when a request has to be repeated, inf if none has."""
        times = [one.not_before_s for one in self.requests.values() if one.stage is Stage.UNSENT]
        first_s = min([*times, *(at_s for at_s, _ in self._unsent)], default=float("inf"))
        return max(first_s, self._pause_s)

    def cut(self) -> list[int]:
        """The connection is lost: repeat everything. Return the ids of requests that are done thereby."""
        done = list(self._leaving)  # a new session does not have these names
        self._leaving.clear()
        self._unsent.clear()
        self._pause_s = 0.0
        for request in list(self.requests.values()):
            request.stage, request.moves, request.not_before_s = Stage.UNSENT, False, 0.0
            if request.known and not (request.names or request.alerts):
                del self.requests[request.id]  # it changed the tier only
        return done

    def answered(self, answer: Subscription, epoch: str) -> list[Resumed | Reset]:
        """Take the answer to a request; return what it says about the ticks that follow."""
        request = self.requests.get(answer.id) if isinstance(answer.id, int) else None
        if request is None:
            self._leaving.pop(answer.id, None)  # type: ignore[arg-type]
            self._prune(answer)
            return []
        told: list[Resumed | Reset] = []
        reset = list(answer.reset) if answer.reset else []
        if request.sent_cursor:
            told.append(Resumed(request.sent_cursor, request.id))
        if request.sent_cursor and reset:
            told.append(Reset(reset, "overwritten", request.id))
        elif not request.sent_cursor and request.sent_names and (request.known or request.refused_cursor):
            restarted = request.epoch not in ("", epoch)
            cause = "cursor" if request.refused_cursor else "epoch" if restarted else "unsynced"
            told.append(Reset(request.sent_names, cause, request.id))  # type: ignore[arg-type]
        if request.tier is not None:
            self.tier, request.tier = request.tier, None
        request.moves = bool(request.sent_cursor) and not reset
        request.stage, request.known, request.refused_cursor = Stage.ANSWERED, True, False
        request.epoch = epoch
        if not (request.names or request.alerts):
            del self.requests[request.id]
        return told

    def synced_at(self, number: object, cursor: str, epoch: str) -> None:
        """Take a `synced`, which answers the request ``number`` if that is one's id."""
        request = self.requests.get(number) if isinstance(number, int) else None
        if request is not None:
            request.stage = Stage.SYNCED
        for one in self.requests.values():
            if one.stage is Stage.SYNCED:
                one.place(cursor, epoch)
        self._fold()

    def _fold(self) -> None:
        """Merge requests that are alike and have the same cursor, so that few are repeated after a cut."""
        if not self.synced or self._leaving:  # a request under way may concern only earlier ones
            return
        heads: dict[tuple[object, ...], Request] = {}
        for one in list(self.requests.values()):
            kind = (one.consumer, one.start, tuple(one.alerts))
            if one.alerts:  # the last request of a consumer sets its patterns
                heads = {other: head for other, head in heads.items() if other == kind or not head.alerts}
            head = heads.setdefault(kind, one)
            if head is one:
                continue
            quotes, trades = dict.fromkeys(head.quotes + one.quotes), dict.fromkeys(head.trades + one.trades)
            if sum(map(len, (*quotes, *trades))) + len(quotes) + len(trades) > FOLDED_BYTES:
                heads[kind] = one
                continue
            head.quotes, head.trades = list(quotes), list(trades)
            del self.requests[one.id]

    def advance(self, g: int) -> None:
        """Everything up to ``g`` has come."""
        for one in self.requests.values():
            if (one.moves or one.stage is Stage.SYNCED) and g > one.at:
                one.g = one.at = g

    def refused(self, error: Error, now_s: float) -> bool:
        """Take an error; return whether the request will be repeated, so that the error is of no account."""
        number = error.id
        if error.code in TEMPORARY_ERRORS:
            self._pause_s = now_s + REPEAT_S
        if number in self._leaving:
            if error.code in TEMPORARY_ERRORS:
                self._unsent.append((now_s + REPEAT_S, number))
                return True
            del self._leaving[number]
            return False
        request = self.requests.get(number) if isinstance(number, int) else None
        if request is None:
            return False
        if error.code in TEMPORARY_ERRORS:
            request.stage, request.not_before_s = Stage.UNSENT, now_s + REPEAT_S
            return True
        if error.code == ErrorCode.SYNTAX and request.sent_cursor:
            request.place("", request.epoch)
            request.stage, request.refused_cursor = Stage.UNSENT, True
            return True
        return False

    def lost_consumer(self, reason: str) -> bool:
        """Forget the alerts of a consumer that an operator has dropped, if that is the ``reason``."""
        for request in list(self.requests.values()):
            if request.consumer is not None and reason.startswith(f"consumer {request.consumer} "):
                request.alerts.clear()
                if not request.names:
                    del self.requests[request.id]
                return True
        return False

    def drop(self, number: int) -> Request | None:
        """Forget a request that was refused; return it."""
        return self.requests.pop(number, None)

    def _prune(self, whole: Subscription) -> None:
        """Forget names that the engine has taken out of the subscription."""
        for request in list(self.requests.values()):
            if request.stage < Stage.ANSWERED:
                continue
            _keep(request.quotes, whole.quotes)
            _keep(request.trades, whole.trades)
            _keep(request.alerts, whole.alerts)
            if not (request.names or request.alerts):
                del self.requests[request.id]


def _keep(names: list[str], whole: Iterable[str]) -> None:
    kept = set(whole)
    names[:] = [name for name in names if name in kept]
