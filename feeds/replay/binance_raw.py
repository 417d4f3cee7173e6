"""Raw Binance market streams, spot and USD-M futures: ``<local_ns> <frame>``, one frame a line.

A frame is a combined stream's wrapper ``{"stream":…,"data":…}``, a bare event, or an array of events.
bookTicker, of one symbol or of all (``!bookTicker``), becomes quotes; trade and aggTrade become trades;
everything else (depth updates, REST snapshots, acknowledgements) is counted by kind and skipped.
A futures trade whose ``X`` is not MARKET did not come from the order book (ADL, INSURANCE_FUND, NA and the
like): aggTrade and Binance's klines exclude these, and so does this module, counting them as ``other_trade``.
A trade of size 0 is counted as ``empty_trade``. Spot bookTicker carries no venue time: its ``ts_event`` is
0.

Source: Binance API documentation, "Web Socket Streams" (spot) and "USDⓈ-M Futures, Websocket Market
Streams": ``T`` is ms since the epoch, or µs on spot connections with ``timeUnit=MICROSECOND``; ``m`` is true
when the buyer was the maker, so the aggressor sold.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Final

import numpy as np
import orjson

from marketfeed.core.fixed import price_from_text
from marketfeed.core.records import BUY, QUOTE, QUOTES, SELL, TRADE, TRADES, Batch
from marketfeed.core.units import MS, US
from marketfeed.feeds.replay.fields import number_from_text
from marketfeed.feeds.replay.recording import Decoded, Symbol

_FIRST_US: Final = 10**14  # as ms this is the year 5138, as µs 1973
_Q: Final = ["ts_event", "bid_px", "ask_px", "bid_sz", "ask_sz", "symbol"]
_T: Final = ["ts_event", "price", "trade_id", "size", "side", "symbol"]
_NO_PRICE: Final = (0, True)  # value, exact
_KIND: Final = re.compile(r"[0-9A-Za-z_]{1,32}")
_BOOK: Final = frozenset("sbBaA")  # keys of a bare spot bookTicker, which has no event type


# Channel, symbol name, values in the order of _Q or _T without the symbol, whether prices are exact.
_Tick = tuple[int, str, tuple[Any, ...], bool]


class BinanceRaw:
    """Stateless decoder of lines."""

    def matches(self, first_lines: list[bytes]) -> bool:
        """Return whether any line is a timestamp followed by a JSON object or array."""
        return any(_parts(line) is not None for line in first_lines)

    def decode(self, lines: list[bytes], symbol: Symbol) -> Decoded:
        """Return the ticks in ``lines``; see :class:`Decoded`."""
        rows: tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]] = ([], [])
        channels: list[int] = []
        times: list[int] = []
        broken: list[tuple[int, str]] = []
        events: Counter[str] = Counter()
        passed: Counter[str] = Counter()
        for at, line in enumerate(lines):
            parts = _parts(line)
            if parts is None:
                broken.append((at, "not a timestamp and a JSON object"))
                continue
            local_ns, frame = parts
            why = ""
            for kind, data in _frames(frame):
                try:
                    tick = _tick(kind, data)
                    if isinstance(tick, str):
                        events[tick] += 1
                        passed[_named(kind, data)] += 1
                        continue
                except (KeyError, TypeError, ValueError, OverflowError) as error:
                    why = why or f"{type(error).__name__}: {error}"
                    continue
                channel, name, values, exact = tick
                number = symbol(name)
                if number is None:
                    continue
                if not exact:
                    events["rounded_price"] += 1
                rows[channel].append((*values, number))
                channels.append(channel)
                times.append(local_ns)
            if why:
                broken.append((at, why))
        quotes, trades = np.zeros(len(rows[QUOTES]), QUOTE), np.zeros(len(rows[TRADES]), TRADE)
        for records, names, table in ((quotes, _Q, rows[QUOTES]), (trades, _T, rows[TRADES])):
            for field, column in zip(names, zip(*table, strict=True), strict=False):
                records[field] = column
        batch = Batch(quotes, trades, np.array(channels, np.uint8))
        return Decoded(batch, np.array(times, np.int64), broken, dict(events), dict(passed))


def _parts(line: bytes) -> tuple[int, Any] | None:
    """Return the local time and the frame of a line, None if it is broken."""
    stamp, _, text = line.partition(b" ")
    if not stamp.isdigit() or len(stamp) > 19 or int(stamp) >= 2**63:
        return None
    try:
        frame = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return (int(stamp), frame) if isinstance(frame, dict | list) else None


def _frames(frame: Any) -> list[tuple[Any, Any]]:
    """Return the kind and the data of each event of a line."""
    stream = ""
    if isinstance(frame, dict) and isinstance(frame.get("stream"), str):
        stream, frame = frame["stream"], frame.get("data")
        if not isinstance(frame, dict | list):
            return [("", None)]
    if isinstance(frame, dict):
        return [(_kind(stream, frame), frame)]
    return [(_kind(stream, data) if isinstance(data, dict) else "", data) for data in frame]


def _kind(stream: str, data: dict[str, Any]) -> Any:
    """Return the event type, else the kind by stream name or keys, "" if unknown."""
    if "e" in data:
        return data["e"]
    if stream:
        return stream.rpartition("@")[2].removeprefix("!")
    return "bookTicker" if data.keys() >= _BOOK else ""


def _named(kind: object, data: object) -> str:
    """Return the name of a skipped event for messages."""
    if isinstance(kind, str) and _KIND.fullmatch(kind):
        return kind
    if isinstance(data, dict) and "lastUpdateId" in data:
        return "depth snapshot"
    return "answer to a request" if isinstance(data, dict) and "id" in data else "unknown"


def _tick(kind: object, data: Any) -> _Tick | str:
    """Return the tick in an event, or the counter of an event that is no tick."""
    if data is None:
        return "other_frame"
    if not isinstance(data, dict):
        raise TypeError(f"not an event: {str(data)[:40]!r}")
    if kind == "bookTicker":
        bid_size, ask_size = _size(data["B"]), _size(data["A"])
        bid, bid_exact = _price(data["b"]) if bid_size else _NO_PRICE
        ask, ask_exact = _price(data["a"]) if ask_size else _NO_PRICE
        sides = (bid, ask, bid_size, ask_size)
        time_ns = _time_ns(data.get("T", 0))
        return QUOTES, _text(data["s"]), (time_ns, *sides), bid_exact and ask_exact
    if kind not in ("trade", "aggTrade"):
        return "other_frame"
    if data.get("X", "MARKET") != "MARKET":
        return "other_trade"
    size = _size(data["q"])
    if not size:
        return "empty_trade"
    price, exact = _price(data["p"])
    trade_id = int(data["t"] if kind == "trade" else data["a"])
    if not 0 <= trade_id < 2**64:
        raise ValueError(f"not a trade id: {trade_id}")
    if not isinstance(data["m"], bool):
        raise TypeError(f"m is neither true nor false: {str(data['m'])[:40]!r}")
    side = SELL if data["m"] else BUY
    return TRADES, _text(data["s"]), (_time_ns(data["T"]), price, trade_id, size, side), exact


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a text: {value!r}")
    return value


def _price(value: object) -> tuple[int, bool]:
    text = _text(value)
    price, exact = price_from_text(text)
    if not price and not exact:
        raise ValueError(f"a price finer than 1e-9: {text[:40]!r}")
    return price, exact


def _time_ns(value: Any) -> int:
    time = int(value)
    time_ns = time * (MS if time < _FIRST_US else US)
    if not 0 <= time_ns < 2**63:
        raise ValueError(f"not a time: {value!r}")
    return time_ns


def _size(value: object) -> float:
    size = number_from_text(_text(value))
    if size is None or not 0 <= size < float("inf"):
        raise ValueError(f"not a size: {str(value)[:40]!r}")
    return size + 0.0  # turns -0.0 into 0.0
