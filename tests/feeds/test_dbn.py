"""DBN recordings: test vectors of every version, compared with Databento's decoder."""

from __future__ import annotations

import sys
from datetime import date
from types import SimpleNamespace
from typing import Any

import databento_dbn
import pytest
import zstandard
from databento_dbn import Action, Schema, Side, SType

from marketfeed.feeds.replay import ReplayFeed
from marketfeed.feeds.replay.dbn_names import venue
from marketfeed.feeds.replay.recording import symbol_name
from marketfeed.testing import check_feed
from tests.support.dbn import NOW_NS, UNDEF, mbp1, trade, write
from tests.support.replay import damaged, names, refusal, replayed

SCHEMAS = ("mbp-1", "mbp-10", "tbbo", "bbo-1s", "bbo-1m", "trades", "cmbp-1", "cbbo-1s", "cbbo-1m")


def vectors(folder):
    files = sorted(folder.glob("dbn_vectors/**/*.dbn*"))
    return [file for file in files if any(f"test_data.{schema}." in file.name for schema in SCHEMAS)]


def unpacked(path):
    data = path.read_bytes()
    return zstandard.ZstdDecompressor().decompressobj().decompress(data) if path.suffix == ".zst" else data


def truth(path):
    """Return the quotes and trades of the reference decoder."""
    as_is: Any = databento_dbn.VersionUpgradePolicy.AS_IS  # an int, by its stub
    decoder = databento_dbn.DBNDecoder(upgrade_policy=as_is)
    decoder.write(unpacked(path))
    decoded: Any = decoder.decode()
    metadata, *records = decoded
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


def test_files_of_other_schemas_are_refused_in_one_line_that_names_the_schema(realdata):
    others = set(realdata.glob("dbn_vectors/**/*test_data.*.dbn*")) - set(vectors(realdata))
    schemas = set()
    for path in others:
        schema = path.name.partition("test_data.")[2].partition(".")[0]
        if schema == "live":
            continue
        schemas.add(schema)
        said = refusal(path.parent, path=path.name, format="dbn")
        assert said.startswith(f"path: {path} holds {schema}, ")
        assert "mbp-10" in said
    bars = {"ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d"}
    assert schemas == bars | {"mbo", "definition", "statistics", "status", "imbalance"}


async def test_a_live_file_of_many_schemas_gives_each_trade_once_under_the_name_of_its_mapping(realdata):
    path = "dbn_vectors/by_dataset/LIVE__test_data.live.dbn.zst"
    intake = await replayed(realdata, path=path, format="dbn")
    assert set(names(intake, intake.quotes)) == {"ESZ4"} == set(names(intake, intake.trades))
    prices = [(int(t["price"]), float(t["size"]), int(t["trade_id"])) for t in intake.trades]
    assert len(prices) == len(set(prices)) == 2
    assert intake.events["duplicate_trade"] == 2


@pytest.mark.parametrize(
    "path", ["dbn/esh4-glbx-mdp3-20231224.mbo.dbn.zst", "dbn_vectors/test_data.mbo.v3.dbn"]
)
def test_single_orders_are_refused_with_what_can_be_had_instead(realdata, path):
    said = refusal(realdata, path=path, format="dbn")
    assert "holds mbo, single orders" in said
    assert "take = 'trades'" in said
    assert "no tick in it" in refusal(
        realdata, path="dbn_vectors/test_data.mbo.v3.dbn", format="dbn", take="trades"
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
        at = len(whole) - -(-short // 80) * 80
        assert f"{name}:byte {at}: the file is damaged from here on: it ends within a record" in said
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
    (tmp_path / "a.dbn").write_bytes(b"DBN")
    said = refusal(tmp_path, path="a.dbn", format="dbn")
    assert said == "format: dbn needs the package databento-dbn: pip install 'marketfeed[dbn]'"


def test_without_zstandard_the_operator_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "a.mfr.zst").write_bytes(b"x")
    said = refusal(tmp_path, path="a.mfr.zst", format="marketfeed")
    assert said == "path: a .zst file needs the package zstandard: pip install 'marketfeed[zstd]'"


def mbo(action, price, size, at_ns=0):
    return databento_dbn.MBOMsg(
        1, 1, NOW_NS + at_ns, 7, price, size, Action(action), Side("A"), NOW_NS + at_ns, sequence=9
    )


async def test_the_trades_among_single_orders_can_be_taken(tmp_path):
    write(tmp_path, mbo("A", 5, 1), mbo("T", -6, 2), mbo("F", -6, 2), mbo("C", 5, 1), schema="mbo")
    intake = await replayed(tmp_path, path="a.dbn", format="dbn", take="trades")
    assert intake.trades[["price", "size", "side", "trade_id"]].tolist() == [(-6, 2.0, ord("s"), 9)]
    assert not len(intake.quotes)


async def test_the_best_level_of_ten_is_the_quote(tmp_path):
    ten = {"kind": databento_dbn.MBP10Msg, "levels": 10}
    write(
        tmp_path, mbp1(bid=(10, 1), ask=(12, 3), **ten), mbp1(12, 2, "T", bid=(10, 1), ask=(UNDEF, 0), **ten),
        schema="mbp-10",
    )  # fmt: skip
    intake = await replayed(tmp_path, path="a.dbn", format="dbn")
    assert intake.quotes[SIDES].tolist() == [(10, 1, 12, 3), (10, 1, 0, 0)]
    assert intake.trades[["price", "size"]].tolist() == [(12, 2)]
    assert order(intake) == "qtq"


@pytest.mark.parametrize(("take", "quotes", "trades"), [("all", 2, 1), ("quotes", 2, 0), ("trades", 0, 1)])
async def test_quotes_or_trades_alone_can_be_taken(tmp_path, take, quotes, trades):
    write(tmp_path, mbp1(bid=(10, 1)), mbp1(12, 2, "T", bid=(10, 1)))
    intake = await replayed(tmp_path, path="a.dbn", format="dbn", take=take)
    assert (len(intake.quotes), len(intake.trades)) == (quotes, trades)


def test_what_a_schema_does_not_have_cannot_be_taken(tmp_path):
    write(tmp_path, trade(5), schema="trades")
    said = refusal(tmp_path, path="a.dbn", format="dbn", take="quotes")
    assert said == f"take: 'quotes', but {tmp_path}/a.dbn holds trades, which has none"
    write(tmp_path, schema="bbo-1s")
    assert "holds bbo-1s" in refusal(tmp_path, path="a.dbn", format="dbn", take="trades")


async def test_records_of_trades_that_are_none_are_left_out_and_counted(tmp_path):
    write(tmp_path, trade(5), trade(5, action="C"), trade(6, action="M"), schema="trades")
    intake = await replayed(tmp_path, path="a.dbn", format="dbn")
    assert intake.trades["price"].tolist() == [5]
    assert intake.events == {"other_trade": 2}


def mapping(instrument, wanted, found, start_ns=2**64 - 1, end_ns=2**64 - 1):
    stype = SType("raw_symbol")
    return databento_dbn.SymbolMappingMsg(
        1, instrument, NOW_NS, stype, wanted, stype, found, start_ns, end_ns
    )


LIVE = {"schema": None, "stype_in": None, "mappings": ()}


async def test_names_come_from_mapping_records_and_change_with_them(tmp_path):
    write(
        tmp_path, mapping(1, "ES.FUT", "ESZ4"), mapping(2, "AAPL", "2"), trade(1), trade(2, instrument=2),
        mapping(1, "ES.FUT", "ESH5"), trade(3), trade(4, instrument=2), **LIVE,
    )  # fmt: skip
    intake = await replayed(tmp_path, path="a.dbn", format="dbn")
    assert names(intake, intake.trades) == ["ESZ4", "AAPL", "ESH5", "AAPL"]


async def test_names_of_mapping_records_hold_for_their_intervals(tmp_path):
    change = NOW_NS + 500
    write(
        tmp_path, mapping(1, "CL.c.0", "CLV4", NOW_NS - 10**15, change), mapping(1, "CL.c.0", "CLX4", change),
        *(trade(n, at_ns=100 * n) for n in range(10)), **LIVE,
    )  # fmt: skip
    intake = await replayed(tmp_path, path="a.dbn", format="dbn")
    assert names(intake, intake.trades) == ["CLV4"] * 5 + ["CLX4"] * 5


async def test_names_of_the_metadata_hold_for_their_days(tmp_path):
    days = [date(2024, 8, 30), date(2024, 8, 31), date(2024, 9, 1)]
    write(
        tmp_path, *(trade(n, at_ns=n * 12 * 3600 * 10**9) for n in range(5)), schema="trades",
        mappings=[(1, days[0], days[1], "ONE"), (1, days[1], days[2], "TWO"), (2, days[0], days[1], "THREE")],
    )  # fmt: skip
    intake = await replayed(tmp_path, path="a.dbn", format="dbn")
    assert names(intake, intake.trades) == ["ONE", "ONE", "TWO", "TWO"]
    assert intake.events == {"unnamed_instrument": 1}


async def test_a_request_by_number_that_was_answered_with_names_has_these(tmp_path):
    found = [SimpleNamespace(start_date=date(2024, 8, 30), end_date=date(2024, 8, 31), symbol="AAPL")]
    metadata = databento_dbn.Metadata(
        dataset="XNAS.ITCH", start=NOW_NS, stype_in=SType("instrument_id"), stype_out=SType("raw_symbol"),
        schema=Schema("trades"), mappings=[SimpleNamespace(raw_symbol="1", intervals=found)],
    )  # fmt: skip
    (tmp_path / "a.dbn").write_bytes(bytes(metadata) + bytes(trade(1)))
    intake = await replayed(tmp_path, path="a.dbn", format="dbn")
    assert names(intake, intake.trades) == ["AAPL"]


def order(intake):
    """Return the channels of the ticks in order, as q and t."""
    return "".join("qt"[channel] for batch in intake.batches for channel in batch.channels)


NUMBERED = ((1, date(2024, 8, 30), date(2024, 8, 31), "1"),)


@pytest.mark.parametrize("mappings", [(), NUMBERED])
async def test_instruments_without_a_name_are_refused_unless_asked_for_by_number(tmp_path, mappings):
    write(tmp_path, trade(1), schema="trades", stype_in="instrument_id", mappings=mappings, symbols=["1"])
    said = refusal(tmp_path, path="a.dbn", format="dbn")
    assert said.startswith(f"symbol: {tmp_path}/a.dbn: the file has no name for instrument 1")
    assert "symbol = '{instrument_id}'" in said
    for template, name in (
        ("{instrument_id}", "1"),
        ("X{instrument_id}.{venue}", "X1.GLBX"),
        ("AAPL", "AAPL"),
    ):
        intake = await replayed(tmp_path, path="a.dbn", format="dbn", symbol=template)
        assert names(intake, intake.trades) == [name]
        assert not intake.events


TWO_VENUES = [
    mbp1(bid=(10, 1), ask=(14, 1), publisher=2), mbp1(bid=(11, 2), ask=(15, 2), publisher=9),
    mbp1(bid=(11, 3), ask=(14, 1), publisher=2), mbp1(bid=(UNDEF, 0), ask=(14, 5), publisher=9),
    mbp1(bid=(UNDEF, 0), ask=(14, 5), publisher=9), mbp1(13, 1, "T", bid=(UNDEF, 0), publisher=2),
]  # fmt: skip
SIDES = ["bid_px", "bid_sz", "ask_px", "ask_sz"]


async def test_venues_of_one_symbol_are_kept_apart_where_the_name_has_the_venue(tmp_path):
    write(tmp_path, *TWO_VENUES)
    intake = await replayed(tmp_path, path="a.dbn", format="dbn", symbol="{symbol}.{venue}")
    assert names(intake, intake.quotes) == ["CLM0.XNAS", "CLM0.XNYS"] * 2 + ["CLM0.XNYS", "CLM0.XNAS"]
    assert names(intake, intake.trades) == ["CLM0.XNAS"]
    assert not intake.logged
    numbered = await replayed(tmp_path, path="a.dbn", format="dbn", symbol="{symbol}-{publisher}")
    assert set(names(numbered, numbered.quotes)) == {"CLM0-2", "CLM0-9"}


async def test_venues_of_one_symbol_can_be_merged_into_one_best_bid_and_offer(tmp_path):
    write(tmp_path, *TWO_VENUES)
    intake = await replayed(tmp_path, path="a.dbn", format="dbn", merge="all")
    assert intake.quotes[SIDES].tolist() == [
        (10, 1, 14, 1), (11, 2, 14, 1), (11, 5, 14, 1), (11, 3, 14, 6), (0, 0, 14, 5)
    ]  # fmt: skip
    assert names(intake, intake.quotes) == ["CLM0"] * 5
    assert order(intake) == "qqqqtq"
    assert (intake.quotes["n"] == 0).all()
    assert not intake.logged


async def test_a_symbol_that_jumps_between_venues_is_warned_of_once(tmp_path):
    write(tmp_path, *TWO_VENUES * 3)
    intake = await replayed(tmp_path, path="a.dbn", format="dbn")
    assert len(intake.quotes) == 18
    (entry,) = intake.logged
    assert (entry["log_level"], entry["event"]) == ("warning", "several publishers")
    assert "merge = 'all'" in entry["reason"]
    assert "{venue}" in entry["reason"]


async def test_trades_of_several_venues_and_consolidated_quotes_are_nothing_to_warn_of(tmp_path):
    write(tmp_path, trade(1, publisher=2), trade(2, publisher=9), schema="trades")
    assert not (await replayed(tmp_path, path="a.dbn", format="dbn")).logged


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"symbol": "{root}"},
         "symbol: '{root}' may contain {symbol}, {venue}, {publisher}, {instrument_id}"),
        ({"symbol": "{symbol}.{venue}", "merge": "all"},
         "symbol: with merge = 'all' quotes have no {venue} or {publisher}"),
        ({"merge": "exchange"},
         "merge: with dbn 'none' or 'all'; symbol = '{symbol}.{venue}' keeps venues apart"),
        ({"zone": "Europe/Paris"}, "zone: only with format csv or parquet"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(tmp_path, settings, said):
    write(tmp_path, *TWO_VENUES)
    assert refusal(tmp_path, path="a.dbn", format="dbn", **settings) == said


def test_publishers_have_the_venues_that_databento_lists():
    listed = {1: "GLBX", 2: "XNAS", 9: "XNYS", 30: "OPRA", 43: "ARCX", 57: "IFEU", 81: "XNAS", 95: "EQUS",
              101: "XEUR", 104: "XOFF", 105: "105", 0: "0"}  # fmt: skip
    assert {publisher: venue(publisher) for publisher in listed} == listed


def test_keys_of_dbn_are_only_of_dbn(tmp_path):
    (tmp_path / "a.gz").write_bytes(b"")
    assert refusal(tmp_path, path="a.gz", take="trades") == "take: only with format dbn"
    assert refusal(tmp_path, path="a.gz", symbol="A") == "symbol: only with format csv, parquet or dbn"


async def test_a_whole_file_without_a_record_is_failed_not_done(tmp_path):
    write(tmp_path)
    _, said = await damaged(tmp_path, path="a.dbn", format="dbn")
    assert said == "a.dbn: no tick in it: nothing to read"
