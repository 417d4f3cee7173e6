"""Reports of usage."""

from __future__ import annotations

import msgspec
import pytest

from marketfeed.access.usage import User
from marketfeed.access.usage_report import Asked, DayOfUser, asked, by_prefix, day_text, report
from marketfeed.api.usage import PrefixRow, UsageCount

TODAY = 20_785
DAYS = [
    DayOfUser(
        TODAY,
        User("acme", "ann"),
        2,
        frozenset({"BTC-USD", "BTC-EUR", "ETH-USD"}),
        {("vip", "quotes"): (3, 30), ("vip", "trades"): (1, 10), ("basic", "alerts"): (4, 40)},
    ),
    DayOfUser(TODAY, User("acme", "bob"), 1, frozenset({"BTC-USD"}), {("vip", "quotes"): (5, 50)}),
    DayOfUser(TODAY, User("beta", "ann"), 1, frozenset({"BTC-USD"})),
    DayOfUser(TODAY + 1, User("beta", "ann"), 1),
]


def test_a_row_per_user():
    ann, _, other, _ = report(DAYS, Asked(TODAY, TODAY))
    assert (ann.day, ann.tenant, ann.sub, ann.peak, ann.symbols) == (day_text(TODAY), "acme", "ann", 2, 3)
    assert (ann.quotes, ann.trades, ann.alerts, ann.bytes) == (3, 1, 4, 80)
    assert ann.counts[0] == UsageCount("basic", "alerts", 4, 40)
    assert ann.users is msgspec.UNSET
    assert (other.quotes, other.counts) == (0, [])


def test_a_row_per_tenant():
    acme, beta, _ = report(DAYS, Asked(TODAY, TODAY + 1, by="tenant"))
    assert (acme.users, acme.peak, acme.symbols, acme.quotes, acme.bytes) == (2, 3, 3, 8, 130)
    assert (beta.users, beta.sub) == (1, msgspec.UNSET)


def test_distinct_users_by_prefix():
    day = day_text(TODAY)
    assert by_prefix(DAYS, 3) == [PrefixRow(day, "BTC", 3, 2, 2), PrefixRow(day, "ETH", 1, 1, 1)]
    rows = report(DAYS[:3], Asked(TODAY, TODAY, by="symbols", prefixes=("B", "BTC-E", "XRP")))
    assert rows == [
        PrefixRow(day, "B", 3, 2, 2),
        PrefixRow(day, "BTC-E", 1, 1, 1),
        PrefixRow(day, "XRP", 0, 0, 0),
    ]


def test_days_and_prefixes_are_parsed():
    assert asked(TODAY) == Asked(TODAY, TODAY)
    assert asked(TODAY, "yesterday").last == TODAY - 1
    assert asked(TODAY, day_text(TODAY - 5), "30") == Asked(TODAY - 34, TODAY - 5)
    assert asked(TODAY, by="symbols").prefixes == 2
    assert asked(TODAY, by="symbols", prefix="4").prefixes == 4
    assert asked(TODAY, by="symbols", prefixes=["BTC*", "ETH", "BTC"]).prefixes == ("BTC", "ETH")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"day": "monday"}, "day: today, yesterday, or a day such as 2026-11-28 in UTC, not 'monday'"),
        ({"day": "20261128"}, "day: "),
        ({"day": "2026-02-30"}, "day: "),
        ({"day": "9999-01-01"}, "day: "),
        ({"days": "0"}, "days: 1 to 366, not '0'"),
        ({"days": "367"}, "days: "),
        ({"days": "-1"}, "days: "),
        ({"days": "٣"}, "days: "),
        ({"by": "month"}, "by: must be one of user, tenant, symbols, not 'month'"),
        ({"prefix": "2"}, "prefix: only with by symbols"),
        ({"prefixes": ["A"]}, "prefixes: only with by symbols"),
        ({"by": "symbols", "prefix": "2", "prefixes": ["A"]}, "prefix: not together with prefixes"),
        ({"by": "symbols", "prefix": "25"}, "prefix: 1 to 24, not '25'"),
        ({"by": "symbols", "prefixes": ["A B"]}, "prefixes: not the beginning of a symbol: 'A B'"),
    ],
)
def test_mistakes_name_the_parameter(given, what):
    with pytest.raises(ValueError, match=f"^{what}"):
        asked(TODAY, **given)
