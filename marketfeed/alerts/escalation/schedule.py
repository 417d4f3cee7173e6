"""When which escalation sends what. Pure: the wall clock and random numbers are passed in.

    raised ──► waiting ── after_s ──► sending ── delivered ──► sent ── cleared or resolved ──► ending ──► gone
                  │                      │ cleared or resolved          (again every resend_s)  ▲
                  │ cleared or resolved  └──────────────────────────────────────────────────────┘
                  └──► gone, nothing was sent

An escalation is one episode for one ``[[alerts.escalate]]`` table. Its state is a :class:`Pending`, which is
to be stored at each change (:meth:`Schedule.changes`): given to the next schedule, it goes on where the last
one ended. A message may be sent twice, and is never left out.
"""

from __future__ import annotations

import heapq
import random
from typing import TYPE_CHECKING, Final

import msgspec

from marketfeed.alerts.escalation.message import Verdict
from marketfeed.alerts.escalation.pending import Figures, Pending
from marketfeed.core.backoff import delay_s
from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from marketfeed.alerts.alert import Alert, Severity
    from marketfeed.alerts.escalation.message import End, Outcome
    from marketfeed.alerts.escalation.pending import Key, Phase, Plan

FIRST_S: Final = 5.0  # after the first failure; then doubled
MOST_S: Final = 3600.0
JITTER: Final = (0.8, 1.2)  # each delay is multiplied by a random factor
GIVE_UP_S: Final = 86_400.0  # the end of an episode is not sent any longer; that it lasts is sent for ever
_SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "critical")


class Schedule:
    """All escalations of the engine. Methods take ``now_ns``, the wall clock, Unix, and never wait.

    A clock that is set back delays nothing by more than the escalation's own delay.
    """

    def __init__(
        self,
        plans: Iterable[Plan],
        stored: Iterable[Pending] = (),
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Go on with ``stored``. Those of tables that ``plans`` lacks are dropped: see :meth:`changes`."""
        self._plans = {plan.name: plan for plan in plans}
        self._uniform = uniform
        self._pending: dict[Key, Pending] = {}
        self._heap: list[tuple[int, Key]] = []  # may hold entries that are out of date
        self._under_way: set[Key] = set()  # returned by `due`, and not recorded yet
        self._changed: dict[Key, Pending | None] = {}
        self._off: set[str] = set()
        self._last_ns = 0
        self.figures = {name: Figures() for name in self._plans}
        for pending in stored:
            if pending.name in self._plans:
                self._pending[pending.key] = pending
                self._push(pending)
                self._last_ns = max(self._last_ns, pending.since_ns)
            else:
                self._changed[pending.key] = None

    def raised(self, alert: Alert, now_ns: int) -> None:
        """Begin the escalations of an episode that has none, if it is severe enough; ignores notices."""
        if alert.state != "raised":
            return
        for plan in self._plans.values():
            severe = _SEVERITIES.index(alert.severity) >= _SEVERITIES.index(plan.severity)
            if severe and plan.name not in self._off and (plan.name, alert.key) not in self._pending:
                wait_ns = round(plan.after_s * S)
                self._set(Pending(name=plan.name, alert=alert, since_ns=now_ns, wait_ns=wait_ns))

    def ended(self, key: str, end: End, now_ns: int) -> None:
        """End the escalations of the episode ``key``: it cleared, or a person has taken it on.

        What nobody outside can know of is cancelled; what may have arrived is followed by ``end``.
        """
        for name in self._plans:
            pending = self._pending.get((name, key))
            if pending is None or pending.phase == "ending":
                continue
            if pending.phase == "waiting":
                self.figures[name].cancelled += 1
                self._drop(pending.key)
            else:
                self._set(_changed(pending, phase="ending", end=end, since_ns=now_ns, wait_ns=0, tries=0))

    def postpone(self, key: str, until_ns: int, now_ns: int) -> None:
        """Send nothing that the episode ``key`` lasts before ``until_ns``, such as while it is silenced."""
        for name in self._plans:
            pending = self._pending.get((name, key))
            if pending is not None and pending.phase != "ending" and (pending.due_ns or until_ns) < until_ns:
                self._set(_changed(pending, since_ns=now_ns, wait_ns=until_ns - now_ns))

    def resume(self, key: str, now_ns: int) -> None:
        """Undo :meth:`postpone`, such as when a silence was ended: what was due meanwhile is due now."""
        for name, plan in self._plans.items():
            pending = self._pending.get((name, key))
            if pending is None or pending.phase == "ending" or (pending.due_ns or now_ns) <= now_ns:
                continue
            wait_ns = 0
            if pending.phase == "waiting":
                after_ns = round(plan.after_s * S)
                wait_ns = min(max(pending.message.at_ns + after_ns - now_ns, 0), after_ns)
            self._set(_changed(pending, since_ns=now_ns, wait_ns=wait_ns))

    def due(self, now_ns: int, most: int = 256) -> list[list[Pending]]:
        """Return what is to be sent now: lists of at most ``batch`` of one table, ``most`` in all.

        Store the :meth:`changes` before sending. End each Pending with :meth:`record`; it is not returned
        again until then.
        """
        if now_ns < self._last_ns:
            self._set_back(now_ns)
        self._last_ns = now_ns
        batches: list[list[Pending]] = []
        filling: dict[str, list[Pending]] = {}
        for _ in range(most):
            pending = self._next(now_ns)
            if pending is None:
                break
            self._under_way.add(pending.key)
            if pending.phase == "waiting":
                pending = self._set(_changed(pending, phase="sending"))
            batch = filling.get(pending.name)
            if batch is None or len(batch) >= self._plans[pending.name].batch:
                filling[pending.name] = batch = []
                batches.append(batch)
            batch.append(pending)
        return batches

    def next_ns(self) -> int | None:
        """Return when something is due next, Unix; None if nothing is to be sent.

        Call :meth:`due` at least once a minute, too: the clock may be set meanwhile.
        """
        self._clean()
        return self._heap[0][0] if self._heap else None

    def record(self, sent: Sequence[Pending], outcome: Outcome, now_ns: int) -> None:
        """Take the ``outcome`` of sending ``sent``, a list that :meth:`due` returned."""
        if outcome.verdict is Verdict.GONE and sent:
            self._switch_off(sent[0].name)
        for pending in sent:
            self._under_way.discard(pending.key)
            current = self._pending.get(pending.key)
            if current is None:
                continue
            if current.phase == "ending" and pending.phase != "ending":
                self._count(pending.name, outcome)
                self._push(current)  # the end is due, whatever came of the message before it
            else:
                self._conclude(current, outcome, now_ns)

    def changes(self) -> dict[Key, Pending | None]:
        """Return what is to be stored: each Pending that changed since the last call; None if it is gone."""
        changed, self._changed = self._changed, {}
        return changed

    def off(self) -> frozenset[str]:
        """Return the tables that the peer has switched off (HTTP 410), until the next construction."""
        return frozenset(self._off)

    def pending(self) -> list[Pending]:
        """Return all escalations, for a person to look at."""
        return list(self._pending.values())

    def _conclude(self, pending: Pending, outcome: Outcome, now_ns: int) -> None:
        """Set what follows ``outcome`` of the message that ``pending`` has now."""
        self._count(pending.name, outcome)
        match outcome.verdict:
            case Verdict.DELIVERED if pending.phase == "ending":
                self._drop(pending.key)
            case Verdict.DELIVERED:
                resend_s = self._plans[pending.name].resend_s
                wait_ns = None if resend_s is None else round(resend_s * S)
                self._set(_changed(pending, phase="sent", since_ns=now_ns, wait_ns=wait_ns, tries=0))
            case Verdict.FAILED if pending.end and now_ns - pending.end.at_ns > GIVE_UP_S * S:
                self.figures[pending.name].given_up += 1
                self._drop(pending.key)
            case Verdict.FAILED:
                self._retry(pending, outcome, now_ns)
            case Verdict.DEFERRED:
                # A message that was never sent may still be cancelled.
                phase: Phase = pending.phase
                if phase == "sending" and not pending.tries:
                    phase = "waiting"
                wait_ns = self._spread_ns(max(outcome.retry_after_s or 0.0, 1.0))
                self._set(_changed(pending, phase=phase, since_ns=now_ns, wait_ns=wait_ns))
            case _:
                self._drop(pending.key)

    def _retry(self, pending: Pending, outcome: Outcome, now_ns: int) -> None:
        tries = pending.tries + 1
        wait_ns = self._spread_ns(delay_s(tries, FIRST_S, MOST_S))
        resend_s = self._plans[pending.name].resend_s
        if pending.phase == "sent" and resend_s is not None:
            wait_ns = min(wait_ns, round(resend_s * S))
        wait_ns = max(wait_ns, round((outcome.retry_after_s or 0.0) * S))
        self._set(_changed(pending, since_ns=now_ns, wait_ns=wait_ns, tries=tries))

    def _count(self, name: str, outcome: Outcome) -> None:
        counter = "refused" if outcome.verdict is Verdict.GONE else outcome.verdict.value
        figures = self.figures[name]
        setattr(figures, counter, getattr(figures, counter) + 1)

    def _switch_off(self, name: str) -> None:
        self._off.add(name)
        for key in [key for key in self._pending if key[0] == name]:
            self.figures[name].refused += 1
            self._drop(key)

    def _spread_ns(self, wait_s: float) -> int:
        return round(wait_s * self._uniform(*JITTER) * S)

    def _set(self, pending: Pending) -> Pending:
        self._pending[pending.key] = self._changed[pending.key] = pending
        if pending.key not in self._under_way:
            self._push(pending)
        return pending

    def _drop(self, key: Key) -> None:
        del self._pending[key]
        self._changed[key] = None

    def _push(self, pending: Pending) -> None:
        if pending.due_ns is not None:
            heapq.heappush(self._heap, (pending.due_ns, pending.key))

    def _clean(self) -> None:
        """Remove entries from the top of the heap that are out of date."""
        while self._heap:
            due_ns, key = self._heap[0]
            pending = self._pending.get(key)
            if pending is not None and pending.due_ns == due_ns and key not in self._under_way:
                return
            heapq.heappop(self._heap)

    def _next(self, now_ns: int) -> Pending | None:
        """Remove and return the Pending that has been due for longest; None if none is due."""
        self._clean()
        if not self._heap or self._heap[0][0] > now_ns:
            return None
        return self._pending[heapq.heappop(self._heap)[1]]

    def _set_back(self, now_ns: int) -> None:
        """Begin delays again that began in what is now the future."""
        for pending in list(self._pending.values()):
            if pending.since_ns > now_ns:
                self._set(_changed(pending, since_ns=now_ns))


def _changed(pending: Pending, **fields: object) -> Pending:
    return msgspec.structs.replace(pending, **fields)
