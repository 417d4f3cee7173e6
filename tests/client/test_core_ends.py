"""The end of a feed: what ended it first counts."""

from __future__ import annotations

from marketfeed.client.core import Core, Settings
from marketfeed.client.intake import Now
from marketfeed.errors import RefusedError

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
