"""Sessions end when their tokens do, and are kept alive by nothing here."""

from __future__ import annotations

import gc
from typing import Any

from marketfeed.errors import CloseCode
from marketfeed.gateway.expiries import LEAST, Expiries


class Session:
    """What expiries need of a session."""

    def __init__(self, ends_s: float) -> None:
        self.ends_s = ends_s
        self.ended: list[CloseCode] = []

    def end(self, code: CloseCode) -> None:
        self.ended.append(code)


def added(expiries: Expiries, ends_s: float) -> Any:
    session: Any = Session(ends_s)
    expiries.add(session)
    return session


def test_each_session_ends_at_its_time_unless_it_was_renewed():
    now_s = 0.0
    expiries = Expiries(lambda: now_s)
    late, soon, renewed = (added(expiries, ends_s) for ends_s in (30.0, 10.0, 10.0))
    renewed.ends_s = 20.0
    expiries.add(renewed)
    for now_s in (9.9, 10.0, 19.9, 20.0):
        expiries.look()
        assert soon.ended == ([CloseCode.TOKEN_EXPIRED] if now_s >= 10 else [])
        assert renewed.ended == ([CloseCode.TOKEN_EXPIRED] if now_s >= 20 else [])
    assert late.ended == []


def test_sessions_that_are_gone_are_forgotten():
    expiries = Expiries(lambda: 0.0)
    kept = [added(expiries, 50.0) for _ in range(10)]
    for _ in range(10 * LEAST):
        added(expiries, 100.0)
    gc.collect()
    assert len(expiries._due) <= LEAST + len(kept)
    assert sum(entry[2]() is not None for entry in expiries._due) == len(kept)


def test_a_session_that_renews_its_token_for_ever_needs_no_more_memory():
    now_s = 0.0
    expiries = Expiries(lambda: now_s)
    session, other = added(expiries, 50.0), added(expiries, 50.0)
    for renewal in range(10 * LEAST):
        session.ends_s = (70.0, 80.0)[renewal % 2]  # the same two tokens, by turns
        expiries.add(session)
    assert len(expiries._due) <= LEAST + 2
    for now_s in (50.0, 70.0, 80.0):
        expiries.look()
        assert other.ended
        assert bool(session.ended) == (now_s == 80)
