"""Parsing of text columns: vectorized results equal those of a reference parser."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.feeds.replay.fields import Rows, fixed, number_from_text, sizes, texts
from marketfeed.feeds.replay.times import iso


def column(values, index=0, delimiter=","):
    rows = Rows("".join(f"{value}{delimiter}x\n" for value in values).encode(), delimiter)
    return rows.column(index)


plain = st.from_regex(r"[+-]?[0-9]{1,17}(\.[0-9]{0,12})?", fullmatch=True)
odd = st.from_regex(r"[+-]?(\.[0-9]{1,9}|[0-9]{1,30}(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?)", fullmatch=True)
junk = st.text(st.characters(codec="ascii", exclude_characters='\n\r,"\x1f'), max_size=12)


@pytest.mark.slow
@given(
    st.lists(st.one_of(plain, odd, junk), min_size=1, max_size=30),
    st.sampled_from([1, 100, 10**4, 10**9, 8, 320]),
)
def test_numbers_are_the_decimals_written(values, scale):
    found = fixed(column(values), 9, scale)
    for row, text in enumerate(values):
        if not text:
            assert found.missing[row]
            continue
        with localcontext(prec=200):
            try:
                assert not set(text) & set("_nNiIsS")
                exact = Decimal(text.strip()) * 10**9 / scale
                whole = int(exact.quantize(Decimal(1), ROUND_HALF_EVEN))
                assert abs(whole) < 2**63
            except (AssertionError, ArithmeticError):
                assert found.broken[row]
                continue
        if found.broken[row]:  # digits of other scripts are invalid
            assert not text.strip().isascii() or len(text) > 40
            continue
        assert found.values[row] == whole


def test_what_is_finer_than_a_unit_is_rounded_half_to_even_and_counted():
    found = fixed(column(["0.0000000005", "0.0000000015", "0.000000001", "2.5e-9"]), 9)
    assert found.values.tolist() == [0, 2, 1, 2]
    assert found.rounded == 3


@given(
    st.one_of(plain, odd, junk, st.text(max_size=8), st.sampled_from(["1_0", "١٢", "²", "1.", ".", "inf"]))
)
def test_single_numbers_are_the_doubles_that_columns_have(text):
    found = number_from_text(text)
    if not text.strip():
        assert found == 0
    elif found is None:  # invalid in a column, too, unless it has too many digits
        assert fixed(column([text.translate({10: 32, 13: 32, 34: 32, 44: 32})]), 9).broken[0]
    else:
        assert found == float(text)
        assert not {*"_nN"} & {*text}
        assert text.strip().isascii()


@given(st.lists(st.floats(0, 1e15), min_size=1, max_size=20))
def test_sizes_are_the_doubles_written(values):
    floats, broken = sizes(column(map(repr, values)))
    assert floats.tolist() == values
    assert not broken.any()


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e999", "1_0", "x"])
def test_what_is_no_size(text):
    floats, broken = sizes(column(["5", text]))
    assert broken.tolist() == [False, True]
    assert floats.tolist() == [5, 0]


cells = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)


@given(
    st.lists(st.lists(cells, min_size=2, max_size=5), min_size=1, max_size=12),
    st.sampled_from(["\n", "\r\n"]),
)
def test_rows_are_split_as_the_csv_module_does(table, end):
    lines = []
    for row in table:
        quoted = [f'"{c.replace(chr(34), chr(34) * 2)}"' if set(c) & set(',"') else c for c in row]
        lines.append(",".join(quoted))
    rows = Rows((end.join(lines) + end).encode(), ",")
    wanted = [next(csv.reader([line])) for line in lines if line]
    assert rows.widths.tolist() == [len(row) for row in wanted]
    for index in range(2):
        fields = rows.column(index)
        assert [fields.text(i) for i in range(len(rows))] == [row[index] for row in wanted]
        codes, names = texts(fields)
        got = [names[code] for code in codes.tolist()]
        assert got == [row[index].encode()[:64].decode("utf-8", "replace").strip() for row in wanted]


moments = st.datetimes(datetime(1980, 1, 2), datetime(2200, 1, 1))


@given(
    st.lists(
        st.tuples(moments, st.sampled_from(["", "Z", "+00:00", "-05:00", "+0530"]), st.integers(0, 9)),
        min_size=1,
    ),
    st.sampled_from(["T", " "]),
    st.booleans(),
)
def test_times_are_those_of_the_datetime_module(rows, between, dashes):
    zone, values, wanted = ZoneInfo("America/New_York"), [], []
    for moment, offset, decimals in rows:
        day = moment.strftime("%Y-%m-%d" if dashes else "%Y%m%d")
        fraction = f"{moment.microsecond:06}000"[:decimals]
        text = f"{day}{between}{moment:%H:%M:%S}{'.' + fraction if fraction else ''}{offset}"
        values.append(text)
        kept = int(fraction.ljust(9, "0") or 0)
        whole = moment.replace(microsecond=0)
        read = datetime.fromisoformat(f"2000-01-01T00:00:00{offset}").tzinfo if offset else zone
        since = whole.replace(tzinfo=read) - datetime(1970, 1, 1, tzinfo=UTC)
        wanted.append(round(since / timedelta(seconds=1)) * 10**9 + kept)
    found, broken = iso(column(values), zone)
    assert not broken.any()
    assert found.tolist() == wanted


@pytest.mark.parametrize(
    "text", ["", "2013-01-01", "2013-02-29 00:00:00", "2013-13-01 00:00:00", "2013-01-01 24:00:00", "x" * 30,
             "2013-01-01 22:00:00.1 nowhere", "2013-01-01x22:00:00"],
)  # fmt: skip
def test_what_is_no_time(text):
    _, broken = iso(column(["2013-01-01 22:00:00", text]), ZoneInfo("UTC"))
    assert broken.tolist() == [False, True]
