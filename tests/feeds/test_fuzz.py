"""Files of every format with random damage: refused in one line, or replayed without the broken rows.

Allowed outcomes are those of :func:`replay.outcome`: a ConfigError or SourceError with one printable line
and no other cause, and ticks that are published once each.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tests.support import dbn, frames
from tests.support.replay import outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

START = 1_700_000_000_000_000_000
ROWS = 300
ROUNDS = 120


def csv_file():
    lines = (f'{START + n},1.{n:05},{n % 7}.5,"{"buy" if n % 2 else "sell"}",SY{n % 5}' for n in range(ROWS))
    return ("time,price,size,side,symbol\n" + "\n".join(lines) + "\n").encode()


def lines_file():
    quote = '{} {{"stream":"a@bookTicker","data":{{"s":"A","b":"1.{}","B":"1","a":"2","A":"1"}}}}'
    trade = '{} {{"stream":"a@trade","data":{{"s":"A","p":"1.{}","q":"2","t":{},"T":17,"m":true}}}}'
    return "\n".join((trade if n % 3 else quote).format(START + n, n, n) for n in range(ROWS)).encode()


def parquet_file():
    table = {
        "time": pa.array(range(START, START + ROWS), pa.timestamp("ns", "UTC")),
        "price": pa.array(np.arange(ROWS) / 4 + 1),
        "size": pa.array([str(n % 7 + 1) for n in range(ROWS)]),
        "side": pa.array(["buy", "sell", None] * (ROWS // 3)).dictionary_encode(),
        "symbol": pa.array([f"SY{n % 5}" for n in range(ROWS)]),
    }
    out = io.BytesIO()
    pq.write_table(pa.table(table), out, row_group_size=100)
    return out.getvalue()


def dbn_file(folder):
    records = [
        record
        for n in range(ROWS // 3)
        for record in (
            dbn.mbp1(bid=(n + 1, 1), ask=(n + 5, 2), at_ns=n),
            dbn.trade(n + 2, at_ns=n),
            dbn.mbp1(n + 3, 4, "T", (n + 1, 1), (n + 4, 2), at_ns=n),
        )
    ]
    return (folder / dbn.write(folder, *records)).read_bytes()


def zipped(data, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        half = data.index(b"\n", len(data) // 2) + 1
        archive.writestr("a.csv", data[:half])
        archive.writestr(
            "b.csv", (data[: data.index(b"\n") + 1] if b"time,price" in data else b"") + data[half:]
        )
    return out.getvalue()


COLUMNS = {name: name for name in ("time", "price", "size", "side", "symbol")}
CSV = {"format": "csv", "header": True, "columns": COLUMNS}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    "zip": zipped,
    "stored.zip": lambda data: zipped(data, zipfile.ZIP_STORED),
    "bz2.zip": lambda data: zipped(data, zipfile.ZIP_BZIP2),
}
CASES: dict[str, tuple[str, dict[str, Any], Callable[[Path], bytes]]] = {
    "csv": ("day.csv", CSV, lambda folder: csv_file()),
    "binance-raw": ("day.txt", {"format": "binance-raw"}, lambda folder: lines_file()),
    "parquet": ("day.parquet", {"format": "parquet", "columns": COLUMNS}, lambda folder: parquet_file()),
    "dbn": ("a.dbn", {"format": "dbn"}, dbn_file),
    "marketfeed": ("day.mfr", {"format": "marketfeed"}, lambda folder: b"".join(frames.steps(30))),
}


def packed(case, end):
    """Return one of CASES, compressed."""
    name, settings, make = CASES[case]
    return f"{name}.{end}", settings, lambda folder: PACKED[end](make(folder))


CASES |= {f"{case}.{end}": packed(case, end) for case in ("csv", "binance-raw") for end in PACKED}
CASES |= {f"{case}.zst": packed(case, "zst") for case in ("dbn", "marketfeed")}


def damaged(whole, chance):
    """Return ``whole`` with flipped, missing, duplicated and foreign bytes."""
    data = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 5, 40))):
        at = chance.randrange(len(data))
        if chance.random() < 0.2:
            at = min(at, 200)  # within the headers
        match chance.randrange(7):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.randrange(256)
            case 2:
                del data[at : at + chance.choice((1, 2, 30))]
            case 3:
                data[at:at] = data[at : at + chance.choice((1, 30, 300))]
            case 4:
                data[at:at] = chance.choice(
                    (b'"', b"\r", b"\n", b"\0" * 9, b"\xff\xfe", b"1" * 400, b"-", b"e9")
                )
            case 5:
                data[at : at + 8] = chance.choice((b"\xff" * 8, bytes(8), b"\x80" + bytes(7), b"\x7f" * 8))
            case _:
                del data[chance.randrange(len(data)) :]
        if not data:
            return b""
    return bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
async def test_damaged_files_are_refused_or_lose_what_is_broken(tmp_path, case):
    name, settings, make = CASES[case]
    whole = make(tmp_path)
    (tmp_path / name).write_bytes(whole)
    intake, said = await outcome(tmp_path, path=name, **settings)
    assert not said
    ticks = len(intake.quotes) + len(intake.trades)
    assert ticks >= ROWS
    chance = random.Random(case)
    replayed = 0
    for _ in range(ROUNDS):
        (tmp_path / name).write_bytes(damaged(whole, chance))
        intake, _ = await outcome(tmp_path, path=name, **settings)
        replayed += intake is not None and len(intake.batches) > 0
        # Duplicated bytes may duplicate a few rows; a second replay would duplicate all.
        assert intake is None or len(intake.quotes) + len(intake.trades) < 1.7 * ticks
    if "." not in case and case != "parquet":
        assert replayed > ROUNDS / 4  # files without checksums are read as far as possible


@pytest.mark.parametrize(
    "name", ["day.csv", "day.csv.gz", "day.csv.zip", "day.txt", "day.parquet", "a.dbn", "day.mfr"]
)
async def test_files_of_any_bytes_are_refused(tmp_path, name):
    settings = {file: settings for file, settings, _ in CASES.values()}[name]
    chance = random.Random(name)
    begins = [b"", b"PK\3\4", b"\x1f\x8b\x08", b"DBN\1", b"PAR1", b"\1\1", b"\xff\xfe", b'"', b"time,price\n"]
    for _ in range(60):
        data = chance.choice(begins) + chance.randbytes(chance.choice((0, 1, 5, 100, 3000)))
        (tmp_path / name).write_bytes(data)
        intake, said = await outcome(tmp_path, path=name, **settings)
        assert intake is None
        assert str(tmp_path / name) in said
