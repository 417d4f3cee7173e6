"""Client SDKs by ``User-Agent``, as a metric label with a bounded number of values."""

from __future__ import annotations

import re
from typing import Final

NO_SDK: Final = "none"
OTHER_SDK: Final = "other"
MOST_SDKS: Final = 50  # distinct values per process; further ones are counted as "other"

_SDK: Final = re.compile(r"marketfeed-[a-z]{1,12}/\d{1,4}(?:\.\d{1,4}){0,2}(?![^\s;(])")


class Sdks:
    """The SDKs seen so far."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def label(self, user_agent: str | None) -> str:
        """Return ``marketfeed-NAME/VERSION`` if the header begins with one, else "none" or "other"."""
        found = _SDK.match(user_agent or "")
        if found is None:
            return NO_SDK
        sdk = found.group()
        if sdk not in self._seen and len(self._seen) >= MOST_SDKS:
            return OTHER_SDK
        return self._seen.setdefault(sdk, sdk)  # all sessions share one string
