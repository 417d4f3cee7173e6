"""Messages for faulty rows of delimited text, with the configuration key that would read them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from marketfeed.feeds.replay.moments import BEYOND_THE_DAY, NOT_A_DATE, NOT_A_TIME, TOO_EARLY, date_of
from marketfeed.feeds.replay.recording import LOGGED
from marketfeed.feeds.replay.rowfields import Fault

if TYPE_CHECKING:
    from marketfeed.feeds.replay.columns import Layout

REASONS: Final = {
    Fault.NO_TIME: "not a time",
    Fault.TIME_TOO_EARLY: "a time before 1980; is `time` its unit, and does it lack a `day`?",
    Fault.TIME_BEYOND_DAY: "a time more than 25 h after the day",
    Fault.NO_DATE: "not a date",
    Fault.NO_PRICE: "not a price",
    Fault.PRICE_TOO_FINE: "a price finer than 1e-9",
    Fault.NO_SIZE: "not a size",
    Fault.TRADE_WITHOUT_PRICE: "a trade without price or size",
    Fault.TRADE_WITHOUT_SIZE: "a trade without price or size",
    Fault.SYMBOL_NOT_UTF8: "a symbol that is no UTF-8",
    Fault.EXCHANGE_NOT_UTF8: "an exchange that is no UTF-8",
}
TIME_FAULTS: Final = {
    NOT_A_TIME: Fault.NO_TIME,
    TOO_EARLY: Fault.TIME_TOO_EARLY,
    BEYOND_THE_DAY: Fault.TIME_BEYOND_DAY,
    NOT_A_DATE: Fault.NO_DATE,
}  # by the codes of moments.py
# Faults of one field, which the message quotes; other faults concern the row as a whole.
FIELD_FAULTS: Final = frozenset(
    {Fault.NO_TIME, Fault.NO_DATE, Fault.NO_PRICE, Fault.PRICE_TOO_FINE, Fault.NO_SIZE}
)
_TIMES: Final = (Fault.NO_TIME, Fault.TIME_TOO_EARLY, Fault.TIME_BEYOND_DAY)
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
    """Suggestions which configuration key would read a faulty row, for the first faulty rows."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._given = 0

    def hint(self, fault: Fault, text: str) -> str:
        """Return the suggestion to append to REASONS[``fault``] of a field ``text``; "" for none."""
        keys = self._layout.keys
        if self._given >= LOGGED:
            return ""
        found = ""
        if fault in _TIMES:
            self._given += 1
            suggestion = self._layout.moments.suggestion(text)
            found = (
                f" (read by {self._layout.moments.configured()})"
                if suggestion or fault is not Fault.TIME_TOO_EARLY
                else ""
            )
            found += f"; use {suggestion}" if suggestion else ""
        elif (
            fault in (Fault.NO_PRICE, Fault.NO_SIZE)
            and keys.decimal != ","
            and _COMMA.fullmatch(text.strip())
        ):
            found = '; use decimal = ","'
        elif fault is Fault.NO_DATE:
            formats = [one for one in _DATES if date_of(text, one) is not None]
            found = f'; use date_format = "{formats[0]}"' if formats else ""
        return found
