"""Ticks for perf/compress.py: recordings of venues, and the synthetic feed."""

from __future__ import annotations

import functools
import gzip
import json
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from marketfeed.core.records import QUOTE, QUOTES, TRADE, TRADES
from marketfeed.core.units import MS, US, S
from marketfeed.feeds.synthetic import SyntheticConfig, SyntheticFeed
from marketfeed.ingest.registry import feed_specs
from marketfeed.recordings.ticks import ReplayedTicks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from marketfeed.core.records import Records

NEW_YORK: Final = {"zone": "America/New_York", "time": "ms", "price_scale": 10_000}
RECORDED: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "Binance, 2 symbols": (
        {"path": "binance_raw_ws/usdm_btcusdt_20240808.gz"},
        {"path": "binance_raw_ws/spot_ethusdt_20240808.gz"},
    ),
    "IBM by exchange": (
        {
            "path": "us_equity_ticks/ibm_20131007_quote.zip",
            "format": "csv",
            "columns": {"time": 0, "bid": 1, "bid_size": 2, "ask": 3, "ask_size": 4, "exchange": 5},
            "symbol": "IBM.{exchange}",
            "merge": "exchange",
            **NEW_YORK,
            "day": "2013-10-07",
        },
    ),
    "GOOG options, minutes": (
        {
            "path": "options_minute/goog_20151224_quote_american.zip",
            "format": "csv",
            "member": r"(?P<day>\d{8})_(?P<root>\w+?)_minute_quote_american_"
            r"(?P<kind>put|call)_(?P<strike>\d+)_(?P<expiry>\d+)",
            "symbol": "{root}_{expiry}{kind:.1}{strike}",
            "columns": {"time": 0, "bid": 4, "bid_size": 5, "ask": 9, "ask_size": 10},
            **NEW_YORK,
        },
    ),
}
SYNTHETIC: Final = {"synthetic, 1,000/s": 1_000.0, "synthetic, 100,000/s": 100_000.0}  # of 2,000 symbols


class Ticks(NamedTuple):
    """The ticks of one source, in order of arrival."""

    names: list[str]
    quotes: Records
    trades: Records
    quotes_ns: np.ndarray[Any, Any]  # times of arrival
    trades_ns: np.ndarray[Any, Any]


def recorded(tables: Sequence[dict[str, Any]], folder: Path) -> Ticks:
    """Return the ticks of recordings, the clocks of which start together."""
    names: list[str] = []
    parts: tuple[list[Records], list[Records]] = ([], [])
    for table in tables:
        (spec,) = feed_specs([{"type": "replay", "name": "recording", **table}])
        ticks = ReplayedTicks(spec, folder, 8192)
        base, first_ns = len(names), 0
        for step in ticks.steps():
            for channel, records in enumerate(step):
                if len(records):
                    first_ns = first_ns or int(records["ts_recv"][0])
                    records["symbol"] += base
                    records["ts_recv"] -= first_ns
                    parts[channel].append(records.copy())
        names += ticks.names()
        start_ns = first_ns
    quotes, trades = (
        np.concatenate(own) if own else np.zeros(0, dtype)
        for own, dtype in zip(parts, (QUOTE, TRADE), strict=True)
    )
    for records in (quotes, trades):
        records.sort(order="ts_recv", kind="stable")
        records["ts_recv"] += start_ns
    return Ticks(names, quotes, trades, quotes["ts_recv"].copy(), trades["ts_recv"].copy())


class _Intake:
    def symbol(self, name: str) -> int:
        return int(name[2:])

    def count(self, event: str, number: int = 1) -> None:
        """Ignore it."""


def synthetic(rate: float, seconds: float = 20.0) -> Ticks:
    """Return the ticks of the synthetic feed in ``seconds`` at ``rate``, at most a million."""
    config = SyntheticConfig(symbols=2000, rate=rate)
    feed = SyntheticFeed(config, _Intake())  # type: ignore[arg-type]
    count = min(int(seconds * rate * (1 + config.trades)), 1_000_000)
    batches, total = [], 0
    for batch in feed.blocks():
        batches.append(batch)
        total += len(batch)
        if total >= count:
            break
    quotes = np.concatenate([batch.quotes for batch in batches])
    trades = np.concatenate([batch.trades for batch in batches])
    channels = np.concatenate([batch.channels for batch in batches if batch.channels is not None])
    at_ns = 1_732_731_900 * S + (np.arange(total) * (S / rate / (1 + config.trades))).astype(np.int64)
    quotes_ns, trades_ns = at_ns[channels == QUOTES], at_ns[channels == TRADES]
    for records, own in ((quotes, quotes_ns), (trades, trades_ns)):
        records["ts_event"] = own // MS * MS + 137 * US  # of a batch a millisecond
    names = [f"SY{number:04d}" for number in range(2000)]
    return Ticks(names, quotes, trades, quotes_ns, trades_ns)


def iex(folder: Path, into: Path) -> Ticks:
    """Return the quotes and trades of the IEX capture. Source: IEX-TP 1.25 and TOPS 1.6."""
    data = gzip.decompress((folder / "iex_pcap/TOPS16.pcapng.gz").read_bytes())
    rows: dict[bytes, list[str]] = {b"Q": [], b"T": []}
    at = 24  # after the header of the pcap file
    while at < len(data):
        sec, usec, size, _ = struct.unpack_from("<IIII", data, at)
        payload = data[at + 16 + 42 : at + 16 + size]
        at += 16 + size
        number, start = struct.unpack_from("<H", payload, 14)[0], 40
        for _ in range(number):
            (length,) = struct.unpack_from("<H", payload, start)
            message = payload[start + 2 : start + 2 + length]
            start += 2 + length
            if message[:1] not in rows:
                continue
            stamp, name = struct.unpack_from("<q8s", message, 2)
            values = struct.unpack_from("<IqqI" if message[:1] == b"Q" else "<Iqq", message, 18)
            row = (stamp, name.decode().strip(), sec * 10**6 + usec, *values)
            rows[message[:1]].append(",".join(map(str, row)))
    columns = {
        b"Q": {"bid_size": 3, "bid": 4, "ask": 5, "ask_size": 6},
        b"T": {"size": 3, "price": 4},
    }
    tables = []
    for kind, lines in rows.items():
        path = into / f"iex_{kind.decode()}.csv"
        path.write_text("\n".join(lines) + "\n")
        tables.append(
            {"path": str(path), "format": "csv", "time": "ns", "price_scale": 10_000,
             "columns": {"time": 0, "symbol": 1, **columns[kind]}}
        )  # fmt: skip
    found = [recorded([table], folder) for table in tables]
    ids = {name: number for number, name in enumerate(found[0].names)}
    mine = [ids.setdefault(name, len(ids)) for name in found[1].names]
    found[1].trades["symbol"] = np.array(mine)[found[1].trades["symbol"]]
    return Ticks(list(ids), found[0].quotes, found[1].trades, found[0].quotes_ns, found[1].trades_ns)


def coinbase(folder: Path, into: Path) -> Ticks:
    """Return the best prices and trades of the recorded Coinbase session of ten symbols."""
    lines: list[str] = []
    with gzip.open(folder / "cryptofeed_raw_ws/COINBASE.ws.28.0.gz", "rt") as file:
        for line in file:
            stamp, _, frame = line.partition(": ")
            if not frame.startswith('{"type":"ticker"'):
                continue
            tick = json.loads(frame)
            lines.append(
                f"{int(float(stamp) * 1e6)},{tick['product_id']},{tick['best_bid']},{tick['best_ask']}"
            )
    path = into / "coinbase.csv"
    path.write_text("\n".join(lines) + "\n")
    columns = {"time": 0, "symbol": 1, "bid": 2, "ask": 3}
    return recorded([{"path": str(path), "format": "csv", "time": "us", "columns": columns}], folder)


def sources(folder: Path, into: Path) -> dict[str, Callable[[], Ticks]]:
    """Return what reads each source: recordings in ``folder``; ``into`` takes temporary files."""
    return {
        **{name: functools.partial(recorded, tables, folder) for name, tables in RECORDED.items()},
        "Coinbase, 10 symbols": functools.partial(coinbase, folder, into),
        "IEX TOPS": functools.partial(iex, folder, into),
        **{name: functools.partial(synthetic, rate) for name, rate in SYNTHETIC.items()},
    }
