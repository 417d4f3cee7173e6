"""The pump's path for a few ticks: the rings hold what its arrays would have written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.few import FEW, few_of
from marketfeed.core.layout import block_bytes
from marketfeed.core.records import DTYPES, QUOTES, TRADES, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.ingest import pump as pump_module
from marketfeed.ingest.plain import MAX_EVENT_NS, MAX_RECEIPT_AGE_NS, MAX_RECEIPT_AHEAD_NS, mark_if_plain
from marketfeed.ingest.pump import Pump

NOW_NS = 1_725_000_000_000_000_000
SIZES = [1.0, 1.0, 1.0, 2.5, 0.0, -0.0, -1.0, float("nan"), float("inf"), 5e-324]
TIMES = [NOW_NS, NOW_NS, NOW_NS, 0, 1, -1, NOW_NS - MAX_RECEIPT_AGE_NS, NOW_NS - MAX_RECEIPT_AGE_NS - 1,
         NOW_NS + MAX_RECEIPT_AHEAD_NS, NOW_NS + MAX_RECEIPT_AHEAD_NS + 1, MAX_EVENT_NS, MAX_EVENT_NS + 1,
         2**63 - 1, -(2**63)]  # fmt: skip
PRICES = [10, 10, 11, 11, 12, 0, -5, 2**63 - 1, -(2**63)]
SYMBOL = st.sampled_from([0, 0, 1, 2, 65535])  # two are known
QUOTE_TICKS = st.fixed_dictionaries(
    {"symbol": SYMBOL, "ts_event": st.sampled_from(TIMES), "ts_recv": st.sampled_from(TIMES)}
    | {name: st.sampled_from(PRICES) for name in ("bid_px", "ask_px")}
    | {name: st.sampled_from(SIZES) for name in ("bid_sz", "ask_sz")}
    | {"feed": st.integers(0, 255), "flags": st.integers(0, 255)}
)
TRADE_TICKS = st.fixed_dictionaries(
    {"symbol": SYMBOL, "ts_event": st.sampled_from(TIMES), "ts_recv": st.sampled_from(TIMES)}
    | {"price": st.sampled_from(PRICES), "size": st.sampled_from(SIZES)}
    | {"side": st.sampled_from([*b"bs--x", 0, 255]), "kind": st.sampled_from([0, 0, 0, 1, 2, 9])}
    | {"cond": st.sampled_from([b"", b"", b"@", b'F"T\n', b"\0A"]), "unused": st.sampled_from([b"", b"\1\2"])}
    | {"feed": st.integers(0, 255), "flags": st.integers(0, 255)}
)


def batch_of(ticks, ordered):
    arrays = []
    for channel, dtype in enumerate(DTYPES):
        rows = [tick for kind, tick in ticks if kind == channel]
        records = np.zeros(len(rows), dtype)
        for record, row in zip(records, rows, strict=True):
            for name, value in row.items():
                record[name] = value
        arrays.append(records)
    quotes, trades = arrays
    return Batch(quotes, trades, np.array([kind for kind, _ in ticks], np.uint8) if ordered else None)


def after_publishing(batch, few):
    """Return what a pump leaves of ``batch``: the block of the rings, and its counts."""
    block, bells = bytearray(block_bytes(4, 64)), []
    symbols = SymbolTable(4)
    rings = Rings.create(block, 4, 64, "e1")
    pump = Pump(RingWriter(rings, lambda: 7), symbols, lambda: bells.append(1), lambda: NOW_NS)
    with structlog.testing.capture_logs(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(pump_module, "FEW", few)
        intake = pump.intake("f", Path())
        for name in "AB":
            intake.symbol(name)
        intake.publish(batch)
    return bytes(block), bells, intake.ticks, dict(intake.events), intake.last_tick_ns


@given(
    st.lists(st.tuples(st.just(QUOTES), QUOTE_TICKS) | st.tuples(st.just(TRADES), TRADE_TICKS), max_size=FEW),
    st.booleans(),
)
def test_a_few_ticks_one_by_one_leave_what_arrays_leave(ticks, ordered):
    one_by_one = after_publishing(batch_of(ticks, ordered), FEW)
    assert one_by_one == after_publishing(batch_of(ticks, ordered), 0)


def test_plain_ticks_take_the_short_path_and_others_do_not():
    plain = {"symbol": 1, "ts_event": NOW_NS, "ts_recv": NOW_NS}
    quote = plain | {"bid_px": 10, "ask_px": 11, "bid_sz": 1.0, "ask_sz": 2.0}
    trade = plain | {"price": 10, "size": 1.0, "side": ord("b")}

    def is_plain(*ticks):
        return mark_if_plain(few_of(batch_of(ticks, True)), 2, NOW_NS, 3)

    assert is_plain((QUOTES, quote), (TRADES, trade), (QUOTES, quote | {"ts_recv": 0}))
    assert not is_plain((QUOTES, quote), (QUOTES, quote | {"ask_sz": 0.0}))
    assert not is_plain((TRADES, trade), (QUOTES, quote | {"symbol": 2}))
    assert not is_plain((QUOTES, quote | {"ask_px": 10}))
    assert not is_plain((TRADES, trade | {"cond": b"@"}))
    assert not is_plain((TRADES, trade | {"side": ord("x")}))
