"""Units of time, in nanoseconds."""

from __future__ import annotations

from typing import Final

US: Final = 1_000
MS: Final = 1_000_000
S: Final = 1_000_000_000
MINUTE_NS: Final = 60 * S
DAY_NS: Final = 86_400 * S
