"""Where the commands about alerts read and change them: the log, and the engine that holds it.

    read  ──► the log, whether an engine runs or not
    change ──► --url, or a process holds the log ──► HTTP to the engine
           └─► nobody holds it ───────────────────► the engine's handlers over the log

An engine that runs has to make each change itself: it keeps in memory what it delivers.
"""

from __future__ import annotations

import getpass
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
import trio
import typer

from marketfeed.cli.options import fail, load_config
from marketfeed.errors import AlertLogError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from marketfeed.alerts.sqlite_reads import SqliteReader
    from marketfeed.cli.alerts_http import Answer, Call, EngineHttp
    from marketfeed.config.schema import Loaded

BUSY_S: Final = 3.0  # for which another command may hold the log
LOOK_S: Final = 0.1
NOT_TEXT: Final = "an argument is not UTF-8 text"
ELSEWHERE: Final = "for an engine at another address, use --url http://HOST:PORT"

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
AdminUrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="URL of the engine's admin port, http://HOST:PORT. Default: as the configuration says, if an "
        "engine holds the log; else the log itself is used.",
    ),
]
AdminTokenOption = Annotated[
    Path | None,
    typer.Option(
        "--admin-token-file",
        metavar="FILE",
        help="File with the token of the admin port. Default: admin.token_file of the configuration; with "
        "--url, no token is sent.",
    ),
]
ByOption = Annotated[
    str | None, typer.Option("--by", help="Who does it, for the audit trail. Default: your login name.")
]

T = TypeVar("T")
Kind = TypeVar("Kind", bound=msgspec.Struct)


def read_log(
    log: Path | None, config: Path | None, set_: list[str] | None, query: Callable[[SqliteReader], T]
) -> T:
    """Return what ``query`` reads of the log; raises the exit with status 2."""
    from marketfeed.alerts.sqlite_reads import SqliteReader

    try:
        reader = SqliteReader(log or log_of(load_config(config, set_)))
        try:
            return query(reader)
        finally:
            reader.close()
    except AlertLogError as error:
        raise fail(str(error)) from None
    except UnicodeEncodeError:
        raise fail(NOT_TEXT) from None


def check_consumer(reader: SqliteReader, name: str) -> None:
    """Raise the exit with status 2 if the log has no consumer ``name``."""
    from marketfeed.config.guesses import guess

    names = [consumer.name for consumer in reader.consumers()]
    if name not in names:
        raise fail(f"no consumer {name[:64]!r}{guess(name[:64], names)}")


def log_of(loaded: Loaded) -> Path:
    """Return the path of the configuration's log."""
    return loaded.base / loaded.config.alerts.path


def login(by: str | None) -> str:
    """Return ``by``, else the login name; raises the exit with status 2."""
    try:
        return by or getpass.getuser()
    except (KeyError, OSError):
        raise fail("--by: missing; this user has no login name") from None


def struct_of(answer: Answer, kind: type[Kind]) -> Kind:
    """Return the answer's value as a struct; raises the exit with status 2 if no engine sent it."""
    from marketfeed.cli.alerts_http import UnreachableError, read_as

    try:
        return read_as(kind, answer.value)
    except UnreachableError as error:
        raise fail(str(error)) from None


@dataclass(frozen=True)
class Place:
    """Where a command changes alerts, by its options."""

    log: Path | None = None
    config: Path | None = None
    set_: list[str] | None = None
    url: str | None = None
    ca: Path | None = None
    admin_token_file: Path | None = None

    def changed(self, call: Call, kind: type[Kind]) -> Kind:
        """Return the answer to ``call`` as a struct, as :meth:`change`."""
        return struct_of(self.change(call), kind)

    def change(self, call: Call) -> Answer:
        """Return the answer to ``call``, as :meth:`answer`; a refusal ends the command too."""
        from marketfeed.cli.alerts_http import CallError

        try:
            return self.answer(call)
        except CallError as error:
            raise fail(str(error)) from None

    def answer(self, call: Call, needs_engine: str = "") -> Answer:
        """Make a change: by HTTP if an engine holds the log, else in the log itself; return the answer.

        Raises CallError if it is refused, and the exit with status 2 if it cannot be asked for. A change that
        only an engine can make has the name of its option in ``needs_engine``.
        """
        from marketfeed.alerts.sqlite_file import in_use
        from marketfeed.cli.alerts_http import UnreachableError

        loaded = load_config(self.config, self.set_)
        path = self.log or log_of(loaded)
        until_s = time.monotonic() + BUSY_S
        while True:
            try:
                if self.url is not None or in_use(path):
                    return self._engine(loaded, call).answer(call)
                return _offline(path, loaded, call, needs_engine)
            except ConfigError as error:
                raise fail(str(error)) from None
            except UnicodeEncodeError:
                raise fail(NOT_TEXT) from None
            except (UnreachableError, AlertLogError) as error:
                # The holder may be another command, which is done soon.
                refused = isinstance(error, UnreachableError) and error.refused and self.url is None
                taken = isinstance(error, AlertLogError) and in_use(path)
                if not (refused or taken) or time.monotonic() >= until_s:
                    raise fail(str(error)) from None
            time.sleep(LOOK_S)

    def check_consumer(self, name: str) -> None:
        """Raise the exit with status 2 if the log has no consumer of this name.

        The consumers of an engine at ``url`` are not known here, and neither are those of a log that cannot
        be read: the change itself says why.
        """
        from marketfeed.alerts.sqlite_reads import SqliteReader

        if self.url is not None:
            return
        try:
            reader = SqliteReader(self.log or log_of(load_config(self.config, self.set_)))
        except AlertLogError:
            return
        try:
            check_consumer(reader, name)
        finally:
            reader.close()

    def asked(self, call: Call, read: Callable[[Any], T]) -> T | None:
        """Return what ``read`` makes of an engine's answer to a question; None if no engine holds the log.

        Also None if the one that the configuration describes cannot be asked, which is printed to stderr.
        """
        from marketfeed.alerts.sqlite_file import in_use
        from marketfeed.cli.alerts_http import CallError, UnreachableError

        loaded = load_config(self.config, self.set_)
        if self.url is None and not in_use(self.log or log_of(loaded)):
            return None
        try:
            return read(self._engine(loaded, call).answer(call).value)
        except (AlertLogError, ConfigError, UnreachableError, CallError) as error:
            told = fail(str(error))
            if self.url is not None:
                raise told from None
            return None

    def _engine(self, loaded: Loaded, call: Call) -> EngineHttp:
        """Return the engine that holds the log, for ``call``.

        Raises AlertLogError if the configuration is not that of the log: its engine may be another one.
        Raises ConfigError if ``call`` is to the admin port and its token cannot be read.
        """
        if self.url is None and self.log is not None and self.log.resolve() != log_of(loaded).resolve():
            raise AlertLogError(
                f"{self.log} is in use, and is not the log of this configuration: "
                "use --config or --url of the engine that holds it"
            )
        return engine_of(loaded, call, self.url, self.ca, self.admin_token_file)


def engine_of(
    loaded: Loaded, call: Call, url: str | None, ca: Path | None, admin_token_file: Path | None
) -> EngineHttp:
    """Return the engine at ``url``, else that of the configuration, for ``call``.

    Raises ConfigError if ``call`` is to the admin port and its token cannot be read. The configuration's
    token is for its own engine, and is not sent to ``url``.
    """
    from marketfeed.cli.alerts_http import EngineHttp
    from marketfeed.config.admin_token import token_in

    token, file = None, loaded.config.admin.token_file
    if call.admin and admin_token_file is not None:
        token = token_in(str(admin_token_file), Path(), "--admin-token-file")
    elif call.admin and url is None and file is not None:
        try:
            token = token_in(file, loaded.base)
        except ConfigError as error:
            raise loaded.refusal(error.mistakes) from None
    return EngineHttp(loaded.config, url, ca, token)


def _offline(path: Path, loaded: Loaded, call: Call, needs_engine: str) -> Answer:
    if needs_engine:
        raise fail(f"{needs_engine}: needs an engine, and none holds {path}; {ELSEWHERE}")
    if not path.exists():
        raise fail(f"there is no alert log {path}: an engine with alerts creates it; {ELSEWHERE}")
    from marketfeed.cli.alerts_offline import answer_offline

    return trio.run(answer_offline, path, loaded.config.alerts, call)
