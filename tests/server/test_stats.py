"""Reports of several serving halves add up exactly, and a dead one's is kept."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.fanout.ledger import Ledger
from marketfeed.server.stats import MAXIMA, ServerStats, merged

COUNTS = st.integers(0, 1000)
TIERS = st.sampled_from(["vip", "premium", "basic"])
LEDGERS = st.builds(Ledger, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
REPORTS = st.builds(
    ServerStats,
    sessions=st.dictionaries(st.tuples(st.sampled_from(["websocket", "sse"]), TIERS), COUNTS),
    lagging=st.dictionaries(TIERS, COUNTS),
    accepted=COUNTS,
    closes=st.dictionaries(st.sampled_from([1000, 1006, 4001]), COUNTS),
    refused=st.dictionaries(st.text(max_size=3), COUNTS),
    ledgers=st.dictionaries(TIERS, LEDGERS),
    frames=COUNTS,
    flush_counts=st.lists(COUNTS, max_size=10),
    gc_longest_s=st.floats(0, 1),
    round_trips=st.dictionaries(TIERS, st.lists(COUNTS, min_size=3, max_size=3)),
)


@pytest.mark.slow
@given(st.lists(REPORTS, max_size=5))
def test_the_sum_has_every_figure_of_every_report(reports):
    before = [msgspec.msgpack.encode(report) for report in reports]
    total = merged(reports)
    assert [msgspec.msgpack.encode(report) for report in reports] == before
    assert total.accepted == sum(report.accepted for report in reports)
    assert total.gc_longest_s == max((report.gc_longest_s for report in reports), default=0)
    assert sum(total.flush_counts) == sum(sum(report.flush_counts) for report in reports)
    for kind in ("sessions", "closes", "lagging", "refused"):
        for key in {key for report in reports for key in getattr(report, kind)}:
            assert getattr(total, kind)[key] == sum(getattr(r, kind).get(key, 0) for r in reports)
    for tier in {tier for report in reports for tier in report.round_trips}:
        parts = [report.round_trips[tier] for report in reports if tier in report.round_trips]
        assert total.round_trips[tier] == [sum(counts) for counts in zip(*parts, strict=True)]
    for tier in {tier for report in reports for tier in report.ledgers}:
        for figure in ("matched", "delivered", "conflated", "lost", "pending", "abandoned"):
            parts = [getattr(report.ledgers[tier], figure) for report in reports if tier in report.ledgers]
            assert getattr(total.ledgers[tier], figure) == sum(parts)


@given(REPORTS)
def test_a_report_is_the_same_on_the_other_side_of_a_socket(report):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(report), type=ServerStats) == report


@given(REPORTS)
def test_what_a_dead_half_had_pending_is_abandoned_and_its_sessions_are_closed(report):
    past = report.past()
    assert not past.sessions
    assert not past.lagging
    assert past.groups == past.synced == 0
    for tier, ledger in report.ledgers.items():
        assert past.ledgers[tier].pending == 0
        assert past.ledgers[tier].abandoned == ledger.abandoned + ledger.pending
        assert past.ledgers[tier].difference == ledger.difference
    assert sum(past.closes.values()) == sum(report.closes.values()) + sum(report.sessions.values())
    assert past.past() == past


def test_the_fields_of_which_the_highest_counts_exist():
    assert set(ServerStats.__struct_fields__) >= MAXIMA
