import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.cursor import EPOCH, Cursor, parse_cursor

EPOCHS = st.from_regex(EPOCH, fullmatch=True)


@given(EPOCHS, st.integers(0, 2**64 - 1))
def test_a_cursor_reads_back_as_written(epoch, g):
    assert parse_cursor(str(Cursor(epoch, g))) == (epoch, g)


def test_a_cursor_is_epoch_colon_g():
    assert str(Cursor("5f3a", 105)) == "5f3a:105"
    assert parse_cursor("5f3a:105") == Cursor("5f3a", 105)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "a:", ":1", "a", "a:b", "a:-1", "a:+1", "a:01", "a:1 ", " a:1", "a:1\n", "a:1:2", "a b:1",
        "a-b:1", "ä:1", "a:１", "a:1.0", "a:1e3", "a:18446744073709551616", "a:" + "9" * 21, "a" * 33 + ":1",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="not a cursor"):
        parse_cursor(text)


def test_the_error_quotes_only_the_start_of_a_long_text():
    with pytest.raises(ValueError) as caught:
        parse_cursor("x" * 10_000)
    assert len(str(caught.value)) < 100


@given(st.text(max_size=40))
def test_any_text_is_a_cursor_or_a_value_error(text):
    try:
        cursor = parse_cursor(text)
    except ValueError:
        return
    assert str(cursor) == text
