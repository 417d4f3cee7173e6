"""Keys of ``watch``: what each does to the picture, at every width."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from marketfeed.cli.board import Board
from marketfeed.cli.orders import ORDERS
from marketfeed.cli.screen import picture
from marketfeed.cli.view import HELP, View
from tests.support.scripts import as_received

AT_S = 1_700_000_000.0
KEYS = [
    *"/sSrtT ?qkjbfgGx*", "up", "down", "page up", "page down", "home", "end", "escape", "enter", "backspace",
]  # fmt: skip


def quote(name, bid, ask, age_s=0.0):
    sides = {"bp": bid, "bs": 0.0 if bid is None else 1.0, "ap": ask, "as": 0.0 if ask is None else 1.0}
    return {"T": "q", "S": name, **sides, "t": 0, "r": int((AT_S - age_s) * 1e6), "n": 1, "g": 1}


def market():
    """Return a board of A (quiet, wide), B (busy), C (fell) and D, which has no bid."""
    board = Board()
    board.fold(as_received(quote("A", 100.0, 110.0, 60)), AT_S)
    board.fold(as_received(quote("C", 200.0, 201.0)), AT_S)
    board.fold(as_received(quote("C", 100.0, 101.0, 5)), AT_S)
    board.fold(as_received(quote("D", None, 1.0, 30)), AT_S)
    for _ in range(10):
        board.fold(as_received(quote("B", 50.0, 51.0, 1)), AT_S)
    return board


def drawn(board, view, width=120, height=10, now_s=AT_S):
    text = picture(board, view, "ws://x", now_s, (width, height), True).plain
    lines = text.split("\n")
    assert len(lines) == height
    assert all(cell_len(line) <= width for line in lines)
    return [line.rstrip() for line in lines]


def pressed(*keys):
    view = View()
    for key in keys:
        view.press(key)
    return view


def names(board, view, **more):
    return [line.split()[0] for line in drawn(board, view, **more)[2:-1] if line]


@pytest.mark.parametrize(
    ("keys", "order", "said"),
    [
        ((), "ABCD", ""),
        (("r",), "DCBA", " by symbol, reversed"),
        (("s",), "BCAD", " by activity"),
        (("s", "s"), "CABD", " by move"),
        (("s", "s", "s"), "ABCD", " by spread"),
        (("s", "s", "s", "r"), "CBAD", " by spread, reversed"),
        (("S",), "ADCB", " by age"),
        (("S", "r"), "BCDA", " by age, reversed"),
        (("s",) * 5, "ABCD", ""),
    ],
)
def test_the_order_is_that_of_the_keys_and_the_bottom_line_names_it(keys, order, said):
    view = pressed(*keys)
    assert names(market(), view) == list(order)
    assert drawn(market(), view)[-1].startswith(f"symbols 1 to 4 of 4{said} · ")


def test_what_the_symbols_are_ordered_by_is_shown():
    lines = drawn(market(), pressed("s", "s"))
    assert lines[1].split()[:2] == ["symbol", "move"]
    assert [line.split()[:2] for line in lines[2:6]] == [
        ["C", "-49.875"],
        ["A", "+0.000"],
        ["B", "+0.000"],
        ["D", "·"],
    ]
    lines = drawn(market(), pressed("s", "s", "s"), width=30)
    assert [line.split()[:2] for line in lines[2:6]] == [
        ["A", "952.38"],
        ["B", "198.02"],
        ["C", "99.50"],
        ["D", "·"],
    ]


def test_a_filter_is_typed_below_and_holds_until_escape():
    view = pressed("/")
    assert drawn(market(), view)[-1] == "filter: ▏  Enter: keep · Esc: clear"
    view.press("b")
    assert names(market(), view) == ["B"]
    assert drawn(market(), view)[-1].startswith("filter: b▏")
    view.press("enter")
    assert drawn(market(), view)[-1].startswith("symbols 1 to 1 of 1 with b · /: filter")
    view.press("escape")
    assert names(market(), view) == ["A", "B", "C", "D"]


def test_keys_are_text_while_a_filter_is_typed_and_scroll_keys_are_not():
    view = pressed("/", *"qst ?/", "page down", "up")
    assert (view.filter, view.quit, view.tier_steps, view.paused, view.help) == (
        "qst ?/",
        False,
        0,
        False,
        False,
    )
    assert drawn(market(), view)[-1].startswith("filter: qst ?/▏")
    for _ in range(6):
        view.press("backspace")
    assert view.typing
    view.press("backspace")  # of nothing: done
    assert (view.typing, view.filter) == (False, "")
    view = pressed("/", *"b" * 100, "escape")
    assert (view.typing, view.filter) == (False, "")


def test_a_filter_that_matches_nothing_says_so():
    assert drawn(market(), pressed("/", "x", "enter"))[-1].startswith("none of 4 symbols with x · ")
    assert drawn(Board(), pressed("/", "x", "enter"))[-1].startswith("no symbols yet · ")


def test_a_pause_freezes_the_picture_and_says_how_long_and_the_data_goes_on():
    board, view = market(), pressed(" ")
    board.status, board.tier = "live", "vip"
    before = drawn(board, view)
    assert before[0].startswith("paused 0 ms · live · vip · ")
    board.fold(as_received(quote("A", 7.0, 8.0)), AT_S + 4)
    board.fold(as_received(quote("E", 7.0, 8.0)), AT_S + 4)
    board.status = "connection lost, reconnecting"
    frozen = drawn(board, view, now_s=AT_S + 12)
    assert frozen[1:] == before[1:]
    assert frozen[0].startswith("paused 12.0 s · connection lost, reconnecting · vip · ")
    view.press("s")  # a paused picture can be ordered, filtered and scrolled
    assert names(board, view, now_s=AT_S + 12) == ["B", "C", "A", "D"]
    view.press(" ")
    assert drawn(board, view, now_s=AT_S + 12)[0].startswith("connection lost")
    assert "E" in names(board, view)
    view.press(" ")
    assert drawn(board, view, now_s=AT_S + 20)[0].startswith("paused 0 ms")
    assert "E" in names(board, view)


def test_help_shows_every_key_and_any_key_goes_back():
    view = pressed("?")
    lines = drawn(market(), view, height=24)
    assert lines[1] == "keys"
    assert [line.split()[0] for line in lines[2 : 2 + len(HELP)]] == [key.split()[0] for key, _ in HELP]
    assert lines[-1] == "any key: back · q: quit"
    view.press("s")
    assert (view.help, view.order) == (False, ORDERS[0])
    view = pressed("?", "q")
    assert view.quit


def test_every_key_of_the_help_does_something():
    names_of = {"↑": "up", "↓": "down", "PgUp": "page up", "PgDn": "page down", "Home": "home", "End": "end"}
    words = [word for key, _ in HELP for word in key.split()]
    keys = [" " if word == "space" else names_of.get(word, word) for word in words if word != "Ctrl-C"]
    board = Board()
    for number in range(50):
        board.fold(as_received(quote(f"S{number:02}", 1.0, 2.0)), AT_S)
    for key in keys:
        view = View()
        drawn(board, view)
        view.press("G")
        drawn(board, view)
        if key in ("down", "j", "page down", "f", "end", "G"):
            view.press("g")
        before = (drawn(board, view), view.tier_steps, view.quit)
        view.press(key)
        assert (drawn(board, view), view.tier_steps, view.quit) != before, key


def test_tier_keys_count_the_steps():
    assert pressed("t", "t", "T").tier_steps == 1
    assert pressed("T").tier_steps == -1


@pytest.mark.parametrize("width", range(1, 130))
def test_hints_are_left_out_one_by_one_and_never_cut(width):
    whole = ["symbols 1 to 4 of 4", "/: filter", "s: sort", "t: tier", "space: pause", "?: keys", "q: quit"]
    parts = drawn(market(), View(), width=width)[-1].split(" · ")
    if width >= len(whole[0]):
        assert parts == [part for part in whole if part in parts]
    if width >= 40:
        assert "?: keys" in parts
        assert "q: quit" in parts


@given(st.lists(st.sampled_from(KEYS), max_size=30), st.integers(1, 130), st.integers(1, 30), st.booleans())
def test_whatever_the_keys_the_picture_fits(keys, width, height, more):
    view, board = View(), market()
    for step, key in enumerate(keys):
        view.press(key)
        if more:
            board.fold(as_received(quote(f"N{step}", 1.0, 2.0)), AT_S + step)
        drawn(board, view, width, height, AT_S + step)
