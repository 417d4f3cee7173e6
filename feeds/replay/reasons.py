"""Why a row of delimited text is left out, in words, and which key would have it read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from marketfeed.feeds.replay.moments import BEYOND_THE_DAY, NOT_A_DATE, NOT_A_TIME, TOO_EARLY, date_of
from marketfeed.feeds.replay.recording import LOGGED

if TYPE_CHECKING:
    from marketfeed.feeds.replay.columns import Layout

REASONS: Final = (
    "",
    "not a time",
    "a time before 1980; is `time` its unit, and does it lack a `day`?",
    "not a price",
    "not a size",
    "a trade without price or size",
    "a price finer than 1e-9",
    "a symbol that is no UTF-8",
    "a time more than 25 h after the day",
    "not a date",
    "an exchange that is no UTF-8",
)
TIME_REASONS: Final = {
    NOT_A_TIME: 1,
    TOO_EARLY: 2,
    BEYOND_THE_DAY: 8,
    NOT_A_DATE: 9,
}  # by what moments.py says
TIME_COLUMNS: Final = {NOT_A_TIME: "time", NOT_A_DATE: "date"}
_TOO_EARLY: Final = TIME_REASONS[TOO_EARLY]
_TIMES: Final = (1, 2, 8)
_NOT_A_PRICE, _NOT_A_SIZE, _NOT_A_DATE = 3, 4, 9
_COMMA: Final = re.compile(r"[+-]?[0-9]+,[0-9]+")
_DATES: Final = (
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%d-%m-%Y",
    "%y%m%d",
    "%d-%b-%Y",
    "%d %b %Y",
    "%d.%m.%y",
    "%m/%d/%y",
)


class Hints:
    """Says of the first rows that are left out which key would have them read."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._given = 0

    def hint(self, reason: int, text: str) -> str:
        """Return what to add to REASONS[``reason``] of a field with ``text``; "" if nothing is known."""
        keys = self._layout.keys
        if self._given >= LOGGED:
            return ""
        found = ""
        if reason in _TIMES:
            self._given += 1
            suggestion = self._layout.moments.suggestion(text)
            found = (
                f" (read by {self._layout.moments.configured()})"
                if suggestion or reason != _TOO_EARLY
                else ""
            )
            found += f"; use {suggestion}" if suggestion else ""
        elif reason in (_NOT_A_PRICE, _NOT_A_SIZE) and keys.decimal != "," and _COMMA.fullmatch(text.strip()):
            found = '; use decimal = ","'
        elif reason == _NOT_A_DATE:
            formats = [one for one in _DATES if date_of(text, one) is not None]
            found = f'; use date_format = "{formats[0]}"' if formats else ""
        return found
