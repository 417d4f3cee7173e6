"""``watch``: what it shows of each message, and when it comes back to the engine or gives up."""

from __future__ import annotations

import json

import pytest
import trio
from rich.console import Console

from marketfeed.cli import board
from marketfeed.cli.board import Board, Rate
from marketfeed.cli.session_view import Watch
from marketfeed.client import for_commands
from marketfeed.client.address import endpoint
from marketfeed.errors import CLOSE_TEXT
from tests.support.scripts import ID, Script, as_received

AT_S = 1_700_000_000.0


def quote(bid=10.0, ask=10.5, bid_size=100.0, ask_size=200.0, **more):
    sides = {"bp": bid, "bs": bid_size, "ap": ask, "as": ask_size}
    return {"T": "q", "S": "A", **sides, "t": 0, "r": int(AT_S * 1e6) + 250_000, "n": 7, "g": 9, **more}


def trade(**more):
    r = int(AT_S * 1e6) + 250_000
    return {
        "T": "t",
        "S": "A",
        "p": 10.25,
        "s": 3.0,
        "d": "b",
        "i": 1,
        "t": 0,
        "r": r,
        "n": 2,
        "g": 10,
        **more,
    }


LIVE = {
    "T": "subscription",
    "quotes": ["A"],
    "trades": ["A"],
    "alerts": [],
    "tier": "vip",
    "encoding": "json",
    "id": ID,
}


def board_of(*messages):
    board = Board()
    for message in messages:
        board.fold(as_received(message), AT_S)
    return board


def line_of(message):
    return board.line_of(as_received(message))


def notice_of(message):
    return board.notice_of(as_received(message))


# Folding.


def test_a_quote_fills_its_row():
    row = board_of(quote()).rows["A"]
    assert (row.bid, row.bid_size, row.ask, row.ask_size) == (10.0, 100.0, 10.5, 200.0)
    assert row.direction == 0


def test_a_missing_side_is_shown_as_nothing_and_no_middle_is_made_of_it():
    missing = quote(bid=None, bid_size=0.0, ask=5.0)
    row = board_of(quote(), missing).rows["A"]
    assert (row.bid, row.ask, row.direction) == (None, 5.0, 0)
    row = board_of(quote(), missing, quote(bid=20.0, ask=20.5)).rows["A"]
    assert row.direction == 0
    line = line_of(missing)
    assert line is not None
    assert line.split("A", 1)[1].split()[0] == "-"


def test_a_side_without_size_is_missing():
    row = board_of(quote(), quote(bid_size=0.0)).rows["A"]
    assert row.bid is None
    assert row.ask == 10.5


def test_a_missing_side_is_none_whether_its_price_is_null_or_0():
    for missing in (None, 0.0):
        row = board_of(quote(), quote(bid=missing, bid_size=0.0), quote(ask=missing, ask_size=0.0)).rows["A"]
        assert (row.bid, row.ask, row.direction) == (10.0, None, 0)  # without a middle no direction of it
        line = line_of(quote(ask=missing, ask_size=0.0))
    assert line is not None
    assert line.endswith("100 x 10.0  - n=7")


def test_prices_at_and_below_zero_are_prices():
    row = board_of(quote(bid=-37.63, ask=0.0)).rows["A"]
    assert (row.bid, row.ask) == (-37.63, 0.0)
    assert "100 x -37.63  0.0 x 200" in (line_of(quote(bid=-37.63, ask=0.0)) or "")


def test_a_symbol_has_as_many_decimals_as_any_of_its_numbers_needed():
    row = board_of(quote(bid=10.5, ask=11.0), trade(p=10.125, s=0.00012), quote(bid=10.0)).rows["A"]
    assert (row.decimals, row.size_decimals) == (3, 5)


@pytest.mark.parametrize(("bids", "direction"), [((10, 11), 1), ((10, 9), -1), ((10, 11, 11), 1)])
def test_the_direction_is_that_of_the_last_change(bids, direction):
    assert board_of(*(quote(bid=bid) for bid in bids)).rows["A"].direction == direction


def test_a_trade_keeps_the_quote():
    row = board_of(quote(), trade()).rows["A"]
    assert (row.bid, row.last, row.last_size, row.side) == (10.0, 10.25, 3.0, "b")


def test_a_subscription_says_the_tier_and_that_it_is_live():
    shown = board_of({**LIVE, "tier": "basic"})
    assert (shown.tier, shown.status) == ("basic", "live")


@pytest.mark.parametrize(
    "message",
    [{"T": "heartbeat", "t": 1}, {"T": "synced", "cursor": "e1:1"}, {"T": "success", "msg": "connected"}],
)
def test_everyday_messages_are_no_notice(message):
    shown = board_of(message)
    assert not shown.notices
    assert not shown.rows


def test_only_the_newest_notices_are_kept():
    shown = board_of(*({"T": "error", "code": code, "msg": "m"} for code in range(400, 410)))
    assert list(shown.notices) == ["error 407: m", "error 408: m", "error 409: m"]


def test_snapshots_do_not_count_as_rate():
    shown = board_of(quote(snap=1), quote())
    assert shown.rate.per_s(AT_S + 1) == 1.0


def test_the_rate_is_over_the_last_seconds_however_many_ticks():
    rate = Rate()
    for tick in range(50_000):
        rate.add(AT_S + tick / 5_000)  # ten seconds
    assert rate.per_s(AT_S + 10) == 5_000
    assert rate.per_s(AT_S + 100) == 0


def test_a_first_tick_is_one_a_second():
    rate = Rate()
    assert rate.per_s(AT_S) == 0
    rate.add(AT_S)
    assert rate.per_s(AT_S + 0.001) == 1


# Showing.


def test_lines_say_time_prices_and_number():
    assert line_of(quote()) == "22:13:20.250000 quote A 100 x 10.0  10.5 x 200 n=7"
    assert line_of(quote(ask_size=0.0)) == "22:13:20.250000 quote A 100 x 10.0  - n=7"
    assert line_of(trade()) == "22:13:20.250000 trade A 3 @ 10.25 b n=2"
    assert line_of({"T": "heartbeat", "t": 1}) is None


@pytest.mark.parametrize(
    ("message", "notice"),
    [
        (
            {"T": "gap", "S": "A", "channel": "quotes", "lost": 37, "n": 54},
            "A: 37 quotes were lost, next is n=54",
        ),
        (
            {"T": "lag", "on": True},
            "this connection fell behind: only the latest quote of each symbol until it catches up",
        ),
        ({"T": "lag", "on": False, "conflated": 8}, "caught up: 8 older quotes were left out"),
        ({"T": "lag", "on": False, "conflated": 1}, "caught up: 1 older quote was left out"),
        (
            {"T": "gap", "S": "A", "channel": "trades", "lost": 1, "n": 2},
            "A: 1 trade was lost, next is n=2",
        ),
        ({"T": "closing", "code": 1001, "msg": "bye"}, "closing 1001: bye"),
    ],
)
def test_notices_are_sentences(message, notice):
    assert notice_of(message) == notice
    assert list(board_of(message).notices) == [notice]


# The connection, with a server that plays one script for each connection.


def text_of(*messages):
    return json.dumps(messages)


@pytest.fixture
async def serve(nursery, monkeypatch):
    """Start a server of scripts, to which clients come back at once."""
    monkeypatch.setattr(for_commands, "RETRY_S", (0.0, 0.0))

    async def start(*scripts, **more):
        return await Script(scripts, **more).start(nursery)

    return start


async def watch(played, token=None, console=None, tier=None, names=("A",)):
    return await Watch(endpoint(played.url), list(names), tier, token, console).run()


ASKED = {"action": "subscribe", "quotes": ["A"], "trades": ["A"], "encoding": "json"}
SYNCED = {"T": "synced", "cursor": "e1:9", "id": ID}


async def test_it_comes_back_after_a_close_that_permits_it_and_not_after_one_that_does_not(serve, capsys):
    played = await serve(("?", [LIVE], [quote()], 4001), ("?", [LIVE], [quote(n=8, g=10)], 4503))
    assert await watch(played, tier="vip", names=("A", "B*")) == 1
    assert played.requests == [{**ASKED, "quotes": ["A", "B*"], "trades": ["A", "B*"], "tier": "vip"}] * 2
    shown = capsys.readouterr()
    assert [line.split()[-1] for line in shown.out.splitlines()] == ["n=7", "n=8"]
    assert shown.err.splitlines() == [
        "marketfeed watch: closed 4001 (so), reconnecting",
        "marketfeed watch: closed 4503: so",
    ]


async def test_after_a_cut_it_shows_what_came_meanwhile_and_says_what_is_missing(serve, capsys):
    resumed = {**LIVE, "resumed": False, "reset": ["A"]}
    played = await serve(
        ("?", [LIVE], [quote(n=7, g=9, snap=1)], [SYNCED], 4001),
        ("?", [{**LIVE, "resumed": True, "reset": []}], [quote(n=8, g=10)], [SYNCED], 4001),
        ("?", [resumed], [quote(n=20, g=30, snap=1)], 4500),
    )
    assert await watch(played) == 1
    assert [asked.get("after") for asked in played.requests] == [None, "e1:9", "e1:9"]
    shown = capsys.readouterr()
    assert [line.split()[-1] for line in shown.out.splitlines()] == ["n=7", "n=8", "n=20"]
    assert "marketfeed watch: ticks of 1 symbol are missing since the connection was lost" in shown.err


async def test_it_waits_as_long_as_the_engine_asks(serve, autojump_clock, capsys):
    closing = {"T": "closing", "code": 1001, "msg": "bye", "retry_ms": 2000}
    played = await serve(("?", [LIVE], [closing], 1001), (4500,))
    before_s = trio.current_time()
    assert await watch(played) == 1
    assert trio.current_time() - before_s >= 2
    assert capsys.readouterr().err.splitlines() == [
        "marketfeed watch: closing 1001: bye, reconnecting",  # and not once more at the close itself
        "marketfeed watch: closed 4500: so",
    ]


async def test_a_close_that_another_one_was_announced_for_is_told(serve, capsys):
    closing = {"T": "closing", "code": 1001, "msg": "bye", "retry_ms": 0}
    played = await serve(([closing], 4001), ("?", [LIVE], [quote()], 4001), (4500,))
    assert await watch(played) == 1
    assert capsys.readouterr().err.splitlines() == [
        "marketfeed watch: closing 1001: bye, reconnecting",
        "marketfeed watch: closed 4001 (so), reconnecting",
        "marketfeed watch: closed 4001 (so), reconnecting",
        "marketfeed watch: closed 4500: so",
    ]


async def test_a_refused_request_ends_it(serve, capsys):
    played = await serve(("?", [{"T": "error", "code": 409, "msg": "not entitled", "id": ID}], 1000))
    assert await watch(played) == 1
    assert capsys.readouterr().err == "marketfeed watch: error 409: not entitled\n"


async def test_an_engine_that_asks_for_a_token_is_told_apart(serve, capsys):
    played = await serve(("?", [{"T": "error", "code": 401, "msg": "auth first", "id": ID}], 4501))
    assert await watch(played) == 1
    told = "marketfeed watch: this engine asks for a key or token: MARKETFEED_TOKEN or --token\n"
    assert capsys.readouterr().err == told


async def test_a_temporary_error_is_told_and_tried_again(serve, autojump_clock, capsys):
    temporary = {"T": "error", "code": 500, "msg": "no keys yet", "id": ID}
    played = await serve(("?", [temporary], "?", [temporary], 1011), (4501,))
    assert await watch(played, "token") == 1
    assert capsys.readouterr().err.splitlines() == [
        "marketfeed watch: error 500: no keys yet",
        "marketfeed watch: error 500: no keys yet",
        "marketfeed watch: closed 1011 (so), reconnecting",
        "marketfeed watch: closed 4501: so",
    ]


async def test_a_token_is_sent_first(serve):
    played = await serve(("?", 4501))
    assert await watch(played, "secret") == 1
    assert played.requests == [{"action": "auth", "token": "secret"}]


async def test_what_is_no_marketfeed_is_said_so(serve, capsys):
    played = await serve(("hello", 1000))
    assert await watch(played) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not speak marketfeed's protocol" in line


async def test_a_terminal_gets_a_table(serve):
    played = await serve(("?", [LIVE], [quote(), trade()], 4503))
    console = Console(force_terminal=True, width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    assert await watch(played, console=console) == 1
    console.file.close()
    assert "bid size" in console.export_text()


ESCAPES = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e"


@pytest.mark.parametrize(
    "message",
    [
        quote(S="A" + ESCAPES),
        trade(d=ESCAPES),
        trade(S="[red]A[/]", d=ESCAPES),
        {**LIVE, "tier": ESCAPES},
        {"T": "error", "code": ESCAPES, "msg": ESCAPES},
        {"T": "error", "code": 1, "msg": ESCAPES},
        {"T": "error", "code": 1, "msg": ESCAPES, "id": 1},
        {"T": "closing", "code": 1001, "msg": ESCAPES, "retry_ms": 1},
        {"T": "gap", "S": ESCAPES, "channel": "quotes", "lost": 1, "n": 2},
        {"T": "lag", "on": False, "conflated": ESCAPES},
    ],
)
@pytest.mark.parametrize("terminal", [False, True])
async def test_nothing_that_a_server_sends_reaches_the_terminal_as_control(serve, capsys, message, terminal):
    played = await serve(("?", [LIVE], [message], [quote()], 4500), (4500,))
    console = Console(force_terminal=terminal, width=200, color_system=None) if terminal else None
    assert await watch(played, console=console) == 1
    shown = "".join(capsys.readouterr())
    assert not any(sequence in shown for sequence in ("\x1b]0", "\x1b[31m", "\x9b", "\x07", "\u202e"))
    if "[red]" in message.get("S", "") and not terminal:
        assert "[red]A[/]" in shown


@pytest.mark.parametrize(
    "frame",
    [
        "1", "[1]", '[{"T":"q"}]', '[{"S":"A"}]', '[{"T":"q","S":[],"r":1}]', text_of(quote(bid="x")),
        text_of({**LIVE, "tier": 1}), text_of(quote(r="x")), text_of(quote(r=1e300)), text_of(trade(p={})),
        text_of({"T": "closing", "retry_ms": "soon"}), text_of({"T": "gap"}), text_of({"T": ["q"]}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("terminal", [False, True])
async def test_messages_that_are_none_of_the_protocol_end_it_in_a_line_or_are_passed_over(
    serve, capsys, frame, terminal
):
    played = await serve((frame, 4500), (4500,))
    console = Console(force_terminal=terminal, width=200, color_system=None) if terminal else None
    assert await watch(played, console=console) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("marketfeed watch: ")


def test_no_close_text_names_a_field_that_a_person_does_not_see():
    assert not [text for text in CLOSE_TEXT.values() if "retry_ms" in text]
