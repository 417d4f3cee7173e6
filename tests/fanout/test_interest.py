"""What names and patterns mean, now and when symbols come later, against looking at each name."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.symbols import SymbolTable, shortest_prefixes
from marketfeed.fanout.awaited import Awaited
from marketfeed.fanout.interest import Interests, Names
from marketfeed.fanout.prefixes import Prefixes

names = st.text("AB-", min_size=1, max_size=4)
patterns = st.builds(lambda prefix: prefix + "*", st.text("AB-", max_size=4))
written = st.lists(st.one_of(names, patterns), max_size=8)
subscriptions = st.tuples(written, written)


def meant(channel, known):
    """Return the ids of those of the names in ``known`` that the names or patterns mean."""
    return {
        number
        for number, name in enumerate(known)
        if any(name == one or (one.endswith("*") and name.startswith(one[:-1])) for one in channel)
    }


class Told:
    def grow(self, group: list[set[int]], channel: int, symbols: Any, by_name: bool) -> None:
        group[channel].update(symbols.tolist())


@given(st.lists(subscriptions, max_size=6), st.lists(st.one_of(names, st.just("")), unique=True, max_size=30))
def test_each_interest_has_exactly_the_symbols_that_its_names_mean_whenever_they_came(asked, steps):
    table = SymbolTable(64)
    interests = Interests(table)
    held = []
    joined = 0
    for at, name in enumerate([*steps, ""]):
        if at < len(asked):
            interest = interests.use(Names(*asked[at]))
            told = [set(symbols.tolist()) for symbols in interest.symbols]
            held.append((asked[at], interest, told))
            interest.groups.append((told, Told()))
        if name:
            table.intern(name)
        else:  # the others join later
            interests.join(range(joined, len(table)))
            joined = len(table)
    interests.join(range(joined, len(table)))
    for channels, interest, told in held:
        for channel, written_, known in zip(channels, interest.symbols, told, strict=True):
            assert len(set(written_.tolist())) == len(written_)
            assert set(written_.tolist()) == meant(channel, table.names()) == known
    for _, interest, _ in held:
        interests.drop(interest)
    assert len(interests) == 0
    assert interests.open == 0
    assert not any(map(len, interests._prefixes))


@given(subscriptions, st.randoms())
def test_who_means_the_same_shares_an_interest_whatever_the_order(asked, random):
    interests = Interests(SymbolTable(8))
    mixed = [random.sample(channel, len(channel)) for channel in asked]
    assert interests.use(Names(*asked)) is interests.use(Names(*mixed))


def test_patterns_that_another_one_covers_cost_nothing():
    interests = Interests(SymbolTable(8))
    interest = interests.use(Names(["*", "A*", "AB", "B*"], ["A*", "AA*", "AAA", "B"]))
    assert interest.prefixes == [("",), ("A",)]
    assert interests.use(Names(["*"], ["A*", "B"])) is interest


@given(subscriptions, subscriptions)
def test_names_are_kept_as_written_without_doubles(one, other):
    added, without = Names(*one).plus(Names(*other)), Names(*one).minus(Names(*other))
    for channel in range(2):
        assert list(added)[channel] == tuple(dict.fromkeys([*one[channel], *other[channel]]))
        kept = dict.fromkeys(name for name in one[channel] if name not in other[channel])
        assert list(without)[channel] == tuple(kept)
    assert added.distinct() == {name for channel in (*one, *other) for name in channel}


@given(st.lists(st.text("AB", max_size=4)))
def test_the_shortest_prefixes_cover_what_all_of_them_do(prefixes):
    kept = shortest_prefixes(prefixes)
    assert kept == sorted(
        {one for one in prefixes if not any(one != other and one.startswith(other) for other in prefixes)}
    )


@given(st.lists(st.tuples(st.sampled_from(["", "A", "B", "AA", "AB"]), st.integers(0, 3), st.booleans())))
def test_prefixes_know_their_takers(steps):
    prefixes, model = Prefixes[int](), dict[str, list[int]]()
    for prefix, taker, adds in steps:
        takers = model.setdefault(prefix, [])
        if adds and taker not in takers:
            prefixes.add(prefix, taker)
            takers.append(taker)
        elif not adds and taker in takers:
            prefixes.discard(prefix, taker)
            takers.remove(taker)
        for name in ("A", "AB", "B", "C"):
            expected = [one for one in sorted(model) if model[one] and name.startswith(one)]
            assert list(prefixes.of(name)) == expected
            assert [list(prefixes.takers(one)) for one in expected] == [model[one] for one in expected]


owners = st.integers(0, 5)
waits: st.SearchStrategy[tuple[str, int, list[str]]] = st.one_of(
    st.tuples(st.just("add"), owners, st.lists(names, min_size=1, max_size=6, unique=True)),
    st.tuples(st.just("discard"), owners, st.just([])),
    st.tuples(st.just("take"), st.just(0), st.lists(names, max_size=4, unique=True)),
)


@given(st.lists(waits, max_size=40), st.sampled_from([1, 3, 1024]))
def test_who_waits_is_found_once_for_each_name_and_no_more_when_gone(steps, least_dead):
    awaited, model = Awaited[int](), dict[int, set[str]]()
    for action, owner, some in steps:
        if action == "add" and owner not in model:
            awaited.add(some, owner)
            model[owner] = set(some)
        elif action == "discard":
            awaited.discard(owner)
            model.pop(owner, None)
        elif action == "take":
            expected = {
                (at, who) for at, name in enumerate(some) for who, waiting in model.items() if name in waiting
            }
            found = awaited.take(some)
            assert len(found) == len(expected)
            assert set(found) == expected
            model = {who: left for who, waiting in model.items() if (left := waiting - set(some))}
        assert len(awaited) == len(model)
    for owner in list(model):
        awaited.discard(owner)
    assert awaited.nbytes == 0


def test_names_that_are_waited_for_take_12_bytes_each_and_are_gone_with_who_waits():
    awaited = Awaited[int]()
    for owner in range(20):
        awaited.add([f"{owner:012}{number:012}" for number in range(5000)], owner)
    assert awaited.nbytes == 20 * 5000 * 12
    for owner in range(20):
        awaited.discard(owner)
        assert awaited.nbytes <= (19 - owner) * 5000 * 12 * 4 / 3 + 1024 * 12


def test_a_prefix_is_looked_up_at_the_cost_of_its_matches(monkeypatch):
    table = SymbolTable(65536)
    for number in range(60_000):
        table.intern(f"{number:05x}")
    table.resolve((), ["0"])
    seen = []

    class Counted(str):
        def startswith(self, *arguments):
            seen.append(self)
            return super().startswith(*arguments)

        def __lt__(self, other):
            seen.append(self)
            return super().__lt__(other)

    monkeypatch.setattr(table, "_sorted", [Counted(name) for name in table._sorted])
    assert np.array_equal(table.resolve((), ["0000", "0001"]), np.arange(32))
    assert len(seen) < 4 * 17
