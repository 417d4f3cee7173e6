"""A core of the client, and an engine that a test writes by hand, joined without sockets."""

from __future__ import annotations

import json
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Request, TextMessage

from marketfeed.client.batch import Batch
from marketfeed.client.core import Core, Settings
from marketfeed.client.dialogue import Answered
from marketfeed.client.intake import Now

NOW_NS = 1_700_000_000_000_000_000


class Wire:
    """A core, and an engine that a test writes by hand. Delays are the longest that the core may draw."""

    def __init__(self, clock_ns=NOW_NS, **settings: Any) -> None:
        self.core = Core(Settings("engine", "/v1/stream", **settings), lambda low, high: high)
        self.s, self.clock_ns = 0.0, clock_ns
        self.got: list[Any] = []  # messages
        self.batches: list[Batch] = []
        self.answers: list[Answered] = []
        self.sent: list[dict[str, Any]] = []  # requests
        self.closed: int | None = None

    @property
    def now(self) -> Now:
        return Now(self.s, self.clock_ns + int(self.s * 1e9))

    def connect(self) -> Wire:
        self.core.attempt(self.now)
        return self.open() if not self.core.wants_token else self

    def open(self) -> Wire:
        self.core.opened(self.now)
        self.ws = WSConnection(ConnectionType.SERVER)
        self.read()
        return self

    def read(self) -> None:
        """Take what the client has sent."""
        if not (data := self.core.data_to_send()):
            return
        self.ws.receive_data(data)
        for event in self.ws.events():
            if isinstance(event, Request):
                self.give(AcceptConnection())
            elif isinstance(event, TextMessage):
                self.sent.append(json.loads(event.data))
            elif isinstance(event, CloseConnection):
                self.closed = int(event.code)

    def give(self, event: Event) -> None:
        self.take(self.core.receive_data(bytes(self.ws.send(event)), self.now))
        self.read()

    def take(self, events) -> None:
        for event in events:
            if isinstance(event, Batch):
                self.batches.append(event)
                self.got += event.in_order()
            elif isinstance(event, Answered):
                self.answers.append(event)

    def say(self, *said: dict[str, Any]) -> None:
        self.give(TextMessage(json.dumps(said)))

    def hello(self, epoch="e1") -> Wire:
        tiers = {"vip": "every", "basic": "latest"}
        hello = {"T": "success", "msg": "connected", "protocol": 1, "epoch": epoch, "session": "s"}
        self.say(hello | {"tiers": tiers})
        return self

    def live(self, encoding="json", **subscribed: Any) -> Wire:
        """Connect, and subscribe to everything."""
        self.core.subscribe(self.now, quotes=["*"], **subscribed)
        self.connect().hello()
        number = self.sent[-1]["id"]
        answer = {"T": "subscription", "quotes": ["*"], "trades": [], "alerts": [], "tier": "vip"}
        self.say(
            answer | {"encoding": encoding, "id": number}, {"T": "synced", "cursor": "e1:10", "id": number}
        )
        return self

    def wait(self, s: float) -> None:
        """Let time pass, in steps of the core's deadlines."""
        until = self.s + s
        while self.core.deadline_s <= until and self.core.connected:
            self.s = max(self.s, self.core.deadline_s)
            self.take(self.core.tick(self.now))
            self.read()
        self.s = until

    def kinds(self) -> list[str]:
        return [type(message).__name__ for message in self.got]


def quote(symbol: str, n: int, g: int, r: int = NOW_NS // 1000, **more: Any) -> dict[str, Any]:
    tick = {
        "T": "q",
        "S": symbol,
        "bp": 1.5,
        "bs": 1.0,
        "ap": None,
        "as": 0.0,
        "t": 0,
        "r": r,
        "n": n,
        "g": g,
    }
    return tick | more
