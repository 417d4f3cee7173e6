"""Where the commands about alerts read and change them: the log, and the engine that holds it.

    read  ──► the log, whether an engine runs or not
    change ──► --url, or a process holds the log ──► HTTP to the engine
           └─► nobody holds it ───────────────────► the log

An engine that runs has to make each change itself: it keeps in memory what it delivers.
"""

from __future__ import annotations

import getpass
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import trio
import typer

from marketfeed.cli.options import fail, load_config
from marketfeed.errors import AlertLogError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from marketfeed.alerts.sqlite_log import SqliteLog
    from marketfeed.alerts.sqlite_reads import SqliteReader
    from marketfeed.cli.alerts_http import Call
    from marketfeed.config.schema import Loaded

BUSY_S: Final = 3.0  # for which another command may hold the log
LOOK_S: Final = 0.1

LogOption = Annotated[
    Path | None,
    typer.Option("--log", metavar="FILE", help="The log. Default: alerts.path of the configuration."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="URL of the engine, http://HOST:PORT. Default: as the configuration says, if an engine holds "
        "the log; else the log itself is changed.",
    ),
]
ByOption = Annotated[
    str | None, typer.Option("--by", help="Who does it, for the audit trail. Default: your login name.")
]

T = TypeVar("T")


def read_log(
    log: Path | None, config: Path | None, set_: list[str] | None, query: Callable[[SqliteReader], T]
) -> T:
    """Return what ``query`` reads of the log; raises the exit with status 2."""
    return queried(log or log_of(load_config(config, set_)), query)


def queried(path: Path, query: Callable[[SqliteReader], T]) -> T:
    """Return what ``query`` reads of the log at ``path``; raises the exit with status 2."""
    from marketfeed.alerts.sqlite_reads import SqliteReader

    try:
        reader = SqliteReader(path)
        try:
            return query(reader)
        finally:
            reader.close()
    except AlertLogError as error:
        raise fail(str(error)) from None


def log_of(loaded: Loaded) -> Path:
    """Return the path of the configuration's log."""
    return loaded.base / loaded.config.alerts.path


def login(by: str | None) -> str:
    """Return ``by``, else the login name; raises the exit with status 2."""
    try:
        return by or getpass.getuser()
    except (KeyError, OSError):
        raise fail("--by: missing; this user has no login name") from None


@dataclass(frozen=True)
class Place:
    """Where a command changes alerts, by its options."""

    log: Path | None = None
    config: Path | None = None
    set_: list[str] | None = None
    url: str | None = None
    ca: Path | None = None
    token: str | None = None

    def change(self, call: Call, in_log: Callable[[SqliteLog], Awaitable[Any]]) -> Any:
        """Make a change: by ``call`` if an engine holds the log, else by ``in_log``; return the answer.

        Raises the exit with status 2 if it was not made, or CallError if the engine says so.
        """
        from marketfeed.alerts.sqlite_file import in_use
        from marketfeed.cli.alerts_http import EngineHttp, UnreachableError

        loaded = load_config(self.config, self.set_)
        path = self.log or log_of(loaded)
        until_s = time.monotonic() + BUSY_S
        while True:
            try:
                if self.url is not None or in_use(path):
                    return EngineHttp(loaded.config, self.url, self.ca, self.token).answer(call)
                if not path.exists():
                    raise fail(
                        f"there is no alert log {path}: an engine with alerts creates it; "
                        "for an engine at another address, use --url http://HOST:PORT"
                    )
                return trio.run(_changed, path, in_log)
            except ConfigError as error:
                raise fail(str(error)) from None
            except (UnreachableError, AlertLogError) as error:
                # The holder may be another command, which is done soon.
                refused = isinstance(error, UnreachableError) and error.refused and self.url is None
                taken = isinstance(error, AlertLogError) and in_use(path)
                if not (refused or taken) or time.monotonic() >= until_s:
                    raise fail(str(error)) from None
            time.sleep(LOOK_S)


async def _changed(path: Path, in_log: Callable[[SqliteLog], Awaitable[Any]]) -> Any:
    from marketfeed.alerts.sqlite_log import open_log

    async with open_log(path) as log:
        return await in_log(log)
