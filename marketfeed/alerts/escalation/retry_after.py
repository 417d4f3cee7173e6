"""The header Retry-After. Pure. Source: RFC 9110, section 10.2.3."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from marketfeed.core.units import S

MOST_S: Final = 86_400.0  # a longer delay is shortened to this
_SECONDS: Final = re.compile(r"[0-9]{1,10}")


def parse_retry_after(text: str, now_ns: int) -> float | None:
    """Return the delay from ``now_ns``, Unix, that ``text`` asks for, at most a day; None if it is invalid.

    ``text`` is a number of seconds or a date; a date in the past is a delay of 0.
    """
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), MOST_S)
    try:
        at = parsedate_to_datetime(text)
        # "-0000" is UTC from an unknown zone: parsed without a zone.
        at_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(at_s - now_ns / S, 0.0), MOST_S)
