"""Side, kind and conditions of TRADE records: eight bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.core.records import KIND_CORRECTION, Records

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Printable ASCII without comma, quote and backslash, so that JSON and CSV need no escapes.
CONDITIONS: Final = frozenset(range(0x21, 0x7F)) - frozenset(b'",\\')
CONDITION_WORDS: Final = "printable ASCII characters without space, comma, quote and backslash"
_DETAILS: Final = np.dtype("<u8")
_LETTERS: Final = np.dtype(("u1", (4,)))
_OFFSET, _COND_OFFSET = 48, 50  # in TRADE; tests/core/test_records.py pins them
_VALID: Final = np.zeros(256, np.uint8)  # the byte itself if it is a valid condition, else 0
_VALID[list(CONDITIONS)] = list(CONDITIONS)


def details_of(trades: Records) -> NDArray[np.uint64]:
    """Return the eight bytes of TRADE records as one number each, shape ``(k,)``, a view.

    From the lowest bit: 8 bits of the side, 8 of the kind, 8 of each condition, 16 unused. So a trade that
    has only a side, the usual case, is below 256.
    """
    return trades.getfield(_DETAILS, _OFFSET)


def has_details(trades: Records) -> bool:
    """Return whether any of ``trades``, at least one, has a kind, conditions or unused bytes set."""
    return bool(details_of(trades).max() > 0xFF)


def valid_conditions(trades: Records) -> NDArray[np.bytes_]:
    """Return the conditions of TRADE records, shape ``(k,)``, with invalid ones replaced by 0."""
    return _VALID.take(trades.getfield(_LETTERS, _COND_OFFSET)).view("S4")[:, 0]


def details_fault(trades: Records) -> str | None:
    """Return why the kind or conditions of any of ``trades``, at least one, are invalid, else None."""
    if not has_details(trades):
        return None
    if trades["kind"].max() > KIND_CORRECTION:
        return "a kind that is not 0, 1 or 2"
    if (valid_conditions(trades) != trades["cond"]).any():
        return f"conditions that are not {CONDITION_WORDS}"
    return None
