"""Raw Binance market streams, spot and USD-M futures: ``<local_ns> <frame>``, one frame a line.

Frames are combined-stream wrappers ``{"stream":…,"data":…}``. bookTicker
becomes quotes; trade and aggTrade become trades; everything else (depth
updates, REST snapshots without a wrapper, acknowledgements) is counted and
passed over. Spot bookTicker carries no venue time: its ``ts_event`` is 0.

Source: Binance API documentation, "Web Socket Streams" (spot) and "USDⓈ-M
Futures, Websocket Market Streams": ``T`` is ms since the epoch, ``m`` true
when the buyer was the maker, so the aggressor sold.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import orjson

from feeds.replay.recording import Decoded, Symbol
from marketfeed.core.fixed import price_from_text
from marketfeed.core.records import BUY, QUOTE, QUOTES, SELL, TRADE, TRADES, Batch

_MS: Final = 1_000_000  # ns
_Q: Final = ["ts_event", "bid_px", "ask_px", "bid_sz", "ask_sz", "symbol"]
_T: Final = ["ts_event", "price", "trade_id", "size", "side", "symbol"]


class BinanceRaw:
    """Decodes lines; keeps nothing between chunks."""

    def looks_right(self, first_lines: list[bytes]) -> bool:
        """Tell whether one of the lines is a timestamp and a JSON object."""
        return any(_parts(line) is not None for line in first_lines)

    def decode(self, lines: list[bytes], symbol: Symbol) -> Decoded:
        """Return the ticks in ``lines``; see :class:`Decoded`."""
        rows: tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]] = ([], [])
        channels: list[int] = []
        times: list[int] = []
        broken: list[tuple[int, str]] = []
        events: dict[str, int] = {}
        for at, line in enumerate(lines):
            parts = _parts(line)
            if parts is None:
                broken.append((at, "not a timestamp and a JSON object"))
                continue
            local_ns, frame = parts
            try:
                tick = _tick(frame)
                if tick is None:
                    events["other_frame"] = events.get("other_frame", 0) + 1
                    continue
                channel, name, values, exact = tick
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                broken.append((at, f"{type(error).__name__}: {error}"))
                continue
            number = symbol(name)
            if number is None:
                continue
            if not exact:
                events["rounded_price"] = events.get("rounded_price", 0) + 1
            rows[channel].append((*values, number))
            channels.append(channel)
            times.append(local_ns)
        quotes, trades = np.zeros(len(rows[QUOTES]), QUOTE), np.zeros(len(rows[TRADES]), TRADE)
        for records, names, table in ((quotes, _Q, rows[QUOTES]), (trades, _T, rows[TRADES])):
            for field, column in zip(names, zip(*table, strict=True), strict=False):
                records[field] = column
        batch = Batch(quotes, trades, np.array(channels, np.uint8))
        return Decoded(batch, np.array(times, np.int64), broken, events)


def _parts(line: bytes) -> tuple[int, dict[str, Any]] | None:
    """Return the local time and the frame of a line, None if it is broken."""
    stamp, _, text = line.partition(b" ")
    if not stamp.isdigit() or len(stamp) > 19 or int(stamp) >= 2**63:
        return None
    try:
        frame = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return (int(stamp), frame) if isinstance(frame, dict) else None


def _tick(frame: dict[str, Any]) -> tuple[int, str, tuple[Any, ...], bool] | None:
    """Return channel, symbol, column values but the symbol, and whether prices are exact; None if no tick."""
    stream, data = frame.get("stream"), frame.get("data")
    if not isinstance(stream, str) or not isinstance(data, dict):
        return None
    kind = stream.rpartition("@")[2]
    if kind == "bookTicker":
        bid, bid_exact = price_from_text(_text(data["b"]))
        ask, ask_exact = price_from_text(_text(data["a"]))
        bid_size, ask_size = _size(data["B"]), _size(data["A"])
        sides = (bid if bid_size else 0, ask if ask_size else 0, bid_size, ask_size)
        values = (_time_ns(data.get("T", 0)), *sides)
        return QUOTES, _text(data["s"]), values, bid_exact and ask_exact
    if kind in ("trade", "aggTrade"):
        price, exact = price_from_text(_text(data["p"]))
        trade_id = int(data["t"] if kind == "trade" else data["a"])
        if not 0 <= trade_id < 2**64:
            raise ValueError(f"not a trade id: {trade_id}")
        side = SELL if data["m"] else BUY
        values = (_time_ns(data["T"]), price, trade_id, _size(data["q"]), side)
        return TRADES, _text(data["s"]), values, exact
    return None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a text: {value!r}")
    return value


def _time_ns(ms: Any) -> int:
    time_ns = int(ms) * _MS
    if not 0 <= time_ns < 2**63:
        raise ValueError(f"not a time: {ms!r}")
    return time_ns


def _size(text: str) -> float:
    size = float(text)
    if not 0 <= size < float("inf"):
        raise ValueError(f"not a size: {text!r}")
    return size
