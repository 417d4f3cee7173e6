"""The end of a feed, of which the first cause counts, and of a connection within a message."""

from __future__ import annotations

import numpy as np
import pytest
from wsproto.events import BytesMessage

from marketfeed.client.core import Core, Settings
from marketfeed.client.intake import Now
from marketfeed.client.messages import Quote
from marketfeed.core.binary import quotes_frame, symbols_frame, trades_frame
from marketfeed.core.records import QUOTE, TRADE
from marketfeed.errors import RefusedError
from tests.support.wire import Wire, quote

NOW = Now(1.0, 1_700_000_000_000_000_000)


def test_a_refused_feed_remains_refused_when_it_is_closed():
    core = Core(Settings("localhost", "/v1/stream", renewable=True))
    core.attempt(NOW)
    core.take_token(None, NOW)
    core.close(NOW)
    assert not core.closed
    assert core.state.code == 4501
    assert isinstance(core.finished, RefusedError)
    assert "unauthorised" in str(core.finished)


def test_a_closed_feed_has_no_failure():
    core = Core(Settings("localhost", "/v1/stream"))
    core.attempt(NOW)
    core.close(NOW)
    assert core.closed
    assert core.finished is None
    assert (core.state.name, core.state.code) == ("disconnected", 1000)


def test_a_callback_for_tokens_that_ends_after_the_feed_changes_nothing():
    for end in (lambda core: core.take_token(None, NOW), lambda core: core.token_failed("away", NOW)):
        core = Core(Settings("localhost", "/v1/stream", renewable=True))
        core.attempt(NOW)
        core.close(NOW)
        assert end(core) == []
        assert core.finished is None
        assert core.state.code == 1000


def test_ticks_before_a_fault_in_a_message_are_taken_and_the_connection_is_dropped():
    wire = Wire().live()
    wire.say(quote("A", 1, 11), quote("A", 2, 12), quote("", 1, 13), quote("A", 3, 14))
    assert [message.n for message in wire.got if isinstance(message, Quote)] == [1, 2]
    assert wire.closed == 1002
    assert wire.core.subscriptions.cursor == "e1:12"
    assert wire.core.statistics().quotes == 2


def test_quotes_before_trades_with_a_fault_are_taken_and_trades_are_resumed():
    wire = Wire().live("binary")
    quotes, trades = np.zeros(2, QUOTE), np.zeros(1, TRADE)
    quotes["symbol"], quotes["n"], quotes["g"] = 3, (1, 2), (11, 13)
    trades["symbol"], trades["n"], trades["g"] = 4, 1, 12
    wire.give(BytesMessage(symbols_frame({"A": 3}, 0) + quotes_frame(quotes, 0) + trades_frame(trades, 0)))
    assert [message.n for message in wire.got if isinstance(message, Quote)] == [1, 2]
    assert wire.closed == 1002
    assert wire.core.subscriptions.cursor == "e1:10"  # the trade is behind it
    newest = wire.core.intake.newest.of("A", "quotes")
    assert newest is not None
    assert newest.n == 2
    assert wire.core.intake.newest.of("B", "quotes") is None
    assert wire.core.intake.newest.of("A", "trades") is None
    with pytest.raises(ValueError, match="channel: one of quotes, trades, not 'bars'"):
        wire.core.intake.newest.of("A", "bars")
