"""What the keys of ``marketfeed watch`` have chosen: the part of the symbols shown, their order, a pause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marketfeed.cli.orders import ORDERS, Order
from marketfeed.core.symbols import MAX_NAME_BYTES

if TYPE_CHECKING:
    from marketfeed.cli.board import Board

LEAST_ROWS: Final = 1
# The most important first: a low terminal shows these.
HELP: Final = (
    ("q Ctrl-C", "quit"),
    ("space", "pause: the picture stands still, the data goes on"),
    ("/", "only symbols that contain a text; Esc: all symbols"),
    ("s S", f"the next, previous order: by {', '.join(order.name for order in ORDERS)}"),
    ("r", "the order reversed"),
    ("t T", "the next, previous tier of the engine"),
    ("↑ ↓ k j", "one symbol up, down"),
    ("PgUp PgDn b f", "one page up, down"),
    ("Home End g G", "the first, the last symbol"),
)


class View:
    """State that keys change. ``typing``: keys are the text of the filter; ``help``: the keys are shown."""

    def __init__(self) -> None:
        self.top = 0  # the first symbol shown
        self.rows = LEAST_ROWS  # rows that fit, when last drawn
        self.filter = ""
        self.reverse = self.typing = self.help = self.paused = self.quit = False
        self.tier_steps = 0  # how many tiers further was asked for; the reader sets it to 0
        self._order = 0
        self._frozen: tuple[Board, float] | None = None  # what is shown while paused, and since when

    @property
    def order(self) -> Order:
        """The order of the symbols."""
        return ORDERS[self._order % len(ORDERS)]

    def shown(self, board: Board, now_s: float) -> tuple[Board, float]:
        """Return the board to show and its time: while paused, those at the first call since."""
        if not self.paused:
            self._frozen = None
            return board, now_s
        if self._frozen is None:
            self._frozen = board.copy(), now_s
        return self._frozen

    def press(self, key: str) -> None:
        """Handle ``key``, a name or character of keyboard.py."""
        if self.help and key != "q":
            self.help = False
        elif self.typing:
            self._type(key)
        elif not self._scroll(key):
            self._choose(key)

    def _type(self, key: str) -> None:
        match key:
            case "enter":
                self.typing = False
            case "escape":
                self.typing, self.filter = False, ""
            case "backspace":
                self.typing = bool(self.filter)
                self.filter = self.filter[:-1]
            case _ if len(key) == 1 and key.isprintable() and len(self.filter) < MAX_NAME_BYTES:
                self.filter += key
            case _:
                self._scroll(key)

    def _scroll(self, key: str) -> bool:
        """Move the part that is shown; return whether ``key`` does that."""
        match key:
            case "up" | "k":
                self.top -= 1
            case "down" | "j":
                self.top += 1
            case "page up" | "b":
                self.top -= self.rows
            case "page down" | "f":
                self.top += self.rows
            case "home" | "g":
                self.top = 0
            case "end" | "G":
                self.top = 1 << 30  # limited to the last page when drawn
            case _:
                return False
        self.top = max(self.top, 0)
        return True

    def _choose(self, key: str) -> None:
        match key:
            case "/":
                self.typing = True
            case "escape":
                self.filter = ""
            case "s" | "S":
                self._order += 1 if key == "s" else -1
            case "r":
                self.reverse = not self.reverse
            case "t" | "T":
                self.tier_steps += 1 if key == "t" else -1
            case " ":
                self.paused = not self.paused
            case "?":
                self.help = True
            case "q":
                self.quit = True
