"""Calls of a worker to the desk of access control, which the engine has: a task each, until it is answered.

A session that has entered leaves when its worker says so, or when the worker's process ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed.errors import AccessError, ControlError
from marketfeed.workers.desk_messages import Enter, perform
from marketfeed.workers.messages import AskDesk, CancelDesk, DeskAnswered, LeaveDesk

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.access.desk import Desk
    from marketfeed.workers.desk_messages import Call
    from marketfeed.workers.messages import ForDesk

CALLS_PER_CONNECTION: Final = 4  # unanswered; a session or request makes one at a time
SPARE_CALLS: Final = 64  # of connections that have just ended

log = structlog.get_logger()


class DeskCalls:
    """The calls and the sessions of one worker, until :meth:`end`."""

    def __init__(
        self, desk: Desk | None, nursery: trio.Nursery, send: Callable[[DeskAnswered], None]
    ) -> None:
        """Calls run in ``nursery``; ``send`` passes an answer to the worker.

        Without ``desk`` calls are invalid: there is no access control.
        """
        self._desk, self._nursery, self._send = desk, nursery, send
        self._unanswered: dict[int, trio.CancelScope] = {}
        self._sessions: set[str] = set()  # that have entered, or are about to

    def handle(self, message: ForDesk, connections: int) -> None:
        """Act on a message of the worker, which serves so many ``connections``; raises ControlError."""
        if self._desk is None:
            raise ControlError("a call to the desk without access control")
        match message:
            case AskDesk(number, call):
                self._start(self._desk, number, call, CALLS_PER_CONNECTION * connections + SPARE_CALLS)
            case CancelDesk(number):
                if (scope := self._unanswered.get(number)) is not None:
                    scope.cancel()
            case LeaveDesk(session):
                self._sessions.discard(session)
                self._desk.leave(session)

    def end(self) -> None:
        """Cancel all calls, and have all sessions leave, because the worker has ended."""
        sessions, self._sessions = self._sessions, set()
        for scope in self._unanswered.values():
            scope.cancel()
        if self._desk is not None:
            for session in sessions:
                self._desk.leave(session)

    def _start(self, desk: Desk, number: int, call: Call, most: int) -> None:
        if number in self._unanswered or len(self._unanswered) >= most:
            raise ControlError(f"call {number} to the desk, with {len(self._unanswered)} unanswered")
        if isinstance(call, Enter):
            self._sessions.add(call.session)
        scope = self._unanswered[number] = trio.CancelScope()
        self._nursery.start_soon(self._run, desk, number, call, scope)

    async def _run(self, desk: Desk, number: int, call: Call, scope: trio.CancelScope) -> None:
        answered = DeskAnswered(number, refusal="cancelled")
        try:
            with scope:
                answered = await _answer(desk, number, call)
        finally:
            del self._unanswered[number]
            if isinstance(call, Enter):
                self._settle(desk, call.session, entered=answered == DeskAnswered(number))
        self._send(answered)

    def _settle(self, desk: Desk, session: str, *, entered: bool) -> None:
        """Forget a session that could not enter; one that left during its call leaves again."""
        if not entered:
            self._sessions.discard(session)
        if session not in self._sessions:
            desk.leave(session)


async def _answer(desk: Desk, number: int, call: Call) -> DeskAnswered:
    try:
        return DeskAnswered(number, await perform(call, desk))
    except AccessError as error:
        return DeskAnswered(number, refusal=str(error))
    except Exception as error:
        # A fault in one call must not end the engine. Its text and traceback may show a token.
        log.error("call to the desk failed", call=type(call).__name__, error=type(error).__name__)
        return DeskAnswered(number, refusal="a fault in the engine, see its log")
