"""``marketfeed alerts tail``: alerts of one feed, which reconnects, one line each.

    subscribe ──► alert ──► printed and flushed ──► acknowledged

What was printed and is not acknowledged yet is not printed again when it comes again; the feed repeats the
acknowledgement until the engine has it on disk.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import msgspec
import trio

from marketfeed.alerts.alert import Alert
from marketfeed.cli.alerts_output import Lines, alert_fields, console_on, json_line
from marketfeed.cli.piped import PipeClosedError, discard_stdout, print_flushed, wait_reader_gone
from marketfeed.client import messages
from marketfeed.client.for_commands import ENDS, command_feed, lost, why_ended
from marketfeed.client.refusals import FIRST_FINAL_CODE
from marketfeed.core.printable import printable
from marketfeed.core.units import US
from marketfeed.errors import TEMPORARY_ERRORS, CloseCode, RefusedError, RequestRefusedError

if TYPE_CHECKING:
    from marketfeed.alerts.alert import Severity, State
    from marketfeed.client.address import Endpoint
    from marketfeed.client.feed import Feed


@dataclass(frozen=True)
class Subscription:
    """What to follow. Without ``consumer`` it is a live view, which acknowledges nothing."""

    patterns: tuple[str, ...]
    consumer: str | None = None
    acknowledge: bool = False
    from_start: bool = False  # a new consumer begins with the oldest alert in the log
    token: str | None = field(default=None, repr=False)  # key or token, if the engine asks for one

    def wanted(self) -> dict[str, Any]:
        """Return the arguments of the feed's ``subscribe``."""
        asked: dict[str, Any] = {"alerts": self.patterns}
        if self.consumer is not None:
            asked |= {"consumer": self.consumer, "start": "all" if self.from_start else "now"}
        return asked


class Follower:
    """One run of the command."""

    def __init__(self, engine: Endpoint, wanted: Subscription, *, as_json: bool = False) -> None:
        self._engine, self._wanted, self._as_json = engine, wanted, as_json
        self._console, self._lines = console_on(sys.stdout), Lines()
        self._pending: dict[str, None] = {}  # ids that were printed, and are not acknowledged
        self._printed = trio.Event()
        self._told_passed_over = False

    async def run(self) -> int:
        """Print alerts until interrupted, or until the reader of stdout has gone; return the exit status."""
        ended: str | None = None
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async with trio.open_nursery() as beside:
                beside.start_soon(_wait_interrupt, signals, beside.cancel_scope)
                beside.start_soon(_wait_reader_gone, beside.cancel_scope)
                ended = await self._follow()
                beside.cancel_scope.cancel()
        if ended is None:
            return 0
        _tell(ended)
        return 1

    async def _follow(self) -> str | None:
        """Print what comes until the feed ends for good; return why, None if there is no reader any more."""
        ended: str | None = None
        try:
            async with command_feed(self._engine, self._wanted.token) as feed, trio.open_nursery() as beside:
                beside.start_soon(self._subscribe, feed)
                beside.start_soon(self._acknowledge, feed)
                try:
                    async for message in feed:
                        self._take(message, feed)
                        self._check_passed_over(feed)
                finally:
                    self._check_passed_over(feed)
        except* PipeClosedError:
            discard_stdout()
        except* ENDS as group:
            ended = why_ended(group, self._engine)
        return ended

    def _check_passed_over(self, feed: Feed) -> None:
        """Tell once if an alert may have been among the messages that were not understood."""
        if feed.passed_over and not self._told_passed_over:
            self._told_passed_over = True
            _tell("passed over messages of the engine that this version does not understand")

    async def _subscribe(self, feed: Feed) -> None:
        await feed.subscribe(**self._wanted.wanted())

    async def _acknowledge(self, feed: Feed) -> None:
        """Acknowledge what was printed."""
        while True:
            self._printed = trio.Event()
            if not self._pending:
                await self._printed.wait()
            alerts = list(self._pending)
            await feed.acknowledge(alerts)
            for alert in alerts:
                del self._pending[alert]

    def _take(self, message: messages.Message, feed: Feed) -> None:
        match message:
            case messages.Alert() if message.id not in self._pending:
                try:
                    self._show(message)
                except (ValueError, OverflowError):
                    what = f"{self._engine.url}: an alert with a time or number that is none"
                    raise RefusedError(CloseCode.PROTOCOL, what) from None
                if self._wanted.acknowledge:
                    self._pending[message.id] = None
                    self._printed.set()
            case messages.Disconnected():
                reason = lost(message, feed)
                if not message.announced:
                    _tell(f"{reason}, reconnecting")
            case messages.Closing(code=code) if code < FIRST_FINAL_CODE:
                _tell(f"closing {code}: {message.msg}, reconnecting")
            case messages.Error(code=code):
                if code not in TEMPORARY_ERRORS:  # the feed repeats the request
                    raise RequestRefusedError(code, message.msg)
                _tell(f"error {code}: {message.msg}")

    def _show(self, got: messages.Alert) -> None:
        """Print an alert, and flush."""
        alert = alert_of(got)
        if self._as_json:
            again = {"try": got.try_ if got.ack else None}
            print_flushed(json_line(alert_fields(alert, again)))
            return
        alert = msgspec.structs.replace(
            alert, id=printable(got.id), rule=printable(got.rule), symbol=printable(got.S)
        )
        line = self._lines.line(alert.r_ns, alert, f"try {got.try_}" if got.try_ > 1 else "")
        if self._console.is_terminal:
            self._console.print(line)
        else:
            print_flushed(line.plain)


def alert_of(got: messages.Alert) -> Alert:
    """Return the alert in a message; its times are in whole microseconds."""
    return Alert(
        id=got.id,
        key=got.key,
        rule=got.rule,
        symbol=got.S,
        severity=cast("Severity", got.sev),
        state=cast("State", got.state),
        value=got.v,
        threshold=got.th,
        t_ns=got.t * US,
        r_ns=got.r * US,
        message=got.msg,
        suppressed=got.suppressed,
        to=got.to or None,
        data=None if got.data is msgspec.UNSET else got.data,
    )


async def _wait_interrupt(signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
    await anext(signals)
    everything.cancel()


async def _wait_reader_gone(everything: trio.CancelScope) -> None:
    await wait_reader_gone(sys.stdout)
    everything.cancel()


def _tell(text: str) -> None:
    print(f"marketfeed alerts tail: {printable(text)}", file=sys.stderr)
