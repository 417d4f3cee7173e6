"""Single keys from the terminal, and restoring the terminal afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import trio

READ_BYTES: Final = 1024
# An escape sequence (ECMA-48, section 5.4; xterm, VT220), a character with Alt, or one character. Those
# without a name are skipped.
_KEY: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[0-9;]*[A-Za-z]|[^\x1b])|\x1b|[^\x1b]", re.DOTALL)
_NAMES: Final = {
    "[A": "up", "[B": "down", "OA": "up", "OB": "down", "[5~": "page up", "[6~": "page down",
    "[H": "home", "OH": "home", "[1~": "home", "[F": "end", "OF": "end", "[4~": "end", "": "escape",
}  # fmt: skip
_CONTROL: Final = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace"}


def keys_of(text: str) -> list[str]:
    """Return the keys in ``text``, as sent by a terminal: names of special keys, or characters."""
    found = [
        _NAMES.get(key[1:], "") if key[0] == "\x1b" else _CONTROL.get(key, key) for key in _KEY.findall(text)
    ]
    return [key for key in found if key]


class Keyboard:
    """Keyboard input from stdin, if it is the terminal of the foreground process group."""

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno()
        self._before: list[Any] | None = None

    @contextlib.contextmanager
    def unbuffered(self) -> Iterator[None]:
        """Disable line buffering and echo within the block; restore the terminal at its end."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def begin(self) -> None:
        """Disable line buffering and echo. Ctrl-C and Ctrl-Z still send signals."""
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)

    def end(self) -> None:
        """Restore the terminal. Idempotent."""
        before, self._before = self._before, None
        if before is not None:
            with contextlib.suppress(termios.error):  # the terminal was closed
                termios.tcsetattr(self._fd, termios.TCSADRAIN, before)

    async def keys(self) -> AsyncIterator[str]:
        """Yield keys as they are pressed, until the terminal is closed."""
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                data = os.read(self._fd, READ_BYTES)
            except OSError:
                return
            if not data:
                return
            for key in keys_of(data.decode("utf-8", "replace")):
                yield key


def keyboard() -> Keyboard | None:
    """Return the keyboard, None if stdin is not the terminal of the foreground process group."""
    try:
        fd = sys.stdin.fileno()
        if os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp():
            return Keyboard()
    except (OSError, ValueError, AttributeError):  # stdin is closed, or is not a file
        return None
    return None
