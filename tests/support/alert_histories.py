"""What a consumer of alerts saw and was answered, and the check of it against the log. The check is pure.

A delivery has ``since``: when the engine sent it, everything that was answered before that position of the
history was on disk. Of a poll it is the position at which the request was sent. A session on a WebSocket gets
it from each of its acknowledgements, once that is answered. Without it, an alert that the engine sent to one
session just before it settled the alert for another one would look as if it came again.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from marketfeed.alerts.log import Entry


class Seen(NamedTuple):
    """A delivery; ``connection`` is 0 if nothing is known of the order of what came on it."""

    id: str
    since: int
    connection: int = 0


class Answered(NamedTuple):
    """An acknowledgement that the engine answered, on ``connection``."""

    id: str
    connection: int = 0


Event = Seen | Answered


class History:
    """The events of one consumer, in order; for several threads.

    With ``path`` each event is also a line of that file, from which a later process goes on; a last line
    that is not whole, as the process was killed, is removed.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.events: list[Event] = []
        self._file: int | None = None
        self._grown = threading.Condition()
        if path is not None:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.ftruncate(self._file, path.read_bytes().rfind(b"\n") + 1)
            self.events += read(path)
        self.ids = {event.id for event in self.events if isinstance(event, Seen)}

    def now(self) -> int:
        """Return the position of the next event."""
        return len(self.events)

    def add(self, events: Iterable[Event]) -> None:
        """Record events, in one step."""
        added = list(events)
        with self._grown:
            self.events += added
            self.ids |= {event.id for event in added if isinstance(event, Seen)}
            if self._file is not None:
                lines = "".join(json.dumps([type(event).__name__, *event]) + "\n" for event in added)
                os.write(self._file, lines.encode())
            self._grown.notify_all()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)

    def wait(self, count: int, timeout_s: float) -> bool:
        """Wait until ``count`` different alerts were seen; return whether they were."""
        with self._grown:
            return self._grown.wait_for(lambda: len(self.ids) >= count, timeout_s)


def read(path: Path) -> list[Event]:
    """Return the events in the file of a history, as far as its lines are whole."""
    kinds: dict[str, type[Seen | Answered]] = {"Seen": Seen, "Answered": Answered}
    whole = path.read_text().rpartition("\n")[0]
    return [kinds[kind](*values) for kind, *values in map(json.loads, whole.splitlines())]


@dataclass
class Watched:
    """A consumer for the check; ``in_order`` if it had one session at a time."""

    patterns: Sequence[str]
    events: Sequence[Event]
    in_order: bool = False


def redeliveries(events: Iterable[Event]) -> int:
    """Return how many deliveries were not the first of their alert."""
    seen = [event.id for event in events if isinstance(event, Seen)]
    return len(seen) - len(set(seen))


def check(log: Sequence[Entry], consumers: Mapping[str, Watched], notices: Mapping[str, str]) -> list[str]:
    """Compare the whole log with what consumers saw, and with the ids of ``notices`` answered, by key.

    Returns a line for everything that is wrong.
    """
    problems = [*_log_problems(log), *_notice_problems(log, notices)]
    for name, consumer in consumers.items():
        problems += [f"{name}: {problem}" for problem in _consumer_problems(log, name, consumer)]
    return problems


def _log_problems(log: Sequence[Entry]) -> Iterator[str]:
    if [entry.position for entry in log] != list(range(1, len(log) + 1)):
        yield "positions have holes"
    for alert, count in Counter(entry.alert.id for entry in log).items():
        if count > 1:
            yield f"{alert} is in the log {count} times"
    causes = Counter(
        (entry.alert.rule, entry.alert.key)
        if entry.alert.state == "notice"
        else (entry.alert.rule, entry.alert.symbol, entry.alert.state, entry.alert.t_ns or entry.alert.r_ns)
        for entry in log
    )
    for cause, count in causes.items():
        if count > 1:
            yield f"the cause {cause} is in the log {count} times"
    yield from _episode_problems(log)


def _episode_problems(log: Sequence[Entry]) -> Iterator[str]:
    """Raised and cleared must alternate for each rule and symbol, with the key of the raised."""
    raised: dict[tuple[str, str], str | None] = defaultdict(lambda: None)
    for alert in (entry.alert for entry in log):
        of = alert.rule, alert.symbol
        if alert.state == "raised":
            if raised[of] is not None or alert.key != alert.id:
                yield f"{alert.id} is raised within the episode {raised[of]} of {of}"
            raised[of] = alert.id
        elif alert.state == "cleared":
            if raised[of] is None or raised[of] != alert.key:
                yield f"{alert.id} clears {alert.key}, but {raised[of]} of {of} is raised"
            raised[of] = None


def _notice_problems(log: Sequence[Entry], notices: Mapping[str, str]) -> Iterator[str]:
    kept = {entry.alert.key: entry.alert.id for entry in log if entry.alert.state == "notice"}
    for key, alert in notices.items():
        if kept.get(key) != alert:
            yield f"the notice {key} was answered as {alert}; the log has {kept.get(key)}"


def _consumer_problems(log: Sequence[Entry], name: str, consumer: Watched) -> Iterator[str]:
    logged = {entry.alert.id for entry in log}
    wanted = [entry.alert.id for entry in log if _wants(name, consumer.patterns, entry)]
    others = logged.difference(wanted)
    seen = dict.fromkeys(event.id for event in consumer.events if isinstance(event, Seen))
    for alert in seen:
        if alert not in logged:
            yield f"{alert} is not in the log"
        elif alert in others:
            yield f"{alert} is not for it"
    lost = [alert for alert in wanted if alert not in seen]
    yield from (f"{alert} was lost" for alert in lost)
    yield from (f"{alert} came again after its acknowledgement was answered" for alert in _again(consumer))
    if consumer.in_order and not lost and list(seen) != wanted:
        yield "first deliveries are not in the order of the log"


def _wants(name: str, patterns: Collection[str], entry: Entry) -> bool:
    alert = entry.alert
    if entry.mark is not None or alert.to is not None:
        return entry.mark is None and alert.to == name
    return any(alert.rule == one or (one[-1] == "*" and alert.rule.startswith(one[:-1])) for one in patterns)


def _again(consumer: Watched) -> Iterator[str]:
    """Yield what was delivered although its acknowledgement had been answered."""
    answered: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for position, event in enumerate(consumer.events):
        if isinstance(event, Answered):
            answered[event.id].append((position, event.connection))
        elif any(
            at < event.since or (connection and connection == event.connection)
            for at, connection in answered[event.id]
        ):
            yield event.id
