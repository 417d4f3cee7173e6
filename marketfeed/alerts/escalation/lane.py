"""One escalation in operation: its schedule, its sender, and the messages under way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed.alerts.escalation.message import Outcome, Verdict
from marketfeed.alerts.escalation.schedule import Schedule
from marketfeed.clock import now_ns
from marketfeed.core.breaker import BreakerState
from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from marketfeed.alerts.escalation.pending import Figures, Pending
    from marketfeed.alerts.escalation.registry import Escalation
    from marketfeed.alerts.escalation.store import Store
    from marketfeed.core.breaker import BreakerStatistics

AT_ONCE: Final = 4  # sends under way
SEND_S: Final = 120.0  # for which a send is waited for: a type of a third party may not end by itself
LOOK_S: Final = 60.0  # between looks at the schedule, since the wall clock may be set

log = structlog.get_logger()


class Lane:
    """Runs ``escalation``. ``gone`` is called once with the reason when the peer wants no more messages."""

    def __init__(
        self, escalation: Escalation, store: Store, wall_ns: Callable[[], int], gone: Callable[[Lane], None]
    ) -> None:
        self.plan, self._sender = escalation.plan, escalation.sender
        self._store, self._wall_ns, self._gone = store, wall_ns, gone
        self.schedule = Schedule([self.plan])
        self.off: str | None = None  # the answer of a peer that wants no more messages
        self._failure: str | None = None  # why the last attempt failed; None if it did not
        self._under_way = 0
        self._woken = trio.Event()
        self._scope = trio.CancelScope()

    @property
    def name(self) -> str:
        """The name of the escalation."""
        return self.plan.name

    @property
    def figures(self) -> Figures:
        """Counters since the start of the engine."""
        return self.schedule.figures[self.name]

    def take_up(self, stored: Sequence[Pending]) -> None:
        """Go on with what a former engine kept."""
        self.schedule = Schedule([self.plan], stored)

    def follow(self, former: Lane) -> None:
        """Go on where ``former``, a lane with the same name, is ended."""
        self.schedule = Schedule([self.plan], former.schedule.pending())
        self.schedule.figures[self.name] = former.figures

    def wake(self) -> None:
        """Look at the schedule, which has changed. Idempotent."""
        self._woken.set()

    def cancel(self) -> None:
        """End the lane; what is being sent is left to the next one."""
        self._scope.cancel()

    def statistics(self) -> Mapping[str, BreakerStatistics]:
        """Return the figures of each peer; none if the sender's type cannot tell them."""
        try:
            return self._sender.statistics(now_ns())
        except Exception:  # third-party code
            log.exception("figures of an escalation cannot be read", escalation=self.name)
            return {}

    def trouble(self) -> str | None:
        """Return why messages do not arrive, without secrets; None if they do."""
        if self.off is not None:
            return f"is off until the configuration is read again: the peer wants no messages ({self.off})"
        if self._failure and any(pending.tries for pending in self.schedule.pending()):
            return f"fails: {self._failure}"
        broken = [name for name, peer in self.statistics().items() if peer.state is not BreakerState.CLOSED]
        return f"fails: the circuit breaker of {', '.join(broken)} is open" if broken else None

    async def run(self) -> None:
        """Send what is due until cancelled."""
        with self._scope:
            async with trio.open_nursery() as sends:
                while True:
                    self._woken = trio.Event()
                    if batches := self._due():
                        await self._store.keep()
                        for batch in batches:
                            sends.start_soon(self._send, batch)
                    await self._wait()

    def _due(self) -> list[list[Pending]]:
        free = AT_ONCE - self._under_way
        batches = self.schedule.due(self._wall_ns(), free * self.plan.batch) if free else []
        self._under_way += len(batches)
        return batches

    async def _wait(self) -> None:
        """Wait until something may be due; if too much is under way, until some of it ends."""
        next_ns = self.schedule.next_ns() if self._under_way < AT_ONCE else None
        wait_s = LOOK_S if next_ns is None else max((next_ns - self._wall_ns()) / S, 0.0)
        with trio.move_on_after(min(wait_s, LOOK_S)):
            await self._woken.wait()

    async def _send(self, batch: list[Pending]) -> None:
        outcome = await self._attempt(batch)
        if self._scope.cancel_called:  # the next lane has the schedule
            return
        self._under_way -= 1
        self.schedule.record(batch, outcome, self._wall_ns())
        self._report(outcome)
        self.wake()
        await self._store.keep()

    async def _attempt(self, batch: list[Pending]) -> Outcome:
        outcome: object = Outcome(Verdict.FAILED, f"no outcome within {SEND_S:g} s")
        try:
            with trio.move_on_after(SEND_S):
                messages = [pending.message for pending in batch]
                outcome = await self._sender.send(messages, self._wall_ns())
        except Exception as error:  # third-party code
            log.exception("an escalation raised an exception", escalation=self.name)
            return Outcome(Verdict.FAILED, f"the sender raised {type(error).__name__}")
        if isinstance(outcome, Outcome):
            return outcome
        log.error("an escalation returned no Outcome", escalation=self.name, returned=type(outcome).__name__)
        return Outcome(Verdict.FAILED, f"the sender returned a {type(outcome).__name__}")

    def _report(self, outcome: Outcome) -> None:
        match outcome.verdict:
            case Verdict.DELIVERED:
                if self._failure is not None:
                    log.info("escalation works again", escalation=self.name)
                self._failure = None
            case Verdict.FAILED:
                if self._failure is None:
                    log.warning("escalation fails", escalation=self.name, reason=outcome.reason)
                self._failure = outcome.reason or "the attempt failed"
            case Verdict.REFUSED:
                log.warning("escalated message refused", escalation=self.name, reason=outcome.reason)
            case Verdict.GONE if self.off is None:
                self.off = outcome.reason or "gone"
                log.error("escalation is off: the peer wants no messages", escalation=self.name)
                self._gone(self)
