"""The core of the client: ends of connections and feeds, tokens, silence, and input that no engine sends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from marketfeed.client import messages
from marketfeed.client.dialogue import Answered
from marketfeed.core.binary import HEADER, quotes_frame, symbols_frame
from marketfeed.core.records import QUOTE
from marketfeed.errors import ConnectError, RefusedError
from tests.support.wire import NOW_NS, Wire, quote

HOUR_NS = 3_600_000_000_000


# Ends.


@pytest.mark.parametrize("code", [4500, 4501, 4502, 4503, 4999])
def test_codes_from_4500_on_end_the_feed(code):
    wire = Wire().live()
    wire.give(CloseConnection(code, "no"))
    assert isinstance(wire.core.finished, RefusedError)
    assert wire.core.finished.code == code
    assert wire.core.deadline_s == float("inf")


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1011, 4002, 4003, 4499])
def test_after_other_codes_it_reconnects(code):
    wire = Wire().live()
    wire.give(CloseConnection(code, "so"))
    assert wire.core.finished is None
    assert wire.core.state.name == "disconnected"
    assert (wire.core.state.code, wire.core.state.reason) == (code, "so")
    assert wire.got[-1] == messages.Disconnected(code, "so", 1000)


def test_delays_double_from_1_to_30_s_and_begin_anew_after_a_connection():
    wire = Wire().live()
    delays = []
    for _ in range(7):
        wire.take(wire.core.lost("gone", wire.now))
        delays.append(wire.core.deadline_s - wire.s)
        wire.s = wire.core.deadline_s
        wire.core.attempt(wire.now)
    assert delays == [1, 2, 4, 8, 16, 30, 30]
    wire.open().hello()
    wire.take(wire.core.lost("gone", wire.now))
    assert wire.core.deadline_s - wire.s == 1


@pytest.mark.parametrize(("asked_ms", "delay_s"), [(0, 0), (70_000, 70), (10**9, 600)])
def test_the_engines_delay_is_kept_up_to_ten_minutes(asked_ms, delay_s):
    wire = Wire().live()
    wire.say({"T": "closing", "code": 1001, "msg": "restart", "retry_ms": asked_ms})
    wire.give(CloseConnection(1001, "restart"))
    assert wire.core.deadline_s - wire.s == delay_s
    assert wire.got[-1] == messages.Disconnected(1001, "restart", delay_s * 1000, announced=True)


def test_without_wait_a_first_connection_that_fails_ends_the_feed():
    wire = Wire()
    wire.core.attempt(wire.now)
    wire.take(wire.core.lost("connection refused", wire.now))
    assert isinstance(wire.core.finished, ConnectError)
    waiting = Wire(wait=True)
    waiting.core.attempt(waiting.now)
    waiting.take(waiting.core.lost("connection refused", waiting.now))
    assert waiting.core.finished is None
    assert waiting.kinds() == ["Disconnected"]


# Silence.


def test_a_mute_connection_is_noticed_and_given_up():
    wire = Wire(ping_s=10.0, mute_s=5.0).live()
    wire.wait(10)
    assert wire.sent[-1]["action"] == "ping"
    assert wire.core.connected
    wire.wait(5)
    assert not wire.core.connected
    assert "mute" in wire.got[-1].reason


def test_any_byte_of_the_session_shows_that_it_is_not_mute():
    wire = Wire(ping_s=10.0, mute_s=5.0).live()
    for _ in range(20):
        wire.wait(4)
        wire.say({"T": "heartbeat", "t": 1})
    assert wire.core.connected


def test_while_the_caller_is_slow_silence_is_its_own():
    wire = Wire(ping_s=10.0, mute_s=5.0).live()
    wire.core.reading(False, wire.now)
    wire.wait(1000)
    assert wire.core.connected
    wire.core.reading(True, wire.now)
    wire.wait(15)
    assert not wire.core.connected


def test_an_engine_that_never_says_hello_is_given_up():
    wire = Wire(wait=True).connect()
    wire.wait(10)
    assert not wire.core.connected
    assert wire.got[-1].reason == "no answer within 10 s"


# Tokens.


def test_a_callback_that_raises_is_called_again_later():
    wire = Wire(renewable=True, wait=True).connect()
    for delay_s in (1, 2, 4):
        assert wire.core.wants_token
        wire.take(wire.core.token_failed("KeyError: no", wire.now))
        assert wire.core.finished is None
        assert wire.core.deadline_s - wire.s == delay_s
        wire.s = wire.core.deadline_s
        wire.core.attempt(wire.now)
    wire.take(wire.core.take_token("t1", wire.now))
    wire.open().hello()
    assert wire.sent == [{"action": "auth", "token": "t1", "id": wire.sent[0]["id"]}]


def test_a_callback_that_returns_none_ends_the_feed():
    wire = Wire(renewable=True, wait=True).connect()
    wire.take(wire.core.take_token(None, wire.now))
    assert isinstance(wire.core.finished, RefusedError)


def authenticated(ttl_s: int) -> Wire:
    wire = Wire(renewable=True, ping_s=1e9).connect()
    wire.take(wire.core.take_token("t1", wire.now))
    wire.open().hello()
    said = {"T": "success", "msg": "authenticated", "tier": "vip", "ttl_s": ttl_s, "id": wire.sent[-1]["id"]}
    wire.say(said)
    assert wire.core.state.name == "connected"
    return wire


def test_a_token_is_renewed_before_it_ends_over_the_same_connection():
    wire = authenticated(600)
    wire.wait(530)
    assert not wire.core.wants_token
    wire.wait(20)
    assert wire.core.wants_token
    wire.take(wire.core.token_failed("no", wire.now))  # again, a second later
    assert not wire.core.wants_token
    wire.wait(1)
    assert wire.core.wants_token
    wire.take(wire.core.take_token("t2", wire.now))
    wire.read()
    assert (wire.sent[-1]["action"], wire.sent[-1]["token"]) == ("auth", "t2")
    assert wire.core.connected


def test_after_4004_a_new_token_is_asked_for_and_a_fixed_one_is_spent():
    wire = authenticated(600)
    wire.give(CloseConnection(4004, "token expired"))
    assert wire.core.finished is None
    wire.s = wire.core.deadline_s
    wire.core.attempt(wire.now)
    assert wire.core.wants_token
    fixed = Wire().live()
    fixed.give(CloseConnection(4004, "token expired"))
    assert isinstance(fixed.core.finished, RefusedError)


# Input that no engine sends, or a later one.


def test_messages_and_keys_of_a_newer_protocol_are_passed_over():
    wire = Wire().live()
    news: dict[str, Any] = {"T": "depth", "S": "A", "levels": [[1, 2]]}
    wire.say(news, quote("A", 1, 11, colour="blue"), {"T": 7}, {"no": "type"}, quote("A", 2, 12))
    assert [message.n for message in wire.got if isinstance(message, messages.Quote)] == [1, 2]
    assert wire.core.statistics().unknown == 3
    assert wire.core.connected


def test_binary_frames_of_unknown_kinds_are_passed_over():
    wire = Wire(encoding="binary").live("binary")
    quotes = np_quotes(1, 2)
    unknown = HEADER.pack(1, 77, 0, 5, 0) + b"hello"
    wire.give(BytesMessage(unknown + symbols_frame({"A": 3}, 0) + unknown + quotes_frame(quotes, 0)))
    assert [message.n for message in wire.got if isinstance(message, messages.Quote)] == [1, 2]
    assert wire.core.statistics().unknown == 2


def np_quotes(*numbers: int) -> Any:
    import numpy as np

    quotes = np.zeros(len(numbers), QUOTE)
    quotes["symbol"], quotes["n"], quotes["g"] = 3, numbers, [10 + n for n in numbers]
    quotes["bid_sz"] = 1
    return quotes


@pytest.mark.parametrize("broken", [b"", b"\x01", b"[1]", b"\x02" * 16, HEADER.pack(1, 2, 0, 64, 0) + b"x"])
def test_binary_that_is_cut_off_or_of_another_version_ends_the_connection_alone(broken):
    wire = Wire(encoding="binary").live("binary")
    wire.give(BytesMessage(broken))
    assert wire.core.finished is None
    assert wire.core.connected is (broken == b"")


@pytest.mark.parametrize("text", ["", "{", '{"T":"q"}', "[" * 100_000, "null", '["\\ud800"]'])
def test_text_that_is_no_array_ends_the_connection_alone(text):
    wire = Wire().live()
    wire.give(TextMessage(text))
    assert wire.core.finished is None
    assert not wire.core.connected or text == '["\\ud800"]'


@pytest.mark.parametrize("symbol", ["", "a b", "a,b", "*", "A*", "x" * 25, "\x1b[31m", "\u202eevil", "a\nb"])
def test_a_symbol_that_cannot_be_one_does_not_reach_the_caller(symbol):
    wire = Wire().live()
    wire.say(quote(symbol, 1, 11))
    assert not [message for message in wire.got if isinstance(message, messages.Quote)]
    assert not wire.core.connected


@pytest.mark.parametrize(
    "symbol", ["<script>", "'--;DROP", "__proto__", "../../x", "%s%n", "$(rm)", "!#&()[]{}~"]
)
def test_every_allowed_symbol_is_only_a_name(symbol):
    wire = Wire().live()
    wire.say(quote(symbol, 1, 11))
    newest = wire.core.intake.newest.of(symbol, "quotes")
    assert newest is not None
    assert symbol == newest.S


def test_a_snapshot_of_5_mb_in_one_message():
    wire = Wire().live()
    ticks = [quote(f"S{i:05d}", 7, 5, snap=1) for i in range(45_000)]
    assert len(json.dumps(ticks)) > 5_000_000
    wire.say(*ticks)
    assert len([message for message in wire.got if isinstance(message, messages.Quote)]) == 45_000
    assert wire.core.connected


def test_a_clock_that_is_off_by_an_hour_makes_no_age_negative():
    for off_ns in (-HOUR_NS, HOUR_NS):
        wire = Wire(NOW_NS + off_ns).live()
        wire.say(quote("A", 1, 11), quote("A", 2, 12))
        statistics = wire.core.statistics()
        assert statistics.latency.max_ns >= 0
        assert (statistics.early, statistics.beyond) == ((2, 0) if off_ns < 0 else (0, 2))


def test_a_cursor_of_another_epoch_is_not_sent_and_told_as_a_reset():
    wire = Wire().live()
    wire.say(quote("A", 1, 11))
    wire.take(wire.core.lost("gone", wire.now))
    wire.s = wire.core.deadline_s
    wire.connect().hello("e2")
    assert "after" not in wire.sent[-1]
    answer = {"T": "subscription", "quotes": ["*"], "trades": [], "alerts": [], "tier": "vip"}
    wire.say(answer | {"encoding": "json", "id": wire.sent[-1]["id"]}, quote("A", 1, 1))
    assert wire.kinds()[-4:] == ["Connected", "Subscription", "Reset", "Quote"]
    assert wire.got[-2] == messages.Reset(("*",), "epoch", wire.sent[-1]["id"])


def test_a_cursor_that_the_engine_refuses_is_left_out_and_told():
    wire = Wire()
    wire.core.subscribe(wire.now, quotes=["A"], cursor="strange")
    wire.connect().hello()
    assert wire.sent[-1]["after"] == "strange"
    number = wire.sent[-1]["id"]
    wire.say({"T": "error", "code": 400, "msg": "after: not a cursor of this engine", "id": number})
    wire.wait(0)
    assert wire.sent[-1] == {"action": "subscribe", "id": number, "encoding": "json", "quotes": ["A"]}
    answer = {"T": "subscription", "quotes": ["A"], "trades": [], "alerts": [], "tier": "vip"}
    wire.say(answer | {"encoding": "json", "id": number})
    assert wire.got[-1] == messages.Reset(("A",), "cursor", number)
    assert wire.answers == [Answered(number)]


def test_ticks_that_a_broken_proxy_reorders_or_repeats_are_told_or_dropped():
    wire = Wire().live()
    wire.say(quote("A", 1, 11), quote("A", 4, 14), quote("A", 2, 12), quote("A", 4, 14), quote("A", 5, 15))
    ticks = [m for m in wire.got if isinstance(m, messages.Quote | messages.Gap)]
    assert [(type(m).__name__, m.n) for m in ticks] == [("Quote", 1), ("Gap", 4), ("Quote", 4), ("Quote", 5)]
    gap = ticks[1]
    assert isinstance(gap, messages.Gap)
    assert (gap.lost, gap.announced) == (2, False)
    statistics = wire.core.statistics()
    assert (statistics.silently_lost, statistics.duplicates) == (2, 2)


def test_batches_of_binary_are_views_of_what_was_received():
    import numpy as np

    wire = Wire(encoding="binary").live("binary")
    wire.give(BytesMessage(symbols_frame({"A": 3}, 0) + quotes_frame(np_quotes(1, 2, 3), 0)))
    batch = wire.batches[-1]
    assert isinstance(batch.data, bytes)
    assert np.shares_memory(batch.quotes, np.frombuffer(batch.data, np.uint8))
    assert not batch.quotes.flags.writeable
    assert batch.names(batch.quotes["symbol"]).tolist() == ["A", "A", "A"]
    assert batch.to_pandas()["symbol"].tolist() == ["A", "A", "A"]


# Clusters.


def test_the_state_of_the_source_is_told_in_its_place_and_known():
    wire = Wire().live()
    assert wire.core.source == "live"
    stale = {"T": "source", "shard": "s0", "state": "stale", "t": 1}
    wire.say(stale)
    wire.say(stale)  # at the begin of a session it may come twice
    assert wire.core.source == "stale"
    wire.say(stale | {"state": "live"})
    assert wire.core.source == "live"
    assert [one.state for one in wire.got if isinstance(one, messages.Source)] == ["stale", "live"]


def test_closing_may_name_another_engine():
    wire = Wire().live()
    assert wire.core.take_directed() is None
    wire.say({"T": "closing", "code": 1001, "msg": "restart", "retry_ms": 5, "url": "http://b:1"})
    wire.give(CloseConnection(1001, "restart"))
    assert wire.core.take_directed() == "http://b:1"
    assert wire.core.take_directed() is None
