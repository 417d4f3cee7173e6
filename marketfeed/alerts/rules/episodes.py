"""The episodes of one rule: which symbols are raised, which are about to be, and the alerts of both.

A rule measures; this module decides. Per symbol a rule is clear, pending or raised:

    clear ── it holds ──► pending ── it held for min_duration, no cool-down ──► raised ── it ends ──► clear

Both waits end at an exact time, whether a tick arrives then or not. So the alerts depend on the ticks and
their times alone, and not on how the ticks were cut into batches.

A batch may be about thousands of symbols. Its measurements are therefore taken later, in slices between which
other tasks run, but before anybody looks at :attr:`Episodes.state`; an alert is made after that, likewise.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from marketfeed.alerts.alert import Alert, Severity, State, alert_id
from marketfeed.alerts.rules.deadlines import Deadlines
from marketfeed.alerts.rules.readings import BY_TICK, BY_TIME, Found, Measured, Reading
from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from marketfeed.alerts.rules.ticks import Ints, Mask

CLEAR: Final = 0
PENDING: Final = 1
RAISED: Final = 2
OTHER: Final = 3  # a symbol that the rule is not about

SLICE: Final = 128  # measurements by time, or alerts made, in one go: about 1 ms
_PLACE: Final = itemgetter(0, 1, 2, 3)


@dataclass(slots=True)
class _Track:
    """What is remembered of a symbol that has ever been pending or raised."""

    key: str = ""  # of the episode that the last alert was about
    since_ns: int = 0  # pending since
    value: float = 0.0  # latest, while pending
    threshold: float = 0.0
    ready_ns: int = 0  # end of the cool-down
    suppressed: int = 0
    # Time and count of the last ids.
    last_raised: tuple[int, int] = (0, 0)
    last_cleared: tuple[int, int] = (0, 0)


class Episodes:
    """State of one rule over all symbols."""

    def __init__(
        self,
        rule: str,
        severity: Severity,
        max_symbols: int,
        *,
        cooldown_s: float = 0.0,
        name_of: Callable[[int], str],
        slice_size: int = SLICE,
    ) -> None:
        self.rule = rule
        self.severity = severity
        self.max_symbols = max_symbols
        self.known = 0  # symbols that have a name so far; those of the rule are below it
        self.quantity, self.unit = "value", ""  # for messages; the rule sets them
        self.min_duration_ns = 0  # the rule sets it
        self.slice_size = slice_size
        self.found: list[Found] = []
        self._state = np.full(max_symbols, OTHER, np.uint8)
        self._active = 0
        self._later: Iterator[tuple[int, Reading]] = iter(())  # measurements that are not taken yet
        self.has_later = False
        self._cooldown_ns = round(cooldown_s * S)
        self._name_of = name_of
        self._tracks: dict[int, _Track] = {}
        self._pending = Deadlines()
        self._states = memoryview(self._state.data)  # of one symbol, faster than the array
        self._mark = np.zeros(max_symbols, bool)

    def add(self, numbers: Sequence[int]) -> None:
        """Add symbols to the rule, in order of their numbers."""
        if numbers:
            self.known = max(self.known, numbers[-1] + 1)
            new = np.asarray(numbers)
            self._state[new[self._state[new] == OTHER]] = CLEAR

    @property
    def state(self) -> Any:
        """CLEAR, PENDING, RAISED or OTHER per symbol."""
        if self.has_later:
            self._take_later()
        return self._state

    @property
    def active(self) -> int:
        """How many symbols are pending or raised."""
        if self.has_later:
            self._take_later()
        return self._active

    @property
    def next_ns(self) -> int | None:
        """Earliest time at which a pending symbol will be raised; None if none is pending."""
        return self._pending.next_ns

    def observe(
        self,
        ticks: Measured,
        hot: Mask,
        cool: Callable[[], Mask],
        detail: Callable[[int], tuple[float, float]],
    ) -> None:
        """Take a measurement per tick: all of shape ``(k,)``, in order of time.

        ``hot`` tells where the condition holds, ``cool()`` where it is over, ``detail(i)`` the value and
        threshold of tick ``i``. The latter two are called only if they matter.
        """
        self._observe(ticks, hot, cool, lambda indices: list(map(detail, indices.tolist())))

    def above(self, ticks: Measured, values: Ints | np.ndarray, threshold: float, clear_at: float) -> None:
        """Take values per tick, shape ``(k,)``: hot above ``threshold``, over at ``clear_at`` or below.

        NaN is no measurement: it changes nothing.
        """
        self._observe(
            ticks,
            values > threshold,
            lambda: values <= clear_at,
            lambda indices: [(float(value), threshold) for value in values[indices].tolist()],
        )

    def _observe(
        self,
        ticks: Measured,
        hot: Mask,
        cool: Callable[[], Mask],
        details: Callable[[Ints], list[tuple[float, float]]],
    ) -> None:
        if not self.active and not np.count_nonzero(hot):
            return
        state = self.state[ticks.symbols]
        moving = hot & (state == CLEAR)
        if self.active:
            over = cool()
            moving |= (over & (state == RAISED)) | (state == PENDING)
        if not np.count_nonzero(moving):
            return
        over = cool()
        touched = ticks.symbols[moving]
        self._mark[touched] = True
        indices = np.flatnonzero(self._mark[ticks.symbols])
        self._mark[touched] = False
        columns = [column[indices].tolist() for column in (ticks.symbols, ticks.at_ns, hot, over)]
        rows = zip(ticks.causes(indices), details(indices), *columns, strict=True)
        self.take(
            (number, Reading(at_ns, is_hot, is_over, value, threshold, cause))
            for cause, (value, threshold), number, at_ns, is_hot, is_over in rows
        )

    def step(self, number: int, reading: Reading) -> None:
        """Take one measurement of one symbol."""
        self._take_later()
        self._step(number, reading)

    def take(self, readings: Iterable[tuple[int, Reading]]) -> None:
        """Take measurements, each with the number of its symbol, in slices."""
        self._take_later()
        self._later, self.has_later = iter(readings), True

    def slices(self) -> Iterator[None]:
        """Take the measurements that were left for later; yield before each slice."""
        while self.has_later:
            yield
            count = 0
            for number, reading in islice(self._later, self.slice_size):
                self._step(number, reading)
                count += 1
            self.has_later = self.has_later and count == self.slice_size

    def _take_later(self) -> None:
        self.has_later = False
        for number, reading in self._later:
            self._step(number, reading)

    def _step(self, number: int, reading: Reading) -> None:
        state = self._states[number]
        if state == OTHER:
            return
        at_ns = reading.at_ns
        if state == PENDING and self._pending[number] <= at_ns:
            self._raise_pending(number)
            state = RAISED
        if reading.value != reading.value:  # NaN: nothing was measured
            return
        if state == CLEAR and reading.hot:
            self._begin(number, reading)
        elif state == PENDING:
            track = self._tracks[number]
            if reading.hot:
                track.value, track.threshold = reading.value, reading.threshold
            else:
                del self._pending[number]
                # Without the cool-down it would have been raised by now.
                track.suppressed += at_ns >= track.since_ns + self.min_duration_ns
                self._set(number, CLEAR)
        elif state == RAISED and reading.cool:
            track = self._tracks[number]
            self._emit(number, track, "cleared", reading)
            track.ready_ns = at_ns + self._cooldown_ns
            self._set(number, CLEAR)

    def expire(self, now_ns: int) -> Iterator[None]:
        """Raise what has been pending for long enough at ``now_ns``; yield after each slice."""
        count = 0
        while (number := self._pending.due(now_ns)) is not None:
            self._raise_pending(number)
            count += 1
            if count % self.slice_size == 0:
                yield

    def taken(self) -> list[Found]:
        """Return what was found since the last call, in order; of one place in the order it was found."""
        found, self.found = self.found, []
        found.sort(key=_PLACE)
        return found

    def alert(self, found: Found) -> Alert:
        """Return the alert of ``found``. To be called for all of :meth:`taken`, in their order."""
        _, _, _, number, state, reading, suppressed, _ = found
        _, t_ns, r_ns, venue_id = reading.cause or (0, 0, reading.at_ns, 0)
        symbol, track = self._name_of(number), self._tracks[number]
        # Quotes have no venue id: several alerts of one moment are numbered, or they would have one id.
        if not venue_id:
            last_ns, count = track.last_raised if state == "raised" else track.last_cleared
            venue_id = count + 1 if last_ns == (t_ns or r_ns) else 0
            if state == "raised":
                track.last_raised = t_ns or r_ns, venue_id
            else:
                track.last_cleared = t_ns or r_ns, venue_id
        identifier = alert_id(self.rule, symbol, state, t_ns, r_ns, venue_id)
        if state == "raised":
            track.key = identifier
        text = f"{self.quantity} {reading.value:.6g}{self.unit}, threshold {reading.threshold:.6g}{self.unit}"
        return Alert(
            id=identifier,
            key=track.key,
            rule=self.rule,
            symbol=symbol,
            severity=self.severity,
            state=state,
            value=reading.value,
            threshold=reading.threshold,
            t_ns=t_ns,
            r_ns=r_ns,
            message=f"{symbol}: {text}" if state == "raised" else f"{symbol}: over, {text}",
            suppressed=suppressed,
        )

    def _begin(self, number: int, reading: Reading) -> None:
        track = self._tracks.get(number)
        if track is None:
            track = self._tracks[number] = _Track()
        due_ns = max(reading.at_ns + self.min_duration_ns, track.ready_ns)
        if due_ns <= reading.at_ns:
            self._set(number, RAISED)
            self._emit(number, track, "raised", reading)
            return
        track.since_ns = reading.at_ns
        track.value, track.threshold = reading.value, reading.threshold
        self._pending[number] = due_ns
        self._set(number, PENDING)

    def _raise_pending(self, number: int) -> None:
        track, due_ns = self._tracks[number], self._pending[number]
        del self._pending[number]
        self._set(number, RAISED)
        self._emit(number, track, "raised", Reading(due_ns, True, False, track.value, track.threshold))

    def _set(self, number: int, state: int) -> None:
        self._active += (state != CLEAR) - (self._states[number] != CLEAR)
        self._states[number] = state

    def _emit(self, number: int, track: _Track, state: State, reading: Reading) -> None:
        by, g = (BY_TIME, 0) if reading.cause is None else (BY_TICK, reading.cause[0])
        self.found.append(Found(reading.at_ns, by, g, number, state, reading, track.suppressed, self))
        track.suppressed = 0
