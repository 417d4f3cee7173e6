"""Fixed point: prices are int64 in units of 1e-9.

Exact both ways for what venues send: decimal text of up to nine decimals
becomes the integer it says, and an integer below 2**53 becomes the double
whose shortest text is the same decimal (15 significant digits survive).
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Final

import numpy as np
from numpy.typing import NDArray

SCALE: Final = 1_000_000_000
DECIMALS: Final = 9
MAX_PX: Final = 2**63 - 1


def price_from_text(text: str) -> tuple[int, bool]:
    """Return the price written in ``text`` in units of 1e-9, and whether it is exact.

    Finer than 1e-9 is rounded half to even, and then the second value is
    False. Takes what JSON numbers and venues' decimal strings look like, an
    exponent included. Raises ValueError for text that is no finite decimal
    number or does not fit int64.
    """
    whole, _, fraction = text.partition(".")
    # The common form by hand: several times faster than Decimal.
    if whole.isdecimal() and whole.isascii() and len(whole) <= 9 and len(fraction) <= DECIMALS:
        if not fraction:
            if "." not in text:
                return int(whole) * SCALE, True
        elif fraction.isdecimal() and fraction.isascii():
            return int(whole + fraction) * 10 ** (DECIMALS - len(fraction)), True
    return _price_from_decimal(text)


def _price_from_decimal(text: str) -> tuple[int, bool]:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"not a decimal number: {text[:40]!r}") from None
    if not value.is_finite() or value.adjusted() > 10:
        raise ValueError(f"not a price within ±9.22e9: {text[:40]!r}")
    if value.adjusted() < -40:
        return 0, value.is_zero()
    scaled = value.scaleb(DECIMALS)
    price = int(scaled.to_integral_value(rounding=ROUND_HALF_EVEN))
    if abs(price) > MAX_PX:
        raise ValueError(f"not a price within ±9.22e9: {text[:40]!r}")
    return price, scaled == price


def prices_from_floats(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return prices, shape as ``values``, in units of 1e-9, each rounded to the nearest."""
    scaled: NDArray[np.int64] = np.rint(values * SCALE).astype(np.int64)
    return scaled


def floats_from_prices(prices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ``prices`` (1e-9) as doubles, each the nearest to the decimal it stands for.

    Exact to 15 significant digits while ``abs(price) < 2**53``: the integer
    is then a double itself, and one division rounds once.
    """
    floats: NDArray[np.float64] = prices / float(SCALE)
    return floats
