"""Silences in force: which alerts they mark, and what is said when one ends over something still raised."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
import trio

from marketfeed import clock
from marketfeed.alerts.alert import Alert, alert_id
from marketfeed.alerts.log import EXPIRED, matches, pattern_problem
from marketfeed.alerts.patterns import Patterns
from marketfeed.alerts.service import AlertRefusedError
from marketfeed.core.symbols import is_pattern, is_symbol
from marketfeed.core.units import S
from marketfeed.errors import AlertLogError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from marketfeed.alerts.log import AlertLog, Appended, Episode, Mark, Silence

MOST: Final = 1000  # silences that have not ended
PATTERNS: Final = 100  # of each kind in one silence
APPENDED: Final = 500  # alerts per call of the log
LOOK_S: Final = 60.0  # at the latest: the clock may be set meanwhile
RETRY_S: Final = 1.0

log = structlog.get_logger()


class Silences:
    """The silences of a log that have not ended. ``append`` appends alerts to it; see the Dispatch."""

    def __init__(
        self,
        alerts: AlertLog,
        append: Callable[[Sequence[Alert], int], Awaitable[list[Appended]]],
        wall_ns: Callable[[], int],
    ) -> None:
        self._alerts, self._append, self._wall_ns = alerts, append, wall_ns
        self._present: dict[str, Silence] = {}
        self._changed = trio.Event()
        self._changing = trio.Lock()
        self._indexed: list[Silence] = []  # the silences in force that the next is about
        self._symbols: dict[str, Patterns] = {}  # that they cover, by rule

    async def load(self) -> None:
        """Take over the silences of the log that have not ended. Raises AlertLogError."""
        now_ns = self._wall_ns()
        self._present = {one.id: one for one in await self._alerts.silences() if one.ends_ns > now_ns}

    def active(self, now_ns: int) -> list[Silence]:
        """Return the silences in force."""
        return [one for one in self._present.values() if one.starts_ns <= now_ns < one.ends_ns]

    def marks(self, alerts: Sequence[Alert], now_ns: int) -> dict[str, Mark]:
        """Return the mark of each alert that a silence covers, by id; notices are not covered."""
        self._index(now_ns)
        return {
            alert.id: "silenced"
            for alert in (alerts if self._indexed else ())
            if alert.state != "notice" and self._covered(alert.rule, alert.symbol)
        }

    async def add(self, silence: Silence) -> None:
        """Keep a silence. Raises AlertRefusedError and AlertLogError."""
        if problem := silence_problem(silence, self._wall_ns()):
            raise AlertRefusedError(problem)
        if len(self._present) >= MOST and silence.id not in self._present:
            raise AlertRefusedError(f"there are {MOST} silences already: end one first")
        async with self._changing:
            with trio.CancelScope(shield=True):
                await self._alerts.add_silence(silence, self._wall_ns())
                self._present[silence.id] = silence
        self._changed.set()

    async def expire(self, silence: str, by: str) -> Silence | None:
        """End a silence now, and return it as it was; None if there is none that ends later.

        Raises AlertLogError.
        """
        async with self._changing:
            with trio.CancelScope(shield=True):
                now_ns = self._wall_ns()
                found = await self._alerts.expire_silence(silence, now_ns, by)
                known = self._present.get(silence)
                if found and known is not None:
                    self._present[silence] = msgspec.structs.replace(known, ends_ns=now_ns)
        self._changed.set()
        return known if found else None

    async def run(self) -> None:
        """End silences at their time, until cancelled."""
        while True:
            self._changed = trio.Event()
            try:
                await self._end()
            except AlertLogError as error:
                log.warning("what a silence covered is not raised yet", reason=str(error))
                await trio.sleep(RETRY_S)
                continue
            now_ns = self._wall_ns()
            next_ns = min((one.ends_ns for one in self._present.values()), default=now_ns + LOOK_S * S)
            with trio.move_on_after(min(max(next_ns - now_ns, 0) / S, LOOK_S)):
                await self._changed.wait()

    async def _end(self) -> None:
        """Forget silences that have ended, and say what is still raised under them."""
        now_ns = self._wall_ns()
        ended = [one for one in self._present.values() if one.ends_ns <= now_ns]
        if not ended:
            return
        begun = [
            (one, Patterns(one.rules), Patterns(one.symbols)) for one in ended if one.starts_ns < one.ends_ns
        ]
        hidden = [one for one in await self._alerts.episodes(open_only=True) if not one.shown]
        told: list[Alert] = []
        turn = clock.Turn()
        for episode in hidden:
            if turn.is_over():  # there may be thousands
                await trio.lowlevel.checkpoint()
                turn = clock.Turn()
            covering = (
                one
                for one, rules, symbols in begun
                if rules.match(episode.rule) and symbols.match(episode.symbol)
            )
            under = next(covering, None)
            self._index(now_ns)
            if under is None or self._covered(episode.rule, episode.symbol):
                continue
            alert = await self._still_raised(episode, under, now_ns + len(told))
            told += [] if alert is None else [alert]
        for start in range(0, len(told), APPENDED):
            await self._append(told[start : start + APPENDED], now_ns)
        for one in ended:
            if self._present.get(one.id) == one:
                del self._present[one.id]

    def _index(self, now_ns: int) -> None:
        """Prepare :meth:`_covered` for ``now_ns``."""
        active = self.active(now_ns)
        if active != self._indexed:
            self._indexed, self._symbols = active, {}

    def _covered(self, rule: str, symbol: str) -> bool:
        """Return whether a silence is in force for alerts of ``rule`` about ``symbol``."""
        if rule not in self._symbols:
            own = (one.symbols for one in self._indexed if matches(one.rules, rule))
            self._symbols[rule] = Patterns(chain.from_iterable(own))
        return self._symbols[rule].match(symbol)

    async def _still_raised(self, episode: Episode, silence: Silence, now_ns: int) -> Alert | None:
        """Return the alert that says so; None if its rule inhibits it. ``now_ns`` makes its id unique."""
        entries = await self._alerts.read(episode.last_position - 1, 1)
        if not entries or entries[0].mark != "silenced":
            return None
        last = entries[0].alert
        return msgspec.structs.replace(
            last,
            id=alert_id(last.rule, last.symbol, "raised", 0, now_ns),
            t_ns=0,
            r_ns=now_ns,
            message=f"{last.message}; still raised after a silence by {silence.created_by} ended",
        )


def shown_silences(silences: Sequence[Silence], now_ns: int) -> list[Silence]:
    """Return silences that have not ended, and the newest EXPIRED of the others, by start."""
    ended = sorted((one for one in silences if one.ends_ns <= now_ns), key=lambda one: one.ends_ns)
    gone = {one.id for one in ended[:-EXPIRED]}
    return [one for one in silences if one.id not in gone]


def silence_problem(silence: Silence, now_ns: int) -> str | None:
    """Return why a silence cannot begin; None if it can."""
    for what, patterns in (("rules", silence.rules), ("symbols", silence.symbols)):
        if not 0 < len(patterns) <= PATTERNS:
            return f"{what}: 1 to {PATTERNS} patterns, not {len(patterns)}"
    if problem := next(filter(None, map(pattern_problem, silence.rules)), None):
        return f"rules: {problem}"
    for symbol in silence.symbols:
        if not is_symbol(symbol) and not is_pattern(symbol):
            return f"symbols: must be a symbol, a prefix with * at its end, or *, not {symbol[:40]!r}"
    if not silence.created_by.strip() or not silence.comment.strip():
        return "by, comment: who silences, and why"
    if silence.ends_ns <= max(silence.starts_ns, now_ns):
        return "ends: must be later than now and than starts"
    return None
