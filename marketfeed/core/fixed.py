"""Fixed point: prices are int64 in units of 1e-9.

Conversion is exact in both directions for the prices of venues: text of up to nine decimals becomes exactly
that integer, and an integer below 2**53 becomes the double whose shortest text is the same decimal (15
significant digits).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCALE: Final = 1_000_000_000
DECIMALS: Final = 9
MAX_PX: Final = 2**63 - 1
_NUMBER: Final = re.compile(
    r"(?P<sign>[+-]?)(?=\.?[0-9])(?P<whole>[0-9]{0,400})(\.(?P<fraction>[0-9]{0,400}))?([eE](?P<exponent>[+-]?[0-9]{1,6}))?"
)


def price_from_text(text: str) -> tuple[int, bool]:
    """Return the price written in ``text`` in units of 1e-9, and whether it is exact.

    Digits beyond 1e-9 are rounded half to even; then the second value is False. Accepts JSON numbers and
    venues' decimal strings, with or without an exponent. Raises ValueError for text that is no finite decimal
    number or does not fit int64.
    """
    whole, _, fraction = text.partition(".")
    # The common form without the pattern: several times faster.
    if whole.isdecimal() and text.isascii() and len(whole) <= 9 and len(fraction) <= DECIMALS:
        if fraction.isdecimal():
            return int(whole + fraction) * 10 ** (DECIMALS - len(fraction)), True
        if not fraction and "." not in text:
            return int(whole) * SCALE, True
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"not a decimal number: {text[:40]!r}")
    fraction = match["fraction"] or ""
    digits = int(match["whole"] + fraction)
    # The price is digits × 10**shift.
    shift = DECIMALS - len(fraction) + int(match["exponent"] or 0)
    if not digits or shift < -len(text):
        price, exact = 0, not digits
    elif shift > 2 * DECIMALS:
        price, exact = MAX_PX + 1, True
    elif shift >= 0:
        price, exact = digits * 10**shift, True
    else:
        price, rest = divmod(digits, 10**-shift)
        exact, twice, unit = not rest, 2 * rest, 10**-shift
        price += twice > unit or (twice == unit and price % 2)
    if price > MAX_PX:
        raise ValueError(f"not a price within ±9.22e9: {text[:40]!r}")
    return -price if match["sign"] == "-" else price, exact


def floats_from_prices(prices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ``prices`` (1e-9) as doubles, each the nearest to its decimal.

    Exact to 15 significant digits while ``abs(price) < 2**53``: such an integer is exact as a double, so the
    division is the only rounding.
    """
    floats: NDArray[np.float64] = prices / float(SCALE)
    return floats
