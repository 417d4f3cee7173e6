"""Foreign text in output: no control sequences, and no loss of content."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.printable import one_line, printable, printable_json

ACTED_ON = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, format (bidi), surrogates, line separators


@given(st.text())
def test_nothing_is_left_that_a_terminal_acts_on(text):
    assert not {unicodedata.category(char) for char in printable(text)} & ACTED_ON


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=100))
def test_ordinary_text_stays_as_it_is(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b31m", "\\x9b31m"),  # C1: the same in one byte
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("two\nlines\r\tof it", "two\\nlines\\r\\tof it"),
        ("\udcff", "\\udcff"),  # a byte that is not UTF-8, as Python reads it
        ("[red]BTC-USD é 漢 5 µs[/]", "[red]BTC-USD é 漢 5 µs[/]"),
        (5, "5"),
    ],
)
def test_what_is_escaped_can_still_be_read(text, shown):
    assert printable(text) == shown


def test_a_long_text_is_cut():
    assert printable("x" * 10_000) == "x" * 499 + "…"
    assert printable("x" * 10_000, most=8) == "xxxxxxx…"
    assert printable("\x1b" * 3, most=3) == "\\x1b\\x1b\\x1b"


@given(st.recursive(st.text() | st.integers() | st.none(), lambda some: st.dictionaries(st.text(), some)))
def test_json_stays_equal_and_has_nothing_that_a_terminal_acts_on(value):
    shown = printable_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(shown) == value
    assert shown.isprintable()


def test_json_escapes_what_is_beyond_16_bits_in_pairs_and_keeps_line_feeds():
    assert (
        printable_json('{\n"a": "\U000e0001\x9b\u202eé\x7f"}')
        == '{\n"a": "\\udb40\\udc01\\u009b\\u202eé\\u007f"}'
    )


def test_texts_of_people_are_one_line():
    assert one_line("  a\tb\r\n\u2028c\u2029 \x85 d ") == "a b c d"
    assert one_line("Ünïcode, 日本語, 👩‍🚀") == "Ünïcode, 日本語, 👩‍🚀"
    assert one_line(" \n ") == ""


@pytest.mark.parametrize(
    "char", ["\0", "\x07", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\u200f", "\u061c"]
)
def test_control_characters_and_what_reverses_text_are_refused(char):
    with pytest.raises(ValueError, match="control characters such as"):
        one_line(f"a{char}b")
