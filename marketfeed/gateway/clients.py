"""What a client says it is: the SDK in its ``User-Agent``, as a label that strangers cannot multiply."""

from __future__ import annotations

import re
from typing import Final

NO_SDK: Final = "none"
OTHER_SDK: Final = "other"
MOST_SDKS: Final = 50  # told apart by one process; who comes after them is "other"

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
        return self._seen.setdefault(sdk, sdk)  # one string for all sessions that say it
