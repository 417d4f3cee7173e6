"""Metrics of circuit breakers: one family for feeds, the set of keys and escalations, with bounded labels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from marketfeed.admin.breaker_metrics import MOST_ADDRESSES, breaker_metrics, breakers
from marketfeed.core.breaker import BreakerState, BreakerStatistics

CLOSED, OPEN, HALF_OPEN = (BreakerStatistics(state, 5, 4, 3, 2) for state in BreakerState)


def supervisor(name: str, figures: BreakerStatistics) -> Any:
    return SimpleNamespace(intake=SimpleNamespace(name=name), statistics=lambda: figures)


def escalator(**lanes: dict[str, BreakerStatistics]) -> Any:
    found = {name: SimpleNamespace(statistics=lambda one=one: one) for name, one in lanes.items()}
    return SimpleNamespace(lanes=found)


def samples(*arguments: Any) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("marketfeed_"), *sample.labels.values()): sample.value
        for metric in breaker_metrics(breakers(*arguments))
        for sample in metric.samples
    }


def test_every_peer_has_one_state_and_its_counts():
    access = SimpleNamespace(fetches=lambda: OPEN)
    desk = {"https://am-1": HALF_OPEN, "https://am-2": CLOSED}
    link = SimpleNamespace(breakers={"nats": CLOSED, "jetstream": OPEN})
    found = samples([supervisor("btc", CLOSED)], access, escalator(desk=desk), link)
    peers = {
        ("feed:btc", ""): "closed",
        ("jwks", ""): "open",
        ("nats", ""): "closed",
        ("jetstream", ""): "open",
        ("escalation:desk", "https://am-1"): "half-open",
        ("escalation:desk", "https://am-2"): "closed",
    }
    expected: dict[tuple[str, ...], float] = {}
    for peer, now in peers.items():
        expected |= {("breaker_state", *peer, state): state == now for state in BreakerState}
        expected["breaker_opened_total", *peer] = 2
        for result, count in (("succeeded", 5), ("failed", 4), ("refused", 3)):
            expected["breaker_calls_total", *peer, result] = count
    assert found == expected


def test_what_an_engine_does_not_have_has_no_series():
    assert samples([], None, None) == {}
    assert samples([], SimpleNamespace(fetches=lambda: None), escalator()) == {}


def test_the_addresses_of_an_escalation_are_bounded():
    found = samples([], None, escalator(odd={f"peer {n}": CLOSED for n in range(1000)}))
    assert len([key for key in found if key[0] == "breaker_opened_total"]) == MOST_ADDRESSES
