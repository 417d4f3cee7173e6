"""An escalator on a virtual clock: a log in memory, a peer that answers as a test wants, and episodes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import trio
import trio.testing

from marketfeed.alerts.alert import Alert, alert_id
from marketfeed.alerts.escalation.message import Message, Outcome, Verdict
from marketfeed.alerts.escalation.pending import Plan
from marketfeed.alerts.escalation.registry import Escalation
from marketfeed.alerts.escalator import Escalator
from marketfeed.alerts.log import Entry, Episode, Mark, Silence
from marketfeed.core.units import S
from marketfeed.errors import AlertLogError
from tests.support.escalations import NOW_NS, raised

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from marketfeed.alerts.escalation.pending import Key, Pending

DELIVERED = Outcome(Verdict.DELIVERED)
FAILED = Outcome(Verdict.FAILED, "HTTP status 500")


def wall_ns() -> int:
    return NOW_NS + round(trio.current_time() * S)


class Log:
    """An alert log in memory, as far as escalations need one; ``broken`` methods fail."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.known: dict[str, Episode] = {}
        self.silenced: list[Silence] = []
        self.position: int | None = None
        self.kept: dict[Key, Pending] = {}
        self.broken: set[str] = set()

    def _use(self, name: str) -> None:
        if name in self.broken:
            raise AlertLogError(f"{name}: no room")

    async def append(self, alerts: list[Alert], mark: Mark | None = None) -> None:
        await trio.lowlevel.checkpoint()
        self._use("append")
        for alert in alerts:
            self.entries.append(Entry(len(self.entries) + 1, alert, wall_ns(), mark))
            if alert.state == "raised":
                self.known[alert.key] = Episode(
                    alert.key, alert.rule, alert.symbol, alert.severity, wall_ns(), shown=mark is None
                )
            elif alert.key in self.known:
                ended = msgspec.structs.replace(self.known[alert.key], cleared_ns=wall_ns())
                self.known[alert.key] = ended

    async def head(self) -> int:
        await trio.lowlevel.checkpoint()
        return len(self.entries)

    async def read(self, after: int, limit: int) -> list[Entry]:
        await trio.lowlevel.checkpoint()
        self._use("read")
        return self.entries[after : after + limit]

    async def episode(self, key: str) -> Episode | None:
        await trio.lowlevel.checkpoint()
        return self.known.get(key)

    async def silences(self) -> list[Silence]:
        await trio.lowlevel.checkpoint()
        return self.silenced

    async def escalations(self) -> tuple[int | None, list[Pending]]:
        await trio.lowlevel.checkpoint()
        return self.position, list(self.kept.values())

    async def keep_escalations(self, position: int | None, changes: Mapping[Key, Pending | None]) -> None:
        await trio.lowlevel.checkpoint()
        self._use("keep")
        self.position = position
        for key, pending in changes.items():
            if pending is None:
                self.kept.pop(key, None)
            else:
                self.kept[key] = pending


class Peer:
    """A sender that stores what it is sent, and answers with ``outcomes`` in turn; the last one repeats."""

    batch = 1
    resend_s = None

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes) or [DELIVERED]
        self.sent: list[tuple[float, str, str]] = []  # time, cause, symbol
        self.messages: list[Message] = []
        self.at_s: list[float] = []  # of each, not rounded
        self.open = trio.Event()  # sends wait for it
        self.open.set()
        self.under_way = self.most = 0

    async def send(self, messages: Any, now_ns: int) -> Any:
        self.under_way += len(messages)
        self.most = max(self.most, self.under_way)
        try:
            await self.open.wait()
            await trio.lowlevel.checkpoint()
        finally:
            self.under_way -= len(messages)
        at_s = (now_ns - NOW_NS) / S
        self.sent += [(round(at_s, 1), one.cause, one.alert.symbol) for one in messages]
        self.messages += messages
        self.at_s += [at_s] * len(messages)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def statistics(self, now_ns: int) -> dict[str, Any]:
        return {}


def escalation(peer: Any, name: str = "desk", after_s: float = 60.0) -> Escalation:
    return Escalation(Plan(name, "warning", after_s, peer.resend_s, peer.batch), peer)


class Bench:
    """An escalator over ``log``, and what makes its episodes."""

    def __init__(self, log: Log, *escalations: Escalation) -> None:
        self.log = log
        self.escalator = Escalator(escalations, log, self.append, wall_ns)

    async def append(self, alerts: list[Alert], mark: Mark | None = None) -> None:
        await self.log.append(alerts, mark)
        self.escalator.ring()

    async def raise_one(self, symbol: str = "AAPL", mark: Mark | None = None) -> Alert:
        alert = raised(symbol, at_ns=wall_ns())
        await self.append([alert], mark)
        return alert

    async def clear(self, alert: Alert) -> None:
        own_id = alert_id(alert.rule, alert.symbol, "cleared", 0, wall_ns())
        await self.append([msgspec.structs.replace(alert, id=own_id, state="cleared")])

    def resolve(self, alert: Alert, by: str = "ann") -> None:
        episode = msgspec.structs.replace(
            self.log.known[alert.key], resolved_ns=wall_ns(), resolved_by=by, comment="mine"
        )
        self.log.known[alert.key] = episode
        self.escalator.resolved(episode)


@asynccontextmanager
async def escalating(log: Log, *escalations: Escalation) -> AsyncIterator[Bench]:
    bench = Bench(log, *escalations)
    await bench.escalator.begin()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.escalator.run)
        await trio.sleep(2)  # of the virtual clock: past the escalator's start
        yield bench
        nursery.cancel_scope.cancel()


def silence(ends_s: float, starts_s: float = 0.0) -> Silence:
    starts_ns, ends_ns = NOW_NS + round(starts_s * S), NOW_NS + round(ends_s * S)
    return Silence(id="one", starts_ns=starts_ns, ends_ns=ends_ns, created_by="ann", comment="test")
