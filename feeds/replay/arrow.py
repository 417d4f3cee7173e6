"""Conversion of Arrow arrays of any type to numpy columns of prices, sizes, times, texts and ids.

No cell value raises: masks mark broken rows. :meth:`Cells.refusal` rejects unsuitable column types before
any cell is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from marketfeed.core.fixed import MAX_PX
from marketfeed.core.units import DAY_NS
from marketfeed.errors import ConfigError
from marketfeed.feeds.replay.fields import PAD, Fields, Texts, id_from_text, number_from_text
from marketfeed.feeds.replay.fixedpoint import (
    Prices,
    doubles_from_words,
    from_doubles,
    from_words,
    widened,
    words_of,
)
from marketfeed.feeds.replay.recording import shown
from marketfeed.feeds.replay.times import DECIMALS, FIRST_NS, local_to_utc_ns, of_day

if TYPE_CHECKING:
    from marketfeed.feeds.replay.moments import Moments

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_FIXED_BYTES: Final = 16  # 128-bit integers, the fixed-point prices of some engines
_UNITS_NS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_MAY_BE: Final = {
    "time": "a timestamp, a date or an integer; with time_format, columns.date or iso a text",
    "date": "a date, an integer or a text",
    "price": "a float, a decimal, an integer, or with price_scale 16 bytes of fixed point",
    "size": "a float, a decimal, an integer or a text",
    "text": "a text, a number, a boolean or a time",
    "id": "an integer or a text",
    "condition": "a text",
}
_KINDS: Final = {
    "time": "time", "date": "date", "millisecond": "size", "bid": "price", "ask": "price", "price": "price",
    "bid_size": "size", "ask_size": "size", "size": "size", "trade_id": "id",
    "condition": "condition",
}  # fmt: skip
_SHOWN: Final = 60


class Cells:
    """Reader of the columns of one table; ``keys`` is a TableKeys."""

    def __init__(self, pa: Any, keys: Any, zone: Any, moments: Moments) -> None:
        self._pa, self._keys, self._zone, self._moments = pa, keys, zone, moments

    def refusal(self, role: str, kind: Any) -> str:
        """Return "" if a column of type ``kind`` can be read for ``role``, else the types that can.

        ``role`` is a key of ``columns``, or ``where``.
        """
        what = _KINDS.get(role, "text")
        if what == "price" and self._is_wide(kind) and self._keys.price_scale == 1:
            return "16 bytes of fixed point need price_scale, such as 10000000000000000"
        if not self._allowed(what, kind):
            return f"it may be {_MAY_BE[what]}"
        try:
            self._read(what, self.plain(self._pa.nulls(1, kind)))
        except (self._pa.ArrowException, ValueError, TypeError) as error:
            return f"it may be {_MAY_BE[what]} ({str(error).partition(chr(10))[0][:80]})"
        return ""

    def plain(self, column: Any) -> Any:
        """Decode dictionary and extension types of ``column``."""
        kind = column.type
        if isinstance(kind, self._pa.BaseExtensionType):
            column = column.storage
        if self._pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        return column

    def _allowed(self, what: str, kind: Any) -> bool:
        types = self._pa.types
        if isinstance(kind, self._pa.BaseExtensionType):
            kind = kind.storage_type
        if types.is_dictionary(kind):
            kind = kind.value_type
        text = self._is_text(kind)
        number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
        match what:
            case "time" if self._moments.textual:
                return bool(types.is_integer(kind) or text)
            case "time":
                moment = types.is_timestamp(kind) or types.is_date(kind) or types.is_integer(kind)
                return bool(moment or (text and self._keys.time == "iso"))
            case "date":
                return bool(types.is_integer(kind) or types.is_date32(kind) or text)
            case "price":
                return bool(number or types.is_null(kind) or self._is_wide(kind))
            case "size":
                return bool(number or types.is_null(kind) or text)
            case "id":
                return bool(types.is_integer(kind) or types.is_decimal(kind) or types.is_null(kind) or text)
            case "condition":
                return bool(text or types.is_null(kind))
            case _:
                return bool(number or text or types.is_primitive(kind) or types.is_null(kind))

    def _is_text(self, kind: Any) -> bool:
        types = self._pa.types
        return bool(
            types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
            or types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
            or types.is_fixed_size_binary(kind)
        )  # fmt: skip

    def _is_wide(self, kind: Any) -> bool:
        return bool(self._pa.types.is_fixed_size_binary(kind) and kind.byte_width == _FIXED_BYTES)

    def _read(self, what: str, column: Any) -> object:
        match what:
            case "time":
                return self.times(column, 0)
            case "date":
                return self.fields(column)
            case "price":
                return self.prices(column)
            case "size":
                return self.sizes(column)
            case "id":
                return self.ids(column)
            case _:
                return self.texts(column)

    def fields(self, column: Any) -> Fields:
        """Return the cells as text, empty for nulls."""
        column = column.cast(self._pa.string()).fill_null("")
        _, offsets, data = column.buffers()
        at = np.frombuffer(offsets, "<i4")[column.offset : column.offset + len(column) + 1].astype(np.int64)
        text = b"" if data is None else data.to_pybytes()
        return Fields(np.frombuffer(text + PAD, np.uint8), at[:-1], at[1:])

    def times(
        self, column: Any, day_ns: int | None, dates: Any = None, milliseconds: Any = None
    ) -> tuple[Ints, Mask]:
        """Return times in nanoseconds since the epoch, and which are missing or out of range.

        Integers count in the unit ``time`` from the epoch, or from midnight of the day ``day_ns``.
        Timestamps and dates without a time zone are local times in ``zone``.
        """
        if self._moments.textual or self._is_text(column.type):
            day = None if dates is None else self.fields(dates)
            beyond_s = None if milliseconds is None else self.fields(milliseconds)
            times, wrong = self._moments.read(self.fields(column), day, beyond_s, day_ns)
            return times, wrong != 0
        types, kind = self._pa.types, column.type
        local = False
        if types.is_integer(kind):
            unit = 10 ** DECIMALS.get(self._keys.time, 0)
        elif types.is_timestamp(kind):
            unit, local = _UNITS_NS[kind.unit], kind.tz is None
        else:
            unit, local = DAY_NS if types.is_date32(kind) else _UNITS_NS["ms"], True
        values, broken = self._int64s(column)
        most = (MAX_PX - DAY_NS if local else MAX_PX) // unit  # UTC offsets are below a day
        broken |= (values > most) | (values < -most)
        times = np.where(broken, 0, values) * unit
        if types.is_integer(kind) and day_ns is not None:
            times, beyond = of_day(times, day_ns, self._zone)
            broken |= beyond
        elif local:
            times = local_to_utc_ns(times, self._zone)
        return times, broken | (times < FIRST_NS)

    def _int64s(self, column: Any) -> tuple[Ints, Mask]:
        """Return integers, and which are null or beyond int64."""
        broken = nulls(column)
        if self._pa.types.is_uint64(column.type):
            unsigned = column.fill_null(0).to_numpy(zero_copy_only=False)
            broken |= unsigned > MAX_PX
            return unsigned.astype(np.int64), broken
        if self._pa.types.is_date32(column.type):
            column = column.cast(self._pa.int32())
        return column.cast(self._pa.int64()).fill_null(0).to_numpy(zero_copy_only=False), broken

    def prices(self, column: Any) -> Prices:
        """Return prices: decimals and integers exactly, floats as their shortest decimals."""
        types, kind, scale = self._pa.types, column.type, self._keys.price_scale
        empty = nulls(column)
        if types.is_null(kind):
            return Prices(empty, np.zeros(len(column), np.int64), ~empty, 0)
        if types.is_floating(kind):
            return from_doubles(widened(column.to_numpy(zero_copy_only=False)), empty, scale)
        if types.is_uint64(kind):
            low = column.fill_null(0).to_numpy(zero_copy_only=False).view(np.int64)
            return from_words(np.stack([low, np.zeros_like(low)], axis=1), empty, scale)
        if types.is_integer(kind):
            return from_words(self._int64s(column)[0][:, None], empty, scale)
        scale *= 10**kind.scale if types.is_decimal(kind) else 1
        return from_words(
            words_of(column.buffers()[1], column.offset, len(column), kind.byte_width), empty, scale
        )

    def sizes(self, column: Any) -> tuple[NDArray[np.float64], Mask]:
        """Return sizes, 0 for empty cells, and which are negative, infinite or not numbers."""
        types, kind = self._pa.types, column.type
        if self._is_text(kind):
            texts = self.texts(column)
            found = [number_from_text(name) for name in texts.names]
            floats = np.array([0.0 if f is None else f for f in found])[texts.codes]
            broken = np.array([f is None for f in found])[texts.codes]
        else:
            missing = nulls(column)
            if types.is_floating(kind):
                floats = widened(column.to_numpy(zero_copy_only=False))
                missing |= np.isnan(floats)
            elif types.is_decimal(kind):
                words = words_of(column.buffers()[1], column.offset, len(column), kind.byte_width)
                floats = doubles_from_words(words, missing, kind.scale)
            else:
                column = column.cast(self._pa.float64(), safe=False)
                floats = column.to_numpy(zero_copy_only=False).astype(np.float64)
            floats = np.where(missing, 0.0, floats)
            broken = np.zeros(len(floats), bool)
        broken |= ~((floats >= 0) & (floats < np.inf))
        return np.where(broken, 0.0, floats), broken

    def ids(self, column: Any) -> NDArray[np.uint64]:
        """Return trade ids, 0 for none."""
        if self._pa.types.is_uint64(column.type):
            return np.asarray(column.fill_null(0).to_numpy(zero_copy_only=False), np.uint64)
        if self._pa.types.is_integer(column.type):
            values, _ = self._int64s(column)
            return np.where(values < 0, 0, values).astype(np.uint64)
        texts = self.texts(column)
        return np.array([id_from_text(name) for name in texts.names], np.uint64)[texts.codes]

    def texts(self, column: Any) -> Texts:
        """Return the cells as stripped texts, empty for nulls."""
        is_text = self._is_text(column.type)
        column = column.cast(self._pa.binary() if is_text else self._pa.string())
        column = column.fill_null(b"" if is_text else "").dictionary_encode()
        codes = column.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        names, broken = [], []
        for value in column.dictionary.to_pylist() or [b""]:
            text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            names.append(text.strip(" \t\r\n\0"))
            broken.append("\ufffd" in text)
        return Texts(codes, names, np.array(broken, bool)[codes])

    def shown(self, column: Any, row: int) -> str:
        """Return one cell for a message, escaped."""
        one = column.slice(row, 1)
        if self._is_text(one.type):
            value = one.cast(self._pa.binary()).to_pylist()[0]
            return "null" if value is None else f"'{shown(value, _SHOWN)}'"
        try:
            return shown(str(one.to_pylist()[0]).encode("utf-8", "replace"), _SHOWN)
        except (ValueError, OverflowError) as error:  # a timestamp beyond the year 9999
            return shown(f"({error})", _SHOWN)


def refuse_column(cells: Cells, role: str, column: str, kind: Any, path: Any) -> None:
    """Raise ConfigError if a column of type ``kind`` cannot be read for ``role``."""
    why = cells.refusal(role, kind)
    if why:
        key = f"columns.{role}" if role != "where" else "where"
        raise ConfigError(f"{key}: {column} is {kind_shown(kind)} in {path}; {why}")


def kind_shown(kind: Any) -> str:
    """Return the name of a type, shortened: names of nested types have no bound."""
    return shown(str(kind), _SHOWN)


def nulls(column: Any) -> Mask:
    """Return the mask of nulls."""
    return np.array(column.is_null().to_numpy(zero_copy_only=False), bool)
