"""DBN recordings: vectors of every version, against the decoder of Databento's own package."""

from __future__ import annotations

import sys
from datetime import date
from types import SimpleNamespace

import databento_dbn
import pytest
import zstandard
from databento_dbn import Action, Schema, Side, SType
from replaykit import damaged, names, refusal, replayed

from feeds.replay import ReplayFeed
from feeds.replay.recording import symbol_name
from marketfeed.testing import check_feed

SCHEMAS = ("mbp-1", "tbbo", "bbo-1s", "bbo-1m", "trades", "cmbp-1", "cbbo-1s", "cbbo-1m")
UNDEF = 2**63 - 1
NOW_NS = 1_725_000_000_000_000_000  # 2024-08-30
WHOLE_DAY = ((1, date(2024, 8, 30), date(2024, 8, 31), "CLM0"),)


def vectors(folder):
    files = sorted(folder.glob("dbn_vectors/**/*.dbn*"))
    return [file for file in files if any(f"test_data.{schema}." in file.name for schema in SCHEMAS)]


def unpacked(path):
    data = path.read_bytes()
    return zstandard.ZstdDecompressor().decompressobj().decompress(data) if path.suffix == ".zst" else data


def truth(path):
    """Return the quotes and trades that the reference decoder finds."""
    decoder = databento_dbn.DBNDecoder(upgrade_policy=databento_dbn.VersionUpgradePolicy.AS_IS)
    decoder.write(unpacked(path))
    metadata, *records = decoder.decode()
    symbols = {i["symbol"]: symbol_name(name) for name, spans in metadata.mappings.items() for i in spans}
    quotes, trades = [], []
    for record in records:
        name = symbols[str(record.instrument_id)]
        kind = type(record).__name__
        if "Trade" not in kind:
            level = record.levels[0]
            sides = [(p, float(s)) if p != UNDEF and s else (0, 0.0)
                     for p, s in ((level.bid_px, level.bid_sz), (level.ask_px, level.ask_sz))]  # fmt: skip
            when = record.ts_recv if "BBO" in kind else record.ts_event
            quotes.append((name, when, *sides[0], *sides[1]))
        if "BBO" not in kind and str(record.action) in ("T", "Action.TRADE"):
            side = {"A": "s", "B": "b"}.get(str(record.side), "-")
            trades.append((name, record.ts_event, record.price, float(record.size), side))
    return quotes, trades


async def test_every_vector_of_every_version_is_what_the_reference_decoder_says(realdata):
    files, versions = vectors(realdata), set()
    assert len(files) >= 50
    for path in files:
        versions.add(unpacked(path)[3])
        intake = await replayed(path.parent, path=path.name, format="dbn")
        quotes, trades = truth(path)
        assert quotes or trades, path
        q, t = intake.quotes, intake.trades
        fields = [q[name].tolist() for name in ("ts_event", "bid_px", "bid_sz", "ask_px", "ask_sz")]
        assert list(zip(names(intake, q), *fields, strict=True)) == quotes, path
        fields = [t[name].tolist() for name in ("ts_event", "price", "size")]
        sides = bytes(t["side"].tolist()).decode()
        assert list(zip(names(intake, t), *fields, sides, strict=True)) == trades, path
        assert not intake.events, path
    assert versions == {1, 2, 3}


async def test_vectors_pass_the_conformance_suite(autojump_clock, realdata):
    for path in vectors(realdata):
        await check_feed(ReplayFeed, {"format": "dbn", "path": path.name}, base=path.parent)


async def test_other_schemas_have_no_ticks_and_are_counted(realdata):
    intake = await replayed(realdata, path="dbn_vectors/test_data.ohlcv-1s.v3.dbn.zst", format="dbn")
    assert intake.events == {"other_record": 2}


def write(folder, *records, schema="mbp-1", name="a.dbn", mappings=None, stype_in="raw_symbol", symbols=()):
    """Write a DBN file of ``records``; ``mappings`` has from day, to day and name by instrument."""
    found = [
        SimpleNamespace(
            raw_symbol=text,
            intervals=[SimpleNamespace(start_date=first, end_date=last, symbol=str(instrument))],
        )
        for instrument, first, last, text in (WHOLE_DAY if mappings is None else mappings)
    ]
    metadata = databento_dbn.Metadata(
        dataset="XNAS.ITCH",
        start=NOW_NS,
        stype_in=stype_in and SType(stype_in),
        stype_out=SType("instrument_id"),
        schema=schema and Schema(schema),
        symbols=list(symbols),
        mappings=found,
    )
    (folder / name).write_bytes(bytes(metadata) + b"".join(map(bytes, records)))
    return name


def mbp1(price=UNDEF, size=0, action="A", bid=(UNDEF, 0), ask=(UNDEF, 0), publisher=1, instrument=1, at_ns=0,
         kind=databento_dbn.MBP1Msg, levels=1, side="B", sequence=0):  # fmt: skip
    level = databento_dbn.BidAskPair(bid_px=bid[0], bid_sz=bid[1], ask_px=ask[0], ask_sz=ask[1])
    more = [databento_dbn.BidAskPair(bid_px=1, ask_px=2, bid_sz=9, ask_sz=9)] * (levels - 1)
    when = NOW_NS + at_ns
    return kind(publisher, instrument, when, price, size, Action(action), Side(side), 0, when,
                levels=[level, *more] if levels > 1 else level, sequence=sequence)  # fmt: skip


def trade(price, size=1, publisher=1, instrument=1, action="T", at_ns=0, side="B"):
    when = NOW_NS + at_ns
    return databento_dbn.TradeMsg(
        publisher, instrument, when, price, size, Action(action), Side(side), 0, when
    )


async def test_negative_and_zero_prices_are_prices(tmp_path):
    sides = [((-37_630_000_000, 5), (0, 7)), ((0, 1), (UNDEF, 0)), ((UNDEF, 3), (-1, 0))]
    write(tmp_path, *(mbp1(bid=bid, ask=ask) for bid, ask in sides), mbp1(-37_630_000_000, 2, "T"))
    intake = await replayed(tmp_path, path="a.dbn", format="dbn")
    assert intake.quotes[["bid_px", "bid_sz", "ask_px", "ask_sz"]].tolist() == [
        (-37_630_000_000, 5, 0, 7), (0, 1, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0)
    ]  # fmt: skip
    assert intake.trades[["price", "size"]].tolist() == [(-37_630_000_000, 2)]
    assert not intake.events


async def test_a_trade_without_price_or_size_is_left_out_and_counted(tmp_path):
    write(tmp_path, trade(0, 1), trade(UNDEF, 1), trade(5, 0), trade(-5, 2), schema="trades")
    intake = await replayed(tmp_path, path="a.dbn", format="dbn")
    assert intake.trades["price"].tolist() == [0, -5]
    assert intake.events == {"empty_trade": 2}


@pytest.mark.parametrize("short", [1, 40, 79, 80, 100])
@pytest.mark.parametrize("packed", [False, True])
async def test_a_file_cut_short_loses_no_whole_record(realdata, tmp_path, short, packed):
    whole = unpacked(realdata / "dbn_vectors/by_dataset/GLBX.MDP3__test_data.mbp-1.dbn.zst")
    cut = whole[:-short]
    name = "cut.dbn.zst" if packed else "cut.dbn"
    (tmp_path / name).write_bytes(zstandard.compress(cut) if packed else cut)
    settings = {"path": name, "format": "dbn"}
    if short % 80:
        intake, said = await damaged(tmp_path, **settings)
        assert f"{name}: the file is damaged from here on: it ends within a record" in said
    else:
        intake = await replayed(tmp_path, **settings)
    assert len(intake.quotes) == 4 - -(-short // 80)
    assert intake.events == ({"broken_record": 1} if short % 80 else {})


def test_files_of_something_else(tmp_path):
    for content in (b"", b"DBN", b"junk" * 100, b"DBN\3\xff\xff\xff\xff" + bytes(100), b"DBN\3\4\0\0\0abcd"):
        (tmp_path / "a.dbn").write_bytes(content)
        assert str(tmp_path / "a.dbn") in refusal(tmp_path, path="a.dbn", format="dbn")
    assert "No such file" in refusal(tmp_path, path="none.dbn", format="dbn")


def test_without_the_package_the_operator_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "databento_dbn", None)
    said = refusal(tmp_path, path="a.dbn", format="dbn")
    assert said == "format: dbn needs the package databento-dbn: pip install 'marketfeed[dbn]'"


def test_without_zstandard_the_operator_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "a.mfr.zst").write_bytes(b"x")
    said = refusal(tmp_path, path="a.mfr.zst", format="marketfeed")
    assert said == "path: a .zst file needs the package zstandard: pip install 'marketfeed[zstd]'"
