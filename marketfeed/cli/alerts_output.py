"""Alerts as text and as JSON."""

from __future__ import annotations

import datetime
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec
from rich.console import Console
from rich.text import Text

from marketfeed.cli.options import fail
from marketfeed.core.printable import printable, printable_json
from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from marketfeed.alerts.alert import Alert
    from marketfeed.alerts.log import DeadLetter, Entry, Episode

SEVERITIES: Final = ("info", "warning", "critical")
_STYLES: Final = {"info": "cyan", "warning": "yellow", "critical": "bold red"}
_MOST: Final = 500  # characters of a message


def check_severities(names: Iterable[str]) -> None:
    """Raise the exit with status 2 if one of ``names`` is no severity."""
    for name in names:
        if name not in SEVERITIES:
            raise fail(f"--severity {name}: must be one of {', '.join(SEVERITIES)}")


class Lines:
    """Alerts as lines: time, severity, state, rule, symbol, message, id. Columns grow with their contents."""

    def __init__(self) -> None:
        self._rule = self._symbol = 0

    def fit(self, alerts: Iterable[Alert]) -> None:
        """Widen the columns so that ``alerts`` fit."""
        for alert in alerts:
            self._rule = max(self._rule, len(alert.rule))
            self._symbol = max(self._symbol, len(alert.symbol))

    def line(self, at_ns: int, alert: Alert, *notes: str) -> Text:
        """Return the line of an alert; ``notes`` come before its id."""
        self.fit([alert])
        line = Text(f"{moment(at_ns)}  ")
        line.append(
            f"{alert.severity:8}  ", _STYLES.get(alert.severity, "")
        )  # a newer engine may have others
        line.append(f"{alert.state:7}  {alert.rule:{self._rule}}  ")
        line.append(f"{alert.symbol:{self._symbol}}  {printable(alert.message, _MOST)}  ")
        for note in filter(None, notes):
            line.append(f"{note}  ", "dim")
        line.append(alert.id, "dim")
        return line


def print_list(entries: Sequence[Entry], *, as_json: bool, file: IO[str]) -> None:
    """Print one line per alert in the log."""
    if as_json:
        for entry in entries:
            print_json(_fields(entry), file)
        return
    console = console_on(file)
    if not entries:
        console.print("no alerts")
        return
    lines = Lines()
    lines.fit(entry.alert for entry in entries)
    for entry in entries:
        console.print(lines.line(entry.at_ns, entry.alert, entry.mark or ""))


def console_on(file: IO[str]) -> Console:
    """Return a console that prints lines of any length without highlighting."""
    return Console(file=file, soft_wrap=True, highlight=False)


def print_json(value: Any, file: IO[str]) -> None:
    """Print ``value`` as one line of JSON."""
    print(json_line(value), file=file)


def json_line(value: Any) -> str:
    """Return ``value`` as one line of JSON, in ASCII where a terminal might interpret other characters."""
    return printable_json(msgspec.json.encode(value).decode())


def print_table(names: Sequence[str], rows: Sequence[Sequence[str | int]], file: IO[str]) -> None:
    """Print ``rows`` under their column names; numbers to the right, text escaped."""
    cells = [[printable(str(cell), _MOST) for cell in row] for row in (names, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numbers = [all(isinstance(row[at], int) for row in rows) for at in range(len(names))]
    console = console_on(file)
    for line, row in enumerate(cells):
        aligned = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numbers, strict=True)
        ]
        console.print(Text("  ".join(aligned).rstrip(), "" if line else "dim"))


def print_said(text: str, file: IO[str]) -> None:
    """Print one line that says what became of a change; text of others in it is escaped."""
    console_on(file).print(Text(printable(text, _MOST)))


def print_dead(letters: Sequence[DeadLetter], *, as_json: bool, file: IO[str]) -> None:
    """Print one line per dead letter: when it was parked, its consumer and deliveries, and the alert."""
    if as_json:
        for letter in letters:
            more = {"consumer": letter.consumer, "tries": letter.tries, "parked_ns": letter.parked_ns}
            print_json(alert_fields(letter.entry.alert, more), file)
        return
    console = console_on(file)
    if not letters:
        console.print("no dead letters")
        return
    lines = Lines()
    lines.fit(letter.entry.alert for letter in letters)
    for letter in letters:
        notes = f"for {letter.consumer}", f"{letter.tries} deliveries"
        console.print(lines.line(letter.parked_ns, letter.entry.alert, *notes))


def print_one(entry: Entry, episode: Episode | None, *, as_json: bool, file: IO[str]) -> None:
    """Print all fields of an alert, one per line, and of its episode if it has one."""
    found = _fields(entry)
    if episode is not None:
        found["episode"] = msgspec.to_builtins(episode)
    if as_json:
        print_json(found, file)
        return
    console = console_on(file)
    rows = {**found, **{f"episode.{name}": value for name, value in found.pop("episode", {}).items()}}
    rows.pop("episode", None)
    width = max(map(len, rows))
    for name, value in rows.items():
        shown = moment(value) if name.endswith("_ns") and value else printable(str(value), _MOST)
        console.print(Text(f"{name:{width}}  {shown}"))


def moment(unix_ns: int) -> str:
    """Return a Unix time as ISO 8601, UTC, with milliseconds."""
    at = datetime.datetime.fromtimestamp(unix_ns // S, datetime.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{unix_ns % S // 1_000_000:03}Z"


def _fields(entry: Entry) -> dict[str, Any]:
    """Return the fields of an alert that are set, and of its entry in the log."""
    return alert_fields(
        entry.alert, {"position": entry.position, "logged_ns": entry.at_ns, "mark": entry.mark}
    )


def alert_fields(alert: Alert, more: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an alert that are set, then those of ``more``."""
    fields: dict[str, Any] = msgspec.to_builtins(alert)
    fields["publisher"] = alert.publisher or None
    return {name: value for name, value in {**fields, **more}.items() if value is not None}
