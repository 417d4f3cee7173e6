"""The picture of ``watch``: decimals in line, whole columns or none, the symbols that keys choose."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from marketfeed.cli.board import Board
from marketfeed.cli.keyboard import keys_of
from marketfeed.cli.screen import COLUMNS, age_of, number_of, picture
from marketfeed.cli.view import View
from tests.support.scripts import as_received

AT_S = 1_700_000_000.0


def quote(name, bid, ask, size=100.0):
    message = {"T": "q", "S": name, "bp": bid, "bs": 0.0 if bid is None else size, "ap": ask, "as": size}
    return message | {"t": 0, "r": int(AT_S * 1e6), "n": 7, "g": 7}


def trade(name, price, size=1.0):
    return {
        "T": "t",
        "S": name,
        "p": price,
        "s": size,
        "d": "b",
        "i": 0,
        "t": 0,
        "r": int(AT_S * 1e6),
        "n": 2,
        "g": 9,
    }


def board_of(*messages):
    board = Board()
    for message in messages:
        board.fold(as_received(message), AT_S)
    return board


def drawn(board, width=100, height=24, view=None, keys=True, now_s=AT_S + 1):
    text = picture(board, view or View(), "ws://x", now_s, (width, height), keys).plain
    lines = text.split("\n")
    assert len(lines) == height
    assert all(cell_len(line) <= width for line in lines)
    return [line.rstrip() for line in lines]


BOOK = board_of(
    quote("BTC-USD", 64211.5, 64212.0, 0.25),
    quote("EURUSD", 1.08345, 1.0835, 1_000_000.0),
    quote("OIL", -37.63, None),
    quote("JPY", 157, 158),
    trade("EURUSD", 1.083475),
    trade("BTC-USD", 64211.25, 0.00012),
)


def test_decimal_points_lie_below_each_other_and_zeros_are_kept():
    assert [line[:85].rstrip() for line in drawn(BOOK, width=130, height=8)[1:6]] == [
        "symbol          bid size           bid           ask         ask size          last",
        "BTC-USD          0.25000  64211.50      64212.00              0.25000  64211.25",
        "EURUSD   1,000,000            1.083450      1.083500  1,000,000            1.083475",
        "JPY            100          157           158               100                   ·",
        "OIL            100          -37.63                 ·                ·             ·",
    ]


def test_what_is_missing_is_one_sign_at_the_right_edge_of_its_column_and_no_minus():
    lines = drawn(BOOK, width=130)[1:6]
    (oil,) = [line for line in lines if line.startswith("OIL")]
    assert oil.split()[:4] == ["OIL", "100", "-37.63", "·"]
    for title in ("ask", "ask size", "last", "size"):
        edge = lines[0].rindex(f" {title}  ") + len(title)
        assert oil[edge] == "·"


def test_sizes_have_their_thousands_apart_and_prices_are_as_they_are():
    board = board_of(quote("A", 12345.5, -12345.5, 1234567.25), trade("A", 1e6, 98765.0))
    (line,) = [line for line in drawn(board, width=130) if line.startswith("A")]
    assert line.split()[:7] == [
        "A",
        "1,234,567.25",
        "12345.5",
        "-12345.5",
        "1,234,567.25",
        "1000000.0",
        "98,765.00",
    ]


def test_the_sample_in_the_docs_is_what_is_drawn():
    page = Path(__file__).parents[2] / "docs" / "getting-started.md"
    sample = page.read_text("utf-8").partition("    live · ")[2].splitlines()
    titles, *rows = [line[4:] for line in sample[1:] if line[4:].startswith("SY") or "bid size" in line]
    board = Board()
    for row in rows:
        name, *cells, _rate, _age, _unit = row.split()
        bid_size, bid, ask, ask_size, last, size = (float(cell.replace(",", "")) for cell in cells)
        board.fold(as_received(quote(name, bid, ask, bid_size) | {"as": ask_size}), AT_S)
        board.fold(as_received(trade(name, last, size)), AT_S)
    end = titles.index("  rate/s")
    assert [line[:end] for line in drawn(board)[1 : len(rows) + 2]] == [
        line[:end] for line in (titles, *rows)
    ]


TITLES = [column.title for column in COLUMNS]


@pytest.mark.parametrize("width", range(1, 131))
def test_a_narrow_terminal_has_fewer_columns_and_no_number_is_cut(width):
    wide, narrow = drawn(BOOK, width=130), drawn(BOOK, width=width)
    numbers = {cell for line in wide[2:6] for cell in line.split()}
    for line in narrow[2:6]:
        name, *cells = line.split()
        assert name in numbers or name.endswith("…")
        assert all(cell in numbers for cell in cells)


def test_columns_go_in_the_order_of_what_matters_least():
    left = []
    for width in range(130, 10, -1):
        header = drawn(BOOK, width=width)[1]
        gone = [
            title
            for title in TITLES
            if f" {title}" not in header.replace("bid size", "").replace("ask size", "")
        ]
        for title in [title for title in gone if title not in ("bid size", "ask size")]:
            if title not in left:
                left.append(title)
    assert left == ["size", "rate/s", "age", "last", "ask", "bid"]


def test_keys_move_the_part_of_the_symbols_that_is_shown():
    board = board_of(*(quote(f"S{i:02}", 1.0, 2.0) for i in range(30)))
    view = View()

    def shown(*keys):
        for key in keys:
            view.press(key)
        lines = drawn(board, height=13, view=view)
        return lines[2].split()[0], lines[11].split()[0], lines[12]

    keys = "/: filter · s: sort · t: tier · space: pause · ?: keys · q: quit"
    assert shown() == ("S00", "S09", f"symbols 1 to 10 of 30 · {keys}")
    assert shown("down", "j")[:2] == ("S02", "S11")
    assert shown("up")[:2] == ("S01", "S10")
    assert shown("page down")[:2] == ("S11", "S20")
    assert shown("f", "page down", "j")[:2] == ("S20", "S29")  # no further than the last
    assert shown("k", "page up")[:2] == ("S09", "S18")
    assert shown("home")[:2] == ("S00", "S09")
    assert shown("up")[:2] == ("S00", "S09")
    assert shown("end")[:2] == ("S20", "S29")
    assert not view.quit
    view.press("q")
    assert view.quit


def test_without_a_keyboard_no_keys_are_told():
    assert drawn(BOOK, keys=False)[-1] == "symbols 1 to 4 of 4"
    assert drawn(Board(), keys=False)[-1] == "no symbols yet"
    assert drawn(BOOK, width=28)[-1] == "symbols 1 to 4 of 4"


def test_names_that_are_unknown_and_notices_are_told_below():
    board = board_of(quote("A", 1.0, 2.0))
    board.unknown = {f"N{i}": "nope" for i in range(5)}
    board.fold(as_received({"T": "error", "code": 405, "msg": "too many\x1b[2J"}), AT_S)
    assert drawn(board)[-5:-1] == [
        "N0: nope",
        "N1: nope",
        "and 3 more names that match no symbol",
        "error 405: too many\\x1b[2J",
    ]
    board.fold(as_received(quote("N0", 1.0, 2.0)), AT_S)
    assert "N0" not in board.unknown
    assert drawn(board, height=5)[2].split()[0] == "A"  # a row at least


@pytest.mark.parametrize("name", ["[red]A[/]", "A\x1b[31m"])
def test_names_are_shown_as_they_are(name):
    line = drawn(board_of(quote(name, 1.0, 2.0)))[2]
    assert line.startswith(name.replace("\x1b", "\\x1b"))


@given(
    st.lists(
        st.tuples(st.floats(-1e300, 1e300), st.none() | st.floats(-1e300, 1e300), st.floats(0, 1e300)),
        max_size=5,
    ),
    st.integers(1, 150),
    st.integers(1, 30),
)
def test_whatever_the_numbers_the_picture_fits(sides, width, height):
    drawn(board_of(*(quote(f"S{i}", *side) for i, side in enumerate(sides))), width=width, height=height)


@pytest.mark.parametrize(
    ("value", "decimals", "shown"),
    [
        (10.0, 2, "10.00"),
        (0.1, 8, "0.10000000"),
        (1e-9, 9, "0.000000001"),
        (1e20, 0, "1.000000e+20"),
        (5, 0, "5"),
    ],
)
def test_a_number_has_exactly_its_decimals(value, decimals, shown):
    assert number_of(value, decimals) == shown
    assert number_of(value, decimals, thousands=True).replace(",", "") == shown


@pytest.mark.parametrize(
    ("seconds", "age"), [(0.25, "250 ms"), (2, "2.0 s"), (600, "10 min"), (-0.25, "0 ms")]
)
def test_ages(seconds, age):
    assert age_of(seconds) == age


def test_keys_of_a_terminal():
    sent = "\x1b[A\x1b[B\x1bOA\x1bOB\x1b[5~\x1b[6~\x1b[H\x1b[4~jkq\x1b[1;5C\x1b[24~\x1b[<0;1;2M\x1bxG"
    assert keys_of(sent) == [
        "up", "down", "up", "down", "page up", "page down", "home", "end", "j", "k", "q", "G",
    ]  # fmt: skip
    assert keys_of("\r\n\x7f\b\x1b\x1b") == [
        "enter", "enter", "backspace", "backspace", "escape", "escape",
    ]  # fmt: skip
