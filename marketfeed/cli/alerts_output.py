"""Alerts as text and as JSON."""

from __future__ import annotations

import datetime
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec
from rich.console import Console
from rich.text import Text

from marketfeed.core.printable import printable
from marketfeed.core.units import S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marketfeed.alerts.log import Entry, Episode

SEVERITIES: Final = ("info", "warning", "critical")
_STYLES: Final = {"info": "cyan", "warning": "yellow", "critical": "bold red"}
_MOST: Final = 500  # characters of a message


def print_list(entries: Sequence[Entry], *, as_json: bool, file: IO[str]) -> None:
    """Print one line per alert: time, severity, state, rule, symbol, message, id."""
    if as_json:
        for entry in entries:
            print(msgspec.json.encode(_fields(entry)).decode(), file=file)
        return
    console = Console(file=file, soft_wrap=True, highlight=False)
    if not entries:
        console.print("no alerts")
        return
    rules = max(len(entry.alert.rule) for entry in entries)
    symbols = max(len(entry.alert.symbol) for entry in entries)
    for entry in entries:
        alert = entry.alert
        line = Text(f"{moment(entry.at_ns)}  ")
        line.append(f"{alert.severity:8}  ", _STYLES[alert.severity])
        line.append(f"{alert.state:7}  {alert.rule:{rules}}  {alert.symbol:{symbols}}  ")
        line.append(f"{printable(alert.message, _MOST)}  ")
        line.append(f"{entry.mark}  " if entry.mark else "", "dim")
        line.append(alert.id, "dim")
        console.print(line)


def print_one(entry: Entry, episodes: Sequence[Episode], *, as_json: bool, file: IO[str]) -> None:
    """Print all fields of an alert, one per line, and of its episode if it has one."""
    found = _fields(entry)
    for episode in episodes:
        found["episode"] = msgspec.to_builtins(episode)
    if as_json:
        print(msgspec.json.encode(found).decode(), file=file)
        return
    console = Console(file=file, soft_wrap=True, highlight=False)
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
    alert: dict[str, Any] = msgspec.to_builtins(entry.alert)
    own = {"position": entry.position, "logged_ns": entry.at_ns, "mark": entry.mark}
    return {name: value for name, value in {**alert, **own}.items() if value is not None}
