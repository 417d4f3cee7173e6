from decimal import ROUND_HALF_EVEN, Context, Decimal

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.core.fixed import MAX_PX, SCALE, floats_from_prices, price_from_text

EXACTLY = Context(prec=400)  # wide enough to avoid rounding


def expected_price(text):
    scaled = Decimal(text).scaleb(9, EXACTLY)
    whole = scaled.to_integral_value(ROUND_HALF_EVEN, EXACTLY)
    return int(whole), scaled == whole


def decimal_text(sign, whole, fraction, exponent):
    return sign + whole + ("." + fraction if fraction else "") + exponent


WHOLE = st.from_regex(r"[0-9]{1,9}", fullmatch=True)
SIGN = st.sampled_from(["", "-", "+"])
FRACTION = st.from_regex(r"[0-9]{0,18}", fullmatch=True)
EXPONENT = st.one_of(st.just(""), st.builds("{}{}".format, st.sampled_from("eE"), st.integers(-60, 0)))


@given(st.builds(decimal_text, SIGN, WHOLE, FRACTION, EXPONENT))
@example("0.0000000005")
@example("0.0000000015")
@example("-0.0000000025")
def test_text_becomes_the_nearest_price_and_says_if_it_is_exact(text):
    assert price_from_text(text) == expected_price(text)


@given(st.integers(-MAX_PX, MAX_PX))
@example(MAX_PX)
@example(-MAX_PX)
def test_every_price_reads_back_from_its_decimal(price):
    text = format(Decimal(price).scaleb(-9, EXACTLY), "f")
    assert price_from_text(text) == (price, True)


@pytest.mark.parametrize(
    ("text", "price", "exact"),
    [
        ("1", SCALE, True),
        ("0", 0, True),
        ("-0", 0, True),
        ("0.1", 100_000_000, True),
        ("1.", SCALE, True),
        (".5", 500_000_000, True),
        ("67187.77000000", 67_187_770_000_000, True),
        ("0.000000001", 1, True),
        ("0.0000000010", 1, True),
        ("0.0000000005", 0, False),
        ("0.0000000015", 2, False),
        ("0.00000000051", 1, False),
        ("-0.0000000015", -2, False),
        ("1e3", 1000 * SCALE, True),
        ("1.5E+3", 1500 * SCALE, True),
        ("1e-9", 1, True),
        ("5e-10", 0, False),
        ("1e-500", 0, False),
        ("0e-500", 0, True),
        ("9223372036.854775807", MAX_PX, True),
        ("-9223372036.854775807", -MAX_PX, True),
    ],
)
def test_what_a_price_in_text_is(text, price, exact):
    assert price_from_text(text) == (price, exact)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ".", "-", "e5", "1e", "1..2", "1.2.3", "1,5", "0x10", "abc", "nan", "NaN", "sNaN", "inf",
        "-Infinity", "1e11", "1e99999999999999999999", "9223372036.854775808", "-9223372036.854775808",
        "99999999999", "1.-5", "1.+5", "1. 5", "²", "1.²",
    ],
)  # fmt: skip
def test_junk_is_a_value_error(text):
    with pytest.raises(ValueError, match="not a "):
        price_from_text(text)


@given(st.text(max_size=30))
def test_any_text_is_a_price_or_a_value_error(text):
    try:
        price, _ = price_from_text(text)
    except ValueError:
        return
    assert abs(price) <= MAX_PX


@st.composite
def prices_of_15_digits(draw):
    digits = draw(st.integers(-(10**15) + 1, 10**15 - 1))
    zeros = draw(st.integers(0, 3))
    price = digits * 10**zeros
    return price if abs(price) < 2**53 else digits


@given(st.lists(prices_of_15_digits(), max_size=20))
@example([2**53 // 10 * 10])
def test_a_price_becomes_the_double_whose_shortest_text_is_the_same_decimal(prices):
    text = orjson.dumps(floats_from_prices(np.array(prices, np.int64)), option=orjson.OPT_SERIALIZE_NUMPY)
    written = orjson.loads(text.replace(b",", b'","').replace(b"[", b'["').replace(b"]", b'"]'))
    expected = [Decimal(price).scaleb(-9, EXACTLY) for price in prices]
    assert [Decimal(number) for number in written if number] == expected


def test_conversions_keep_the_shape():
    assert floats_from_prices(np.zeros((2, 3), np.int64)).shape == (2, 3)


def test_digits_beyond_any_fixed_precision_still_count():
    assert price_from_text("1.000000001" + "0" * 30 + "1") == (1_000_000_001, False)
    assert price_from_text("1.0000000005" + "0" * 30 + "1") == (1_000_000_001, False)
    assert price_from_text("0e20") == (0, True)


@pytest.mark.parametrize("text", ["1_000", " 1 ", "1\n", "\uff11\uff12", "1e99999", ".", "1.2.3"])
def test_what_only_python_takes_for_a_number_is_no_price(text):
    with pytest.raises(ValueError, match="not a"):
        price_from_text(text)
