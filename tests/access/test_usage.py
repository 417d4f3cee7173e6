"""The book of usage, and quotas."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from marketfeed.access.quotas import OVER_S, Limited, Over, Quotas
from marketfeed.access.usage import DAY_S, Book, Interval, Report, Totals, Unwritten, User, UserReport, plus
from marketfeed.config.schema import TenantConfig

ANN, BOB = User("acme", "ann"), User("acme", "bob")
NOON = 20_785 * DAY_S + DAY_S / 2
MIDNIGHT = 20_786 * DAY_S


def report(ticks: int, size: int = 0, user: User = ANN, began_s: float = NOON, sets: tuple[bytes, ...] = ()):
    counts = {("vip", "quotes"): (ticks, size)}
    return Report(
        Interval(began_s, began_s + 20), list(sets), [UserReport(*user, counts, list(range(len(sets))))]
    )


def test_reports_add_up_by_user_day_and_tenant():
    book = Book(NOON)
    book.add(report(3, 30, sets=(b"a", b"b")), NOON + 20)
    book.add(report(4, 40, sets=(b"b",)), NOON + 40)
    book.add(report(5, 50, BOB), NOON + 40)
    batch = book.take()
    assert batch[20_785, ANN] == Unwritten({("vip", "quotes"): (7, 70)}, 0, {b"a", b"b"})
    assert book.today == {"acme": Totals(12, 120)}
    assert book.sums == {("acme", "vip", "quotes"): (12, 120)}
    assert len(book) == 0
    book.put_back(batch)
    assert book.take() == batch


def test_alerts_count_by_their_bytes_alone():
    totals = Totals()
    totals.add({("vip", "quotes"): (3, 30), ("vip", "alerts"): (5, 50)})
    assert totals == Totals(3, 80)


def test_a_day_ends_at_midnight_and_peaks_begin_anew_with_open_sessions():
    book = Book(NOON)
    for number in (1, 2, 3, 1):
        book.count_sessions(ANN, number, NOON)
    book.count_sessions(BOB, 1, NOON)
    book.count_sessions(BOB, 0, NOON)
    book.add(report(9), NOON + 20)
    book.turn(MIDNIGHT)
    assert book.today == {}
    book.add(report(2, began_s=MIDNIGHT - 20), MIDNIGHT)  # of the day before
    assert book.today == {}
    batch = book.take()
    assert {(day, user.sub): one.peak for (day, user), one in batch.items()} == {
        (20_785, "ann"): 3, (20_785, "bob"): 1, (20_786, "ann"): 1,
    }  # fmt: skip
    assert batch[20_785, ANN].counts["vip", "quotes"][0] == 11
    book.turn(NOON)  # the clock was set back
    assert book.day == 20_786


def test_rates_are_those_of_the_last_interval_of_each_process():
    book = Book(NOON)
    book.add(report(2000), NOON + 20, 0)
    book.add(report(400, user=BOB), NOON + 20, 0)  # another part of the same interval
    book.add(report(600), NOON + 20, 1)
    assert book.rates(NOON + 21) == {"acme": 150.0}
    book.add(Report(Interval(NOON + 20, NOON + 40), [], []), NOON + 40, 0)
    assert book.rates(NOON + 41) == {"acme": 30.0}
    assert book.rates(NOON + 200) == {}


def test_a_quota_of_a_day_is_over_until_the_day_ends():
    quotas = Quotas({"acme": TenantConfig(max_ticks_per_day=10, max_bytes_per_day=1000, over="stop")})
    assert quotas.over(NOON, {"acme": Totals(9, 999), "other": Totals(99)}, {}) == []
    assert quotas.over(NOON, {"acme": Totals(10)}, {}) == [
        Over("acme", "max_ticks_per_day of the tenant: 10", "stop")
    ]
    (over,) = quotas.over(NOON, {"acme": Totals(1, 1000)}, {})
    assert over.reason == "max_bytes_per_day of the tenant: 1000"
    assert quotas.over(MIDNIGHT, {}, {}) == []


def test_a_tenant_that_was_too_fast_is_over_for_a_while():
    quotas = Quotas({"acme": TenantConfig(max_ticks_per_s=100)})
    assert quotas.over(0.0, {}, {"acme": 100.0}) == []
    (over,) = quotas.over(1.0, {}, {"acme": 100.5})
    assert over == Over("acme", "max_ticks_per_s of the tenant: 100", "slower")
    assert quotas.over(OVER_S, {}, {"acme": 1.0})
    assert quotas.over(1.0 + OVER_S, {}, {"acme": 1.0}) == []
    quotas.over(100.0, {}, {"acme": 101.0})
    quotas.tenants = {"acme": TenantConfig()}  # a reload
    assert quotas.over(101.0, {}, {"acme": 101.0}) == []


def test_a_process_learns_which_tenants_changed():
    limited = Limited()
    fast, spent = Over("acme", "fast", "slower"), Over("acme", "spent", "slower")
    assert limited.set([fast, Over("beta", "spent", "stop")]) == {"acme", "beta"}
    assert limited.set([spent]) == {"acme", "beta"}
    assert limited.set([spent]) == set()
    assert (limited.of("acme"), limited.of("beta")) == (spent, None)
    assert limited.set([]) == {"acme"}
    assert limited.of("acme") is None


@given(st.lists(st.tuples(st.sampled_from([ANN, BOB]), st.integers(0, 99), st.booleans())))
def test_nothing_is_lost_or_counted_twice_whatever_fails(steps):
    book = Book(NOON)
    written: dict[Any, tuple[int, int]] = {}
    expected: dict[Any, tuple[int, int]] = {}
    for user, ticks, fails in steps:
        book.add(report(ticks, ticks, user), NOON)
        plus(expected, {user: (ticks, ticks)})
        batch = book.take()
        if fails:
            book.put_back(batch)
        else:
            plus(written, {one: unwritten.counts["vip", "quotes"] for (_, one), unwritten in batch.items()})
    plus(written, {one: left.counts["vip", "quotes"] for (_, one), left in book.take().items()})
    assert written == expected
