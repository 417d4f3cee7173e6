"""Builders of DBN records and files."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace

import databento_dbn
from databento_dbn import Action, Schema, Side, SType

UNDEF = 2**63 - 1
NOW_NS = 1_725_000_000_000_000_000  # 2024-08-30
WHOLE_DAY = ((1, date(2024, 8, 30), date(2024, 8, 31), "CLM0"),)


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
