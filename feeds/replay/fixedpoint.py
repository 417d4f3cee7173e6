"""Conversion of floats and wide integers to fixed point in units of 1e-9."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketfeed.core.fixed import DECIMALS, MAX_PX, SCALE
from marketfeed.feeds.replay.fields import fixed_from_text

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

# Digits of a decimal that survive a float of the type: floor(bits of the mantissa × log10 2).
_DIGITS: Final = {"float16": 3, "float32": 7}
_MAX_DECIMALS: Final = 16
_EXACT_POWERS: Final = 22  # powers of 10 that doubles represent exactly


class Prices(NamedTuple):
    """A column of prices in units of 1e-9, all of shape ``(k,)``."""

    empty: Mask
    values: Ints  # 0 where empty or broken
    broken: Mask  # out of range, or not 0 but rounds to 0
    rounded: int  # how many were rounded to a unit


def widened(floats: NDArray[Any]) -> NDArray[np.float64]:
    """Convert floats to doubles; 16-bit and 32-bit floats become the short decimals that they encode.

    A decimal of up to 7 digits survives a 32-bit float (3 digits a 16-bit float), so that 0.1 becomes
    0.1. Numbers with more digits, and all integers, keep the stored value: 61195288.05 was stored as
    61195288.0.
    """
    wide = floats.astype(np.float64)
    digits = _DIGITS.get(floats.dtype.name)
    if digits is None:
        return wide
    open_, found = np.isfinite(wide), wide.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        for decimals in range(_MAX_DECIMALS):
            whole = np.rint(wide * 10.0**decimals)
            written = whole / 10.0**decimals
            hit = open_ & (np.abs(whole) < 10**digits) & (written.astype(floats.dtype) == floats)
            found[hit] = written[hit]
            open_ &= ~hit
    return found


def from_doubles(floats: NDArray[np.float64], empty: Mask, scale: int) -> Prices:
    """Return doubles over ``scale`` in units of 1e-9, by their shortest decimals; NaN is empty."""
    empty = empty | np.isnan(floats)
    with np.errstate(over="ignore"):
        scaled = np.where(empty, 0, floats) * SCALE
    quick = np.abs(scaled) < 2**53 if scale == 1 else empty
    whole = np.rint(np.where(quick, scaled, 0))
    prices, broken, rounded = whole.astype(np.int64), quick & (whole == 0) & (scaled != 0), 0
    for row in np.flatnonzero(~quick & ~empty).tolist():
        found = fixed_from_text(str(float(floats[row])), DECIMALS, scale)
        broken[row] = found is None or found == (0, False)
        prices[row], exact = found or (0, True)
        rounded += not exact and not broken[row]
    return Prices(empty, prices, broken, rounded)


def words_of(data: Any, offset: int, count: int, width: int) -> Ints:
    """Return ``count`` integers of ``width`` bytes as 64-bit words, lowest first, shape ``(count, words)``.

    ``data`` is a buffer, or None if all integers are null; ``offset`` is the index of the first integer.
    """
    words = max(width // 8, 1)
    if data is None or not count:
        return np.zeros((count, words), np.int64)
    found = np.frombuffer(data, f"<i{min(width, 8)}").astype(np.int64, copy=False)
    return found[offset * words : (offset + count) * words].reshape(-1, words)


def from_words(words: Ints, empty: Mask, scale: int) -> Prices:
    """Return integers over ``scale`` in units of 1e-9, rounded half to even."""
    low = words[:, 0]
    broken, rounded = np.zeros(len(low), bool), 0
    quick = (words[:, 1:] == (low >> 63)[:, None]).all(axis=1)
    up, down = (SCALE // scale, 1) if SCALE % scale == 0 else (1, scale // SCALE)
    if (scale % SCALE and SCALE % scale) or down > MAX_PX:
        quick[:], down = False, 1
    else:
        quick &= (low <= MAX_PX // up) & (low >= -(MAX_PX // up)) & (low % down == 0)
    prices = np.where(quick & ~empty, low, 0) * up // down
    for row in np.flatnonzero(~quick & ~empty).tolist():
        wide = int.from_bytes(words[row].tobytes(), "little", signed=True)
        price, rest = divmod(wide * SCALE, scale)
        price += 2 * rest > scale or (2 * rest == scale and price % 2)
        broken[row] = abs(price) > MAX_PX or (price == 0 and wide != 0)
        prices[row] = 0 if broken[row] else price
        rounded += rest != 0 and not broken[row]
    return Prices(empty, prices, broken, rounded)


def doubles_from_words(words: Ints, empty: Mask, decimals: int) -> NDArray[np.float64]:
    """Return integers over ``10**decimals`` as the nearest doubles, 0 where empty.

    Arrow's own cast rounds twice.
    """
    low = words[:, 0]
    # If both operands are exact doubles, one division rounds once.
    quick = (words[:, 1:] == (low >> 63)[:, None]).all(axis=1) & (np.abs(low) < 2**53)
    quick &= decimals <= _EXACT_POWERS
    floats = np.where(quick & ~empty, low, 0) / 10.0 ** min(decimals, _EXACT_POWERS)
    for row in np.flatnonzero(~quick & ~empty).tolist():
        floats[row] = int.from_bytes(words[row].tobytes(), "little", signed=True) / 10**decimals
    return floats
