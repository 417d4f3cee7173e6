"""Latencies for operators: as JSON, the log that they are written to, and the report about it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import trio

from marketfeed.gateway.http import NO_STORE, Request, Response, error_response, json_response
from marketfeed.gateway.query import check_keys

if TYPE_CHECKING:
    from pathlib import Path

    from marketfeed.gateway.exchange import Headers
    from marketfeed.gateway.http import Routes
    from marketfeed.gateway.overview import Overview

LOG: Final = "/v1/latency/log"
REPORT: Final = "/v1/latency/report"
REPORT_S: Final = 60.0  # for making a report
FRESH_S: Final = 5.0  # for which a report answers all requests for it
SAFE: Final[Headers] = (
    *NO_STORE,
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    # The report has a style sheet and a picture in it, and no script.
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
    ),
)
# The command, with the lowest priority that still gets some CPU: the engine has its cores first.
_COMMAND: Final = "import os; os.nice(15); from marketfeed.cli import main; main()"


class ReportError(Exception):
    """There is no report; the text says why."""


class LatencyOperations:
    """The handlers; ``path`` is that of the log."""

    def __init__(self, overview: Overview, path: Path) -> None:
        self._overview, self._path = overview, path
        self._making = trio.Lock()
        self._report = b""
        self._good_until_s = 0.0
        self.routes: Routes = {
            "/v1/latency": {"GET": self._latency},
            LOG: {"GET": self._log},
            REPORT: {"GET": self._make},
        }

    async def _latency(self, request: Request) -> Response:
        check_keys(request.query, ())
        return json_response(await self._overview.latency())

    async def _log(self, request: Request) -> Response:
        """Return the log's present file."""
        check_keys(request.query, ())
        try:
            text = await trio.to_thread.run_sync(contents, self._path)
        except OSError as error:
            return error_response(404, f"no log: {self._path}: {error.strerror or error}")
        return Response(text, "text/plain; charset=utf-8", headers=SAFE)

    async def _make(self, request: Request) -> Response:
        """Return the report about the log's present file, made in another process, one at a time."""
        check_keys(request.query, ())
        async with self._making:  # who asks meanwhile gets the same report
            if not self._report or trio.current_time() >= self._good_until_s:
                self._report = b""
                try:
                    self._report = await html_report(self._path)
                except ReportError as error:
                    return error_response(503, str(error))
                self._good_until_s = trio.current_time() + FRESH_S
        return Response(self._report, "text/html; charset=utf-8", headers=SAFE)


def contents(path: Path) -> bytes:
    """Return the contents of a regular file; raises OSError. Blocking, but not for a pipe's writer."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("not a regular file")
        return file.read()


async def html_report(path: Path) -> bytes:
    """Return the page that ``marketfeed report`` makes of the log at ``path``; raises ReportError."""
    page = os.memfd_create("report")
    try:
        with trio.move_on_after(REPORT_S):
            done = await trio.run_process(
                [
                    *(sys.executable, "-P", "-c", _COMMAND),
                    *("report", "--html", f"/proc/self/fd/{page}", "--", str(path)),
                ],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                capture_stdout=False,
                stdout=subprocess.DEVNULL,
                capture_stderr=True,
                check=False,
                pass_fds=(page,),
                process_group=0,  # Ctrl-C on a terminal is for the engine
            )
            if done.returncode != 0:
                said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
                raise ReportError(said.removeprefix("marketfeed: ") or f"exit status {done.returncode}")
            return os.pread(page, os.fstat(page).st_size, 0)
    finally:
        os.close(page)
    raise ReportError(f"the report was not made within {REPORT_S:g} s")
