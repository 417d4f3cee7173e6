"""Calls for alerts that workers pass to the engine, which has the log: a task each, until it is answered.

The sessions of a worker leave when its process ends, so that others get what they had not acknowledged. A
client that polls is one session over all workers, and does not leave with one of them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed.alerts.active import POLLING
from marketfeed.alerts.service import AlertRefusedError, AlertsOffError, NoticeConflictError
from marketfeed.errors import AlertLogError, ControlError
from marketfeed.gateway.session_alerts import OFF
from marketfeed.workers.alert_messages import Call, Join, Take, decode_call, encode, perform
from marketfeed.workers.framing import MAX_FRAME_BYTES
from marketfeed.workers.messages import AlertsAnswered, AskAlerts, CancelAlerts, LeaveAlerts

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.alerts.service import AlertService
    from marketfeed.workers.messages import ForAlerts

CALLS_PER_CONNECTION: Final = 8  # unanswered; a session makes one or two at a time
SPARE_CALLS: Final = 64  # for what a worker asks on its own behalf
MAX_RESULT_BYTES: Final = MAX_FRAME_BYTES - 1024

log = structlog.get_logger()
_key_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class AskedCall:
    """A call of a worker; ``key`` is what the service calls its ``session``; both are "" if it has none."""

    number: int
    call: Call
    session: str
    key: str


class AlertCalls:
    """The calls and the sessions of one worker, until :meth:`end`."""

    def __init__(
        self, service: AlertService | None, nursery: trio.Nursery, send: Callable[[AlertsAnswered], None]
    ) -> None:
        """Calls run in ``nursery``; ``send`` passes an answer to the worker.

        Without ``service`` alerts are off.
        """
        self._service = service
        self._nursery = nursery
        self._send = send
        self._open: dict[int, trio.CancelScope] = {}
        # What the service calls each session, but for those of clients that poll. If a session joins again
        # after it has left, it gets another key: a call that ends late then concerns the old one alone.
        self._keys: dict[str, str] = {}

    def handle(self, message: ForAlerts, connections: int) -> None:
        """Act on a message of the worker, which serves so many ``connections``; raises ControlError."""
        match message:
            case AskAlerts(number, call):
                if len(self._open) >= CALLS_PER_CONNECTION * connections + SPARE_CALLS:
                    raise ControlError(f"{len(self._open)} unanswered calls for alerts")
                if number in self._open:
                    raise ControlError(f"two calls for alerts with number {number}")
                self._start(number, call)
            case CancelAlerts(number):
                if (scope := self._open.get(number)) is not None:
                    scope.cancel()
            case LeaveAlerts(session):
                self._leave(session)

    def end(self) -> None:
        """Cancel all calls, and have all sessions leave, because the worker has ended."""
        for scope in self._open.values():
            scope.cancel()
        for session in list(self._keys):
            self._leave(session)

    def _start(self, number: int, data: bytes) -> None:
        if self._service is None:
            self._send(AlertsAnswered(number, "off", reason=OFF))
            return
        try:
            call = decode_call(data)
        except AlertRefusedError as error:
            self._send(AlertsAnswered(number, "refused", reason=str(error)))
            return
        scope = self._open[number] = trio.CancelScope()
        session, key = "", ""
        if isinstance(call, Join | Take):
            session = call.session
            key = self._key_of(session)
        self._nursery.start_soon(self._run, self._service, AskedCall(number, call, session, key), scope)

    def _key_of(self, session: str) -> str:
        """Return what the service calls a session of this worker."""
        if session.startswith(POLLING):  # the client's next poll may reach another worker
            return session
        if session not in self._keys:
            self._keys[session] = f"{next(_key_numbers)}:{session}"
        return self._keys[session]

    async def _run(self, service: AlertService, asked: AskedCall, scope: trio.CancelScope) -> None:
        answered = AlertsAnswered(asked.number, "cancelled")
        try:
            with scope:
                answered = await _answer(service, asked)
        finally:
            del self._open[asked.number]
            if asked.key != self._keys.get(asked.session, asked.session):
                service.leave(asked.key)  # it left during the call, which may have joined or taken since
        self._send(answered)

    def _leave(self, session: str) -> None:
        key = session if session.startswith(POLLING) else self._keys.pop(session, None)
        if key is not None and self._service is not None:
            self._service.leave(key)


async def _answer(service: AlertService, asked: AskedCall) -> AlertsAnswered:
    number, call = asked.number, asked.call
    try:
        result = encode(await perform(call, service, asked.key))
        if len(result) > MAX_RESULT_BYTES:
            raise AlertLogError(
                f"alerts of {len(result)} bytes are too large for a worker: see engine.workers"
            )
    except NoticeConflictError as error:
        return AlertsAnswered(number, "conflict", reason=str(error))
    except AlertRefusedError as error:
        return AlertsAnswered(number, "refused", reason=str(error))
    except AlertsOffError as error:
        return AlertsAnswered(number, "off", reason=str(error))
    except AlertLogError as error:
        return AlertsAnswered(number, "log", reason=str(error))
    except Exception:
        # A fault in one call must not end the engine; in the engine's own sessions it ends the session.
        log.exception("call for alerts failed", call=type(call).__name__)
        return AlertsAnswered(number, "log", reason="a fault in the engine, see its log")
    return AlertsAnswered(number, "done", result)
