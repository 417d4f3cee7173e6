"""Requests of a feed: how many are repeated, and what they cover."""

from __future__ import annotations

from marketfeed.client.subscriptions import FOLDED_BYTES, Subscriptions
from tests.support.wire import Wire

ANSWER = {"T": "subscription", "trades": [], "alerts": [], "tier": "vip", "encoding": "json"}


def answer(wire: Wire) -> None:
    """Answer all requests, as an engine does."""
    asked, wire.sent[:] = list(wire.sent), []
    for request in asked:
        number = request["id"]
        wire.say(ANSWER | {"quotes": [], "id": number}, {"T": "synced", "cursor": "e1:10", "id": number})


def resubscribed(wire: Wire) -> list[dict[str, object]]:
    """Cut the connection; return the requests of the next one."""
    wire.take(wire.core.receive_data(b"", wire.now))
    wire.s = wire.core.deadline_s
    wire.sent.clear()
    wire.connect().hello()
    return wire.sent


def subscribed(*requests: dict[str, list[str]]) -> Wire:
    wire = Wire().connect().hello()
    for names in requests:
        wire.core.subscribe(wire.now, **names)
        wire.read()
        answer(wire)
    return wire


def test_many_requests_are_repeated_as_one():
    names = [f"S{number}" for number in range(100)]
    wire = subscribed(*({"quotes": [name], "trades": ["T*"]} for name in names))
    (request,) = resubscribed(wire)
    assert (request["quotes"], request["trades"], request["after"]) == (names, ["T*"], "e1:10")


def test_a_merged_request_stays_small_enough_for_any_engine():
    wire = subscribed(*({"quotes": [f"{number:024}"]} for number in range(1000)))
    requests = resubscribed(wire)
    assert len(requests) == 7
    assert all(len(str(request)) < 2 * FOLDED_BYTES for request in requests)
    assert sum(len(request["quotes"]) for request in requests) == 1000  # type: ignore[arg-type, misc]


def test_requests_of_other_consumers_or_with_other_alerts_are_not_merged():
    wire = subscribed(
        {"alerts": ["a"], "consumer": "one"},  # type: ignore[dict-item]
        {"alerts": ["b"], "consumer": "one"},  # type: ignore[dict-item]
        {"alerts": ["b"], "consumer": "one"},  # type: ignore[dict-item]
        {"quotes": ["A"]},
        {"alerts": ["a"], "consumer": "one"},  # type: ignore[dict-item]
    )
    # The last one of a consumer sets its patterns.
    assert [request.get("alerts") for request in resubscribed(wire)] == [["a"], ["b"], None, ["a"]]


def test_an_open_request_is_not_merged():
    subscriptions = Subscriptions("json")
    for name in ("A", "B", "C"):
        subscriptions.add(quotes=[name])
    assert len(list(subscriptions.to_send("e", 0.0))) == 3
    subscriptions.synced_at(1, "e:1", "e")
    subscriptions.synced_at(2, "e:1", "e")
    assert len(subscriptions.requests) == 3
    subscriptions.synced_at(3, "e:2", "e")
    assert len(subscriptions.requests) == 1


def test_names_that_are_left_are_left_of_a_merged_request_too():
    wire = subscribed({"quotes": ["A"]}, {"quotes": ["B"]}, {"quotes": ["C"]})
    wire.core.unsubscribe(wire.now, ["B"], [], [])
    (request,) = resubscribed(wire)
    assert request["quotes"] == ["A", "C"]
