"""Revocations in force and in the file: always the same."""

from __future__ import annotations

import pytest
import trio

from marketfeed.access.kept_revocations import MARGIN_S, KeptRevocations
from marketfeed.config.schema import AuthConfig
from marketfeed.errors import RevocationError


class Bench:
    def __init__(self, path, mode="jwt"):
        self.now_s = 1000.0
        self.auth = AuthConfig(mode=mode, path=str(path), max_ttl_s=3600.0)
        self.kept = self.again()

    def again(self):
        return KeptRevocations(self.auth, lambda: self.now_s)

    @property
    def values(self):
        return [one.value for one in self.kept.every()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "access.db"


async def test_a_revocation_lasts_until_the_last_token_has_expired(path):
    bench = Bench(path)
    with bench.kept.open():
        found = await bench.kept.add("sub", "ann", "left")
        assert (found.at_s, found.until_s, found.comment) == (1000.0, 4600.0 + MARGIN_S, "left")
        bench.now_s = 4600.0 + MARGIN_S
        assert bench.values == ["ann"]
        bench.now_s += 1
        assert bench.values == []


async def test_a_revocation_of_keys_lasts_for_ever(path):
    bench = Bench(path, "keys")
    with bench.kept.open():
        assert (await bench.kept.add("token", "5f1e0c9a7b21", "")).until_s is None
        bench.now_s = 1e12
        assert bench.values == ["5f1e0c9a7b21"]


async def test_they_are_in_force_after_a_restart(path):
    bench = Bench(path)
    with bench.kept.open():
        first = await bench.kept.add("sub", "ann", "")
        await bench.kept.add("tenant", "desk-3", "")
        assert await bench.kept.take_back("tenant", "desk-3")
        assert not await bench.kept.take_back("tenant", "desk-3")
    bench.kept = bench.again()
    with bench.kept.open():
        assert bench.kept.every() == (first,)


async def test_if_one_cannot_be_kept_nothing_is_revoked(path):
    bench = Bench(path)
    with bench.kept.open():
        first = await bench.kept.add("sub", "ann", "")
        connection = bench.kept._store._connection
        assert connection is not None
        connection.pragma("query_only", 1)
        bench.now_s += 5
        for kind, value in (("sub", "bob"), ("sub", "ann")):
            with pytest.raises(RevocationError):
                await bench.kept.add(kind, value, "")
        with pytest.raises(RevocationError):
            await bench.kept.take_back("sub", "ann")
        assert bench.kept.every() == (first,)
        assert bench.kept.problem is not None


async def test_memory_has_changes_in_the_order_of_the_file(path):
    bench = Bench(path)
    with bench.kept.open():
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(bench.kept.add, "sub", "ann", str(number))
        (in_memory,) = bench.kept.every()
    bench.kept = bench.again()
    with bench.kept.open():
        assert bench.kept.every() == (in_memory,)
