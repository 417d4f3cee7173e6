"""``marketfeed watch``: shows the ticks of one WebSocket session, which reconnects.

On a terminal as a table (board.py, screen.py) in the alternate screen, which keys scroll (keyboard.py);
otherwise as one line per tick. The terminal is restored however the command ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import orjson
import trio
from rich.console import Console
from rich.live import Live

from marketfeed.cli.board import Board, line_of, notice_of
from marketfeed.cli.keyboard import Keyboard, keyboard
from marketfeed.cli.piped import PipeClosedError, discard_stdout, print_flushed
from marketfeed.cli.screen import picture
from marketfeed.cli.view import View
from marketfeed.client.connection import BROKEN, THEIR_ENDS, Endpoint, known_symbols, known_tiers
from marketfeed.client.session import FIRST_FINAL_CODE, FinalError, KeptSession, messages_of, refusal
from marketfeed.client.unknown_symbols import told, unmatched
from marketfeed.core.printable import printable

if TYPE_CHECKING:
    import trio_websocket

REDRAW_S: Final = 0.2
TIER: Final = "tier"  # the id of a request that changes the tier


class Watch:
    """One run of the command."""

    def __init__(
        self,
        engine: Endpoint,
        symbols: list[str],
        tier: str | None,
        token: str | None,
        console: Console | None = None,
    ) -> None:
        self._engine, self._url = engine, engine.url
        self._token = token
        self._ws: trio_websocket.WebSocketConnection | None = None  # subscribed
        self._tiers: list[str] = []
        self._requests: list[dict[str, Any]] = []
        if token is not None:
            self._requests.append({"action": "auth", "token": token, "id": "auth"})
        names = {"quotes": symbols, "trades": symbols}
        self._requests.append({"action": "subscribe", **names, "encoding": "json", "id": "watch"})
        if tier is not None:
            self._requests[-1]["tier"] = tier
        self._board = Board()
        self._symbols = symbols
        self._console = console or Console()
        self._plain = not self._console.is_terminal or self._console.is_dumb_terminal
        self._view = View()
        self._changed = trio.Event()  # set by a key: redraw now
        self._announced: int | None = None  # the close code in the engine's `closing` message
        self._last_words = ""  # printed after the terminal is restored
        self._session = KeptSession(engine, self._use, self._lost)

    async def run(self) -> int:
        """Watch until interrupted; return the exit status."""
        status = 0
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._wait_interrupt, signals)
                if self._plain:
                    status = await self._follow()
                else:
                    status = await self._show(nursery)
                nursery.cancel_scope.cancel()
        if self._last_words:
            _tell(self._last_words)
        return status

    async def _wait_interrupt(self, signals: AsyncIterator[int]) -> None:
        await anext(signals)
        self._session.stop()

    # The terminal.

    async def _show(self, nursery: trio.Nursery) -> int:
        """Follow the session, and show the table in the alternate screen; return the exit status."""
        keys = keyboard()
        live = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with trio.open_signal_receiver(signal.SIGTSTP) as stops, contextlib.ExitStack() as terminal:
            if keys is not None:
                terminal.enter_context(keys.unbuffered())
                nursery.start_soon(self._press, keys, nursery)
            terminal.enter_context(live)
            nursery.start_soon(self._redraw, live, keys is not None)
            nursery.start_soon(_stop, stops, live, keys)
            return await self._follow()

    async def _redraw(self, live: Live, keys: bool) -> None:
        while True:
            if live.is_started:
                size = (self._console.width, self._console.height)
                live.update(
                    picture(self._board, self._view, self._url, time.time(), size, keys), refresh=True
                )
            with trio.move_on_after(REDRAW_S):
                await self._changed.wait()
            self._changed = trio.Event()

    async def _press(self, keys: Keyboard, beside: trio.Nursery) -> None:
        async for key in keys.keys():
            before = self._view.tier_steps
            self._view.press(key)
            if self._view.quit:
                self._session.stop()
            if self._view.tier_steps and not before:
                beside.start_soon(self._change_tier)
            self._changed.set()

    async def _change_tier(self) -> None:
        """Ask for the tier that keys have chosen, on the open connection."""
        self._tiers = self._tiers or await known_tiers(self._engine, self._token)
        steps, self._view.tier_steps = self._view.tier_steps, 0
        board, ws = self._board, self._ws
        if ws is None or board.tier not in self._tiers:
            board.notices.append(
                "the tier cannot be changed: not connected, or the engine does not tell them"
            )
            return
        tier = self._tiers[(self._tiers.index(board.tier) + steps) % len(self._tiers)]
        with contextlib.suppress(*THEIR_ENDS):  # told as the end of the session
            request = {"action": "subscribe", "tier": tier, "id": TIER}
            await ws.send_message(orjson.dumps(request).decode())

    # The connection.

    async def _follow(self) -> int:
        """Keep the session connected until interrupted; return the exit status."""
        try:
            ended = await self._session.run()
        except* PipeClosedError:
            discard_stdout()
            ended = None
        if isinstance(ended, FinalError):
            self._last_words = str(ended)
        elif ended is not None:
            self._last_words = f"cannot connect to {self._url}: {self._engine.unreachable(ended)}"
        return 0 if ended is None else 1

    async def _use(self, ws: trio_websocket.WebSocketConnection) -> None:
        self._announced = None
        for request in self._requests:
            await ws.send_message(orjson.dumps(request).decode())
        try:
            await self._read(ws)
        finally:
            self._ws = None

    def _lost(self, why: str, code: int | None) -> None:
        """Show that the connection ended, unless a `closing` message has announced it."""
        announced = code is not None and code == self._announced
        self._board.status = "reconnecting" if announced else f"{why}, reconnecting"
        if self._plain and not announced:
            _tell(self._board.status)

    async def _read(self, ws: trio_websocket.WebSocketConnection) -> None:
        """Show the messages until the connection ends, which raises ConnectionClosed."""
        async with trio.open_nursery() as beside:
            while True:
                frame = await ws.get_message()
                now_s = time.time()
                try:
                    messages = messages_of(frame)
                    for message in messages:
                        self._take(message, now_s, ws)
                    lines = [line for line in map(line_of, messages) if line] if self._plain else []
                except BROKEN:
                    raise FinalError(f"{self._url} does not speak marketfeed's protocol") from None
                print_flushed(*map(printable, lines))
                if any(message["T"] == "synced" for message in messages):
                    beside.start_soon(self._miss)

    def _take(self, message: dict[str, Any], now_s: float, ws: trio_websocket.WebSocketConnection) -> None:
        match message:
            case {"T": "error", "id": "tier"}:
                pass  # it stays on its tier, and a notice says why
            case {"T": "error", "id": _}:  # the answer to one of our requests
                raise refusal(message)
            case {"T": "subscription", "tier": tier}:
                self._session.backoff.reset()
                self._ws = ws
                if message.get("id") == TIER:  # for the next connection, too
                    self._requests[-1]["tier"] = tier
            case {"T": "closing", "code": code}:
                self._announced = code
                if "retry_ms" in message:
                    self._session.backoff.advise(message["retry_ms"] / 1000)
        self._board.fold(message, now_s)
        notice = notice_of(message)
        if self._plain and notice is not None:
            again = message["T"] == "closing" and message["code"] < FIRST_FINAL_CODE
            _tell(f"{notice}, reconnecting" if again else notice)

    async def _miss(self) -> None:
        """Report the subscribed names that match none of the engine's symbols, after `synced`."""
        missing = unmatched((name for name in self._symbols if name != "*"), self._board.rows)
        if not missing or self._board.unknown:
            return
        known = await known_symbols(self._engine, self._token)
        # A known symbol may have no ticks yet.
        for name in unmatched(missing, known):
            why = await trio.to_thread.run_sync(told, name, known, "the engine")
            self._board.unknown[name] = f"{why} (waiting for it)"
            if self._plain:
                _tell(f"{name}: {self._board.unknown[name]}")


async def _stop(stops: AsyncIterator[int], live: Live, keys: Keyboard | None) -> None:
    """Restore the terminal while the command is stopped, as by Ctrl-Z."""
    async for _ in stops:
        live.stop()
        if keys is not None:
            keys.end()
        os.kill(os.getpid(), signal.SIGSTOP)
        if keys is not None:
            keys.begin()
        live.start()


def _tell(text: str) -> None:
    print(f"marketfeed watch: {printable(text)}", file=sys.stderr)
