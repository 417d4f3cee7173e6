"""Alerts of one session: a share of a durable consumer's, or a live view.

Alerts do not wait for ticks. They go to the outbox as soon as they are due: behind what is unsent, and before
whatever the shard offers afterwards. A session that lags, or whose socket is full, therefore gets them next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed.access.entitlement import UNBOUNDED
from marketfeed.alerts.log import PATTERNS, consumer_problem, pattern_problem
from marketfeed.alerts.messages import alert_message, arrays
from marketfeed.alerts.service import AlertRefusedError, AlertsOffError
from marketfeed.errors import AlertLogError, CloseCode, ErrorCode, RequestError
from marketfeed.gateway import protocol
from marketfeed.gateway.entitled import symbols_of
from marketfeed.gateway.live_alerts import View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketfeed.access.entitlement import Entitlement
    from marketfeed.alerts.delivery import Due
    from marketfeed.alerts.log import Acknowledged, Start
    from marketfeed.api.messages import Alert
    from marketfeed.fanout.subscriber import Subscriber
    from marketfeed.gateway.outbox import Outbox
    from marketfeed.gateway.session import Service

TAKEN: Final = 100  # alerts per frame
RETRY_S: Final = 1.0  # while the log cannot be read
OFF: Final = "alerts are off in this engine: see [alerts] in its configuration"

log = structlog.get_logger()


class SessionAlerts:
    """What one session has subscribed to, and the task that sends it."""

    # There is one for each of many sessions that never ask for alerts.
    __slots__ = (
        "_delivering", "_member", "_nursery", "_outbox", "_service", "_session", "_view",
        "consumer", "entitlement", "patterns",
    )  # fmt: skip

    def __init__(
        self, service: Service, session: str, member: Subscriber, outbox: Outbox, nursery: trio.Nursery
    ) -> None:
        self._service, self._session = service, session
        self._member, self._outbox, self._nursery = member, outbox, nursery
        self._delivering: trio.CancelScope | None = None  # of the task that sends a consumer's alerts
        self._view: View | None = None
        self.patterns: tuple[str, ...] = ()
        self.consumer: str | None = None
        self.entitlement = UNBOUNDED  # of the session

    async def add(
        self, patterns: Sequence[str], consumer: str | None, start: Start | None, id_: protocol.RequestId
    ) -> None:
        """Add patterns to the subscription; :meth:`send` then sends. Raises RequestError."""
        if not patterns:
            if consumer is not None or start is not None:
                raise RequestError(ErrorCode.SYNTAX, "consumer, start: need alerts", id_)
            return
        check_consumer(patterns, consumer or self.consumer, start, id_)
        if consumer is not None and self.patterns and consumer != self.consumer:
            had = f"consumer {self.consumer}" if self.consumer else "a live view"
            raise RequestError(ErrorCode.SYNTAX, f"consumer: this session has {had} already", id_)
        wanted = tuple(dict.fromkeys([*self.patterns, *patterns]))
        if len(wanted) > PATTERNS:
            raise RequestError(ErrorCode.SYMBOL_LIMIT, f"alerts: at most {PATTERNS} patterns", id_)
        await self._change(wanted, consumer or self.consumer, start or "all", id_)

    async def remove(self, patterns: Sequence[str], id_: protocol.RequestId) -> None:
        """Remove patterns from the subscription; without any left, no alerts come. Raises RequestError."""
        left = tuple(pattern for pattern in self.patterns if pattern not in patterns)
        if left == self.patterns:
            return
        if left:
            await self._change(left, self.consumer, "all", id_)
        else:
            self.leave()

    async def acknowledge(self, ids: Sequence[str], id_: protocol.RequestId) -> Acknowledged:
        """Settle alerts of the session's consumer, durably. Raises RequestError."""
        alerts = self._service.alerts
        if self.consumer is None or alerts is None:
            what = "ack: this session has no consumer: subscribe with alerts and consumer first"
            raise RequestError(ErrorCode.SYNTAX, what, id_)
        try:
            return await alerts.acknowledge(self.consumer, ids)
        except (AlertLogError, AlertsOffError) as error:
            raise RequestError(ErrorCode.INTERNAL, f"not acknowledged: {error}", id_) from None

    async def regrant(self, entitlement: Entitlement) -> list[str]:
        """Leave what ``entitlement`` does not allow any more; return that in words."""
        self.entitlement = entitlement
        if not self.patterns:
            return []
        if entitlement.alerts is None:
            self.leave()
            return ["alerts"]
        if self._view is not None:
            self._view.symbols = entitlement.alerts
        if self.consumer is None:
            return []
        lost = f"consumer {self.consumer}"
        if entitlement.allows_consumer(self.consumer):
            try:
                await self._change(self.patterns, self.consumer, "all", None)
            except RequestError as error:
                lost = f"{lost} ({error})"
            else:
                return []
        self.leave()
        return [lost]

    def send(self) -> None:
        """Begin to send what was subscribed to, after the answer. Idempotent."""
        if self.consumer is not None and self._delivering is None:
            self._delivering = trio.CancelScope()
            self._nursery.start_soon(self._deliver, self._delivering)
        elif self._view is not None and self._service.views is not None:
            self._service.views.enter(self._view)

    def drained(self) -> None:
        """Read on: the socket has room again."""
        if self._view is not None and self._service.views is not None:
            self._service.views.drained(self._view)

    def leave(self) -> None:
        """Send no more alerts; what is not acknowledged goes to another session. Idempotent."""
        if self._view is not None and self._service.views is not None:
            self._service.views.leave(self._view)
        if self.consumer is not None and self._service.alerts is not None:
            self._service.alerts.leave(self._session)
        self._view, self.consumer, self.patterns = None, None, ()

    def end(self) -> None:
        """Leave, as the session ends."""
        self.leave()
        if self._delivering is not None:
            self._delivering.cancel()

    async def _change(
        self, patterns: tuple[str, ...], consumer: str | None, start: Start, id_: protocol.RequestId
    ) -> None:
        alerts, views = self._service.alerts, self._service.views
        if alerts is None or views is None:
            raise RequestError(ErrorCode.INVALID_ACTION, OFF, id_)
        try:
            if consumer is not None:
                await alerts.join(self._session, consumer, start, patterns, symbols_of(self.entitlement))
            elif self._view is not None:
                self._view.patterns = patterns
            else:
                self._view = View(self._member, self._outbox, patterns, await alerts.head())
                self._view.symbols = self.entitlement.alerts
        except AlertRefusedError as error:
            raise RequestError(ErrorCode.SYNTAX, f"consumer: {error}", id_) from None
        except (AlertLogError, AlertsOffError) as error:
            raise RequestError(ErrorCode.INTERNAL, f"not subscribed to alerts: {error}", id_) from None
        self.patterns, self.consumer = patterns, consumer

    async def _deliver(self, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await self._send_due()
        except Exception:  # which must not end the other sessions of the nursery
            log.exception("delivery of alerts failed", session=self._session)
            self._outbox.end(CloseCode.INTERNAL)
        finally:
            self._delivering = None

    async def _send_due(self) -> None:
        """Send what is due, until the session leaves its consumer."""
        alerts = self._service.alerts
        assert alerts is not None
        while (consumer := self.consumer) is not None:
            try:
                due = await alerts.take(self._session, TAKEN)
            except AlertRefusedError as error:
                if self.consumer == consumer:  # an operator has dropped it
                    self.consumer, self.patterns = None, ()
                    self._offer(protocol.error(ErrorCode.NOT_ENTITLED, str(error)))
            except (AlertLogError, AlertsOffError) as error:
                log.warning("alerts wait", session=self._session, reason=str(error))
                await trio.sleep(RETRY_S)
            else:
                messages = messages_of(due, self.entitlement)
                if not self._offer(*arrays(messages), alerts=len(messages)):
                    await self._outbox.wait_send_all_might_not_block()

    def _offer(self, *payloads: bytes, alerts: int = 0) -> bool:
        shard, member = self._service.shard, self._member
        wall_ns = shard.wall_ns()
        frame = b"".join(member.encoding.messages(payload, wall_ns) for payload in payloads)
        if alerts:
            member.got_alerts(alerts, len(frame))
        if self._outbox.offer(frame):
            return True
        shard.filled(member)
        return False


def messages_of(due: Sequence[Due], entitlement: Entitlement) -> list[Alert]:
    """Return deliveries to a consumer as messages.

    What is not entitled since it was taken is left out; it comes again to whoever may see it.
    """
    return [
        alert_message(one.entry.alert, one.tries, ack=True)
        for one in due
        if one.entry.alert.to is not None or entitlement.shows_alert(one.entry.alert.symbol)
    ]


def check_consumer(
    patterns: Sequence[str], consumer: str | None, start: str | None, id_: protocol.RequestId = None
) -> None:
    """Raise RequestError if a subscription to alerts is invalid."""
    if consumer is None and start is not None:
        raise RequestError(ErrorCode.SYNTAX, "start: needs consumer", id_)
    if start not in (None, "now", "all"):
        raise RequestError(ErrorCode.SYNTAX, 'start: "now" or "all"', id_)
    if problem := next(filter(None, map(pattern_problem, patterns)), None):
        raise RequestError(ErrorCode.SYNTAX, f"alerts: {problem}", id_)
    if consumer is not None and (problem := consumer_problem(consumer, patterns)):
        raise RequestError(ErrorCode.SYNTAX, f"consumer: {problem}", id_)
