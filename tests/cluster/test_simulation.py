"""Many worlds, 2,000 of them with ``MARKETFEED_PROVE``; a failure names its seed and has the trace."""

from __future__ import annotations

import os
from dataclasses import asdict

import pytest

from tests.cluster.broken import DeafLease, HastyLease, OpenMirror, SilentWriter
from tests.cluster.simulation import Simulation

PARTS = 4
SEEDS = 2000 if os.environ.get("MARKETFEED_PROVE") else 100


def run_many(seeds: range, **settings) -> dict[str, int]:
    """Run a world of each seed, every fourth with a bucket that is restored; return sums of the outcomes."""
    sums: dict[str, int] = {}
    for seed in seeds:
        outcome = Simulation(seed, **{"restores": seed % 4 == 3, **settings}).run()
        for name, value in asdict(outcome).items():
            sums[name] = sums.get(name, 0) + value
    return sums


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS))
def test_nodes_and_clients_agree_with_one_origin_or_are_told(part):
    share = SEEDS // PARTS
    sums = run_many(range(part * share, (part + 1) * share))
    print(sums)
    assert all(sums.values()), f"something never happened: {sums}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "found"),
    [
        ({"lease": HastyLease}, "two holders"),
        ({"lease": DeafLease, "restores": True}, "was given twice"),
        ({"mirror": OpenMirror}, "a frame of a lower term"),
        ({"writer": SilentWriter}, "is resumed after"),
    ],
)
def test_the_simulation_finds_what_is_broken(broken, found):
    with pytest.raises(AssertionError, match=rf"^[^\n]*{found}") as failure:
        run_many(range(300), **broken)
    assert "\nseed " in str(failure.value)
