"""The table of ``marketfeed watch`` on the terminal: drawn in the alternate screen, changed by keys.

The terminal is restored however the command ends, and while it is stopped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final

import trio
from rich.live import Live

from marketfeed.cli.keyboard import Keyboard, keyboard
from marketfeed.cli.screen import picture

if TYPE_CHECKING:
    from rich.console import Console

    from marketfeed.cli.board import Board
    from marketfeed.cli.view import View

REDRAW_S: Final = 0.2


class LiveTable:
    """Shows ``board``. ``pressed`` is called after each key that ``view`` has taken."""

    def __init__(
        self, console: Console, board: Board, view: View, url: str, pressed: Callable[[], None]
    ) -> None:
        self._console, self._board, self._view, self._url = console, board, view, url
        self._pressed = pressed
        self._changed = trio.Event()  # set by a key: redraw now

    async def around(self, task: Callable[[], Awaitable[None]]) -> None:
        """Show the table while ``task`` runs."""
        keys = keyboard()
        live = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with trio.open_signal_receiver(signal.SIGTSTP) as stops, contextlib.ExitStack() as terminal:
            async with trio.open_nursery() as beside:
                if keys is not None:
                    terminal.enter_context(keys.unbuffered())
                    beside.start_soon(self._press, keys)
                terminal.enter_context(live)
                beside.start_soon(self._redraw, live, keys is not None)
                beside.start_soon(_stop, stops, live, keys)
                await task()
                beside.cancel_scope.cancel()

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

    async def _press(self, keys: Keyboard) -> None:
        async for key in keys.keys():
            self._view.press(key)
            self._pressed()
            self._changed.set()


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
