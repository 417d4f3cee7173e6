"""Tickets open one session, within 30 s, from the network that they were issued to."""

from __future__ import annotations

import pytest

from marketfeed.access import tickets as module
from marketfeed.access.tickets import TICKET_S, USED_S, Redeemed, Tickets
from marketfeed.errors import AccessError

HERE = "192.0.2.1"


def test_a_ticket_opens_one_session():
    tickets = Tickets()
    ticket = tickets.issue("token", 1000.0, HERE, 0.0)
    assert tickets.redeem(ticket, HERE, "s1", "open", 30.0) == Redeemed("token")
    with pytest.raises(AccessError, match="was used"):
        tickets.redeem(ticket, HERE, "s2", "open", 30.0)


def test_a_ticket_reopens_its_session_until_its_token_expires():
    tickets = Tickets()
    ticket = tickets.issue("token", 1000.0, HERE, 0.0)
    tickets.redeem(ticket, HERE, "s1", "open", 1.0)
    assert tickets.redeem(ticket, HERE, "s2", "reopen", 500.0) == Redeemed("token", before="s1")
    assert tickets.redeem(ticket, HERE, "s3", "reopen", 1000.0) == Redeemed("token", before="s2")
    with pytest.raises(AccessError, match="no such ticket"):
        tickets.redeem(ticket, HERE, "s4", "reopen", 1000.5)
    assert len(tickets) == 0


def test_a_reconnect_may_be_the_first_use():
    tickets = Tickets()
    assert tickets.redeem(tickets.issue("t", None, HERE, 0.0), HERE, "s", "reopen", 1.0) == Redeemed("t")


def test_a_ticket_that_was_not_used_in_time_is_forgotten():
    tickets = Tickets()
    ticket = tickets.issue("token", 1000.0, HERE, 0.0)
    assert len(tickets) == 1
    with pytest.raises(AccessError, match="no such ticket, or it has expired"):
        tickets.redeem(ticket, HERE, "s1", "open", TICKET_S + 0.1)
    assert len(tickets) == 0


def test_for_a_key_a_used_ticket_lasts_a_day():
    tickets = Tickets()
    ticket = tickets.issue("key", None, HERE, 0.0)
    tickets.redeem(ticket, HERE, "s1", "open", 1.0)
    assert tickets.redeem(ticket, HERE, "s2", "reopen", USED_S).token == "key"
    with pytest.raises(AccessError):
        tickets.redeem(ticket, HERE, "s3", "reopen", USED_S + 1)


@pytest.mark.parametrize(
    ("issued", "used", "works"),
    [
        (HERE, "192.0.2.200", True),
        (HERE, "192.0.3.1", False),
        ("2001:db8:1:1::1", "2001:db8:1:ff::1", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
        (HERE, "::1", False),
    ],
)
def test_a_ticket_is_bound_to_the_prefix_of_its_address(issued, used, works):
    tickets = Tickets((24, 48))
    ticket = tickets.issue("token", None, issued, 0.0)
    if works:
        tickets.redeem(ticket, used, "s", "open", 1.0)
        return
    with pytest.raises(AccessError, match="another address"):
        tickets.redeem(ticket, used, "s", "open", 1.0)
    assert tickets.redeem(ticket, issued, "s", "open", 1.0)  # the thief has not used it up


def test_the_oldest_ticket_makes_room_for_the_next_one(monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    tickets = Tickets()
    first, second, third = (tickets.issue(token, None, HERE, 0.0) for token in "abc")
    assert len(tickets) == 2
    with pytest.raises(AccessError, match="no such ticket"):
        tickets.redeem(first, HERE, "s", "open", 1.0)
    assert tickets.redeem(second, HERE, "s", "open", 1.0).token == "b"
    assert tickets.redeem(third, HERE, "s", "open", 1.0).token == "c"


def test_the_ticket_of_a_websocket_is_gone_after_its_use():
    tickets = Tickets()
    ticket = tickets.issue("token", None, HERE, 0.0)
    assert tickets.redeem(ticket, HERE, "s", "once", 1.0).token == "token"
    assert len(tickets) == 0
    with pytest.raises(AccessError, match="no such ticket"):
        tickets.redeem(ticket, HERE, "s", "reopen", 1.0)


def test_what_is_no_ticket_is_refused():
    with pytest.raises(AccessError):
        Tickets().redeem("", HERE, "s", "open", 0.0)


def test_the_oldest_ticket_of_a_token_makes_room_for_its_next_one(monkeypatch):
    monkeypatch.setattr("marketfeed.access.tickets.MOST_EACH", 2)
    tickets = Tickets()
    other = tickets.issue("b", 999.0, "1.2.3.4", 0.0)
    first, second, third = (tickets.issue("a", 999.0, "1.2.3.4", float(now_s)) for now_s in range(3))
    with pytest.raises(AccessError, match="no such ticket"):
        tickets.redeem(first, "1.2.3.4", "s", "open", 3.0)
    for text, token in ((second, "a"), (third, "a"), (other, "b")):
        assert tickets.redeem(text, "1.2.3.4", "s", "open", 3.0).token == token
    assert len(tickets) == 3
    tickets.issue("c", 5000.0, "1.2.3.4", 2000.0)
    assert len(tickets) == 1
