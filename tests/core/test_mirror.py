"""The mirror's writer: rings equal to the origin's, holes that readers are told of, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.mirror import MirrorWriter
from marketfeed.core.records import QUOTES, TRADES
from marketfeed.errors import MirrorError
from tests.support.mirrors import Origin, given_to, mirror_of
from tests.support.rings import BATCHES, DEPTH, EVERY, SYMBOLS

MANY = np.tile(EVERY, 5)  # too many to be searched one by one


def adopted(before, lost, depth=DEPTH):
    """Return an origin, and the rings and the writer of a mirror that got the ticks ``before`` only."""
    origin = Origin(depth)
    origin.publish(before)
    rings, writer = mirror_of(origin)
    given_to(writer, origin)
    origin.publish(lost)
    writer.adopt(*origin.state())
    return origin, rings, writer


def found_or_told(origin, rings):
    """Assert that a search from any ``g`` finds the right tick, or one that is not in the rings any more."""
    for channel in (QUOTES, TRADES):
        floor = rings.oldest(channel, MANY) - 1
        for g in range(origin.rings.head() + 1):
            positions = rings.position(channel, MANY, g)
            one_by_one = [rings.few.position(channel, symbol, g) for symbol in MANY.tolist()]
            assert positions.tolist() == one_by_one
            for i, symbol in enumerate(MANY.tolist()):
                true = sum(stamp <= g for stamp in origin.ticks.get((channel, symbol), []))
                assert positions[i] == max(true, floor[i]), (g, symbol)


def test_a_search_does_not_take_the_slots_of_a_hole_for_its_ticks():
    # Of ticks 6 to 20, the mirror gets only 20. Slots 13 to 19 hold ticks 2 to 5 and zeros.
    origin, rings, _ = adopted([(QUOTES, 0)] * 5, [(QUOTES, 0)] * 15)
    assert rings.position(QUOTES, EVERY, 3)[0] <= rings.oldest(QUOTES, EVERY)[0] - 1
    assert rings.position(QUOTES, EVERY, 3)[0] == 19
    assert rings.position(QUOTES, EVERY, 20)[0] == 20
    found_or_told(origin, rings)


TICK_LISTS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, SYMBOLS - 1)), max_size=40)


@pytest.mark.slow
@given(TICK_LISTS, TICK_LISTS, TICK_LISTS)
def test_a_search_finds_the_right_tick_or_one_that_is_told_to_be_lost(before, lost, after):
    origin, rings, writer = adopted(before, lost)
    found_or_told(origin, rings)
    origin.publish(after)
    given_to(writer, origin)
    found_or_told(origin, rings)


@pytest.mark.slow
@given(BATCHES, st.lists(st.integers(1, 300), max_size=20), st.sampled_from([4, DEPTH, 64]))
def test_rings_that_were_fed_with_every_tick_equal_those_of_the_origin(batches, cuts, depth):
    origin = Origin(depth)
    rings, writer = mirror_of(origin)
    for ticks in batches:
        origin.publish(ticks)
        given_to(writer, origin, cuts)
        assert writer.next_g == rings.head() + 1 == origin.rings.head() + 1
    for name in ("published_g", "named", "claimed", "published", "base", "names", "sequence", "slots"):
        assert getattr(rings.view, name).tobytes() == getattr(origin.rings.view, name).tobytes(), name
    assert (rings.first_ns() > 0).tolist() == (origin.rings.first_ns() > 0).tolist()
    assert not len(batches) or rings.stamps.of(rings.head()) in (0, 7)


@pytest.mark.slow
@given(TICK_LISTS, TICK_LISTS)
def test_a_state_raises_bases_of_symbols_that_lost_ticks_only(before, lost):
    origin, rings, writer = adopted(before, lost)
    assert writer.next_g == origin.rings.head() + 1
    assert (rings.view.published == origin.rings.view.published).all()
    assert (rings.view.claimed == origin.rings.view.claimed).all()
    for channel in (QUOTES, TRADES):
        for symbol in range(SYMBOLS):
            missed = lost.count((channel, symbol))
            reached = before.count((channel, symbol)) + missed
            assert rings.view.base[channel, symbol] == (reached - 1 if missed > 1 else 0)
        newest = [one.latest(channel, EVERY, origin.rings.head())[0] for one in (rings, origin.rings)]
        assert newest[0].tobytes() == newest[1].tobytes()
    writer.adopt(*origin.state())  # has no effect
    assert (rings.view.published == origin.rings.view.published).all()


def test_a_state_brings_the_times_of_first_ticks():
    origin = Origin()
    origin.publish([(QUOTES, 0), (QUOTES, 0), (TRADES, 1)])
    firsts = origin.rings.first_ns()
    rings, writer = mirror_of(origin)
    writer.adopt(*origin.state(), first_ns=firsts)
    assert rings.first_ns().tolist() == firsts.tolist()
    rings, writer = mirror_of(origin)
    writer.adopt(*origin.state())
    assert rings.first_ns()[0] == origin.all.quotes["ts_recv"][1]
    assert rings.first_ns()[1:].tolist() == firsts[1:].tolist()


def test_numbers_of_a_symbol_wrap_at_32_bits_in_records_only():
    origin = Origin()
    for one in (origin.rings, (mirror := mirror_of(origin))[0]):
        one.view.claimed[QUOTES, 0] = one.view.published[QUOTES, 0] = 2**32 - 3
        one.view.records[QUOTES]["n"][(2**32 - 4) % DEPTH] = 2**32 - 3
    rings, _ = mirror
    writer = MirrorWriter(rings)
    origin.publish([(QUOTES, 0)] * 2)
    given_to(writer, origin)
    origin.publish([(QUOTES, 0)] * 5)
    writer.adopt(*origin.state())
    assert rings.published(QUOTES)[0] == rings.oldest(QUOTES, EVERY)[0] == 2**32 + 4
    origin.publish([(QUOTES, 0)])
    given_to(writer, origin)
    assert rings.published(QUOTES)[0] == 2**32 + 5
    fresh, writer = mirror_of(origin)
    quotes, trades, head = origin.state()
    quotes["n"] = 0  # of the first tick of a symbol that a mirror sees: no tick has the number 0
    writer.adopt(quotes, trades, head)
    assert fresh.published(QUOTES)[0] == 2**32


def pieces(change):
    """Return ticks 4 to 7 of an origin, and the rings and the writer of a mirror that has 1 to 3."""
    origin = Origin()
    origin.publish([(QUOTES, 0), (TRADES, 1), (QUOTES, 2)])
    rings, writer = mirror_of(origin)
    given_to(writer, origin)
    origin.publish([(QUOTES, 0), (QUOTES, 0), (TRADES, 1), (QUOTES, 2)])
    quotes, trades = origin.between(4, 7)
    given = {"quotes": quotes, "trades": trades, "first_g": 4, "last_g": 7}
    change(given)
    return given, rings, writer


def setting(records, name, at, value):
    """Return a change of one field of one record."""
    return lambda given: given[records][name].__setitem__(at, value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda given: given.update(first_g=5), "from g = 5 on do not follow: the next g is 4"),
        (lambda given: given.update(last_g=8), "4 ticks for g = 4 to 8"),
        (lambda given: given.update(quotes=given["quotes"][::-1].copy()), "not in order"),
        (setting("quotes", "g", 0, 3), "not in order between g = 4 and 7"),
        (setting("quotes", "g", 2, 8), "not in order between g = 4 and 7"),
        (setting("trades", "g", 0, 5), "have a g between 4 and 7 twice"),
        (setting("quotes", "n", 1, 2), r"quotes of A: n = 2 \(g = 5\) does not follow on n = 2"),
        (setting("trades", "n", 0, 3), r"trades of B: n = 3 \(g = 6\) does not follow on n = 1"),
        (setting("quotes", "symbol", 0, SYMBOLS), "symbol 4, but 4 symbols are known"),
        (setting("quotes", "ask_sz", 1, np.nan), "ask_sz is not a finite number"),
        (setting("quotes", "bid_sz", 1, -1.0), "bid_sz is not a finite number"),
        (setting("trades", "size", 0, np.inf), "trades: size is not a finite number"),
        (setting("trades", "side", 0, 0), "a side that is not"),
        (setting("trades", "kind", 0, 1), "a kind that is not 0"),
        (setting("trades", "cond", 0, b"\n"), "conditions that are not"),
    ],
)
def test_ticks_that_do_not_fit_are_refused_and_nothing_is_published(change, told):
    given, rings, writer = pieces(change)
    before = bytes(rings.view.slots), rings.view.claimed.copy(), rings.head()
    with pytest.raises(MirrorError, match=told):
        writer.write_given(**given)
    assert (bytes(rings.view.slots), rings.head(), writer.next_g) == (before[0], before[2], 4)
    assert (rings.view.claimed == before[1]).all()
    good, _, _ = pieces(lambda given: None)
    writer.write_given(**good)
    assert rings.head() == 7


def test_no_ticks_are_no_publication():
    given, rings, writer = pieces(lambda given: None)
    writer.write_given(given["quotes"][:0], given["trades"][:0], 4, 3)
    assert (rings.head(), writer.next_g, int(rings.view.noted[0])) == (3, 4, 1)


def the_state(change):
    """Return the state of an origin with 7 ticks, and the rings and the writer of a mirror with 3."""
    given, rings, writer = pieces(lambda given: None)
    state = {"quotes": given["quotes"][1:].copy(), "trades": given["trades"].copy(), "head": 7}
    change(state)
    return state, rings, writer


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.update(head=2), "as of g = 2 is older than the head, 3"),
        (lambda state: state.update(head=6), "as of g = 6 has ticks from g = 5 to 7"),
        (setting("quotes", "g", 0, 0), "has ticks from g = 0 to 7"),
        (setting("quotes", "g", 0, 6), "two ticks with one g"),
        (setting("quotes", "g", 0, 2), r"quotes of A: n = 3 \(g = 2\) contradicts .* up to n = 1"),
        (setting("quotes", "n", 0, 1), r"quotes of A: n = 1 \(g = 5\) contradicts"),
        (setting("quotes", "n", 0, 0), r"quotes of A: n = 0 \(g = 5\) contradicts"),
        (lambda state: state.update(trades=state["trades"][:0]), "trades of B: is missing in the state"),
        (setting("quotes", "symbol", 1, 0), "quotes of C: is missing in the state"),
        (setting("quotes", "symbol", 1, SYMBOLS), "symbol 4, but 4 symbols are known"),
        (setting("trades", "size", 0, np.nan), "size is not"),
    ],
)
def test_a_state_that_contradicts_the_mirror_is_refused_and_nothing_is_published(change, told):
    state, rings, writer = the_state(change)
    before = bytes(rings.view.slots), rings.view.base.copy()
    with pytest.raises(MirrorError, match=told):
        writer.adopt(**state)
    assert (bytes(rings.view.slots), rings.head(), writer.next_g) == (before[0], 3, 4)
    assert (rings.view.base == before[1]).all()
    good, _, _ = the_state(lambda state: None)
    writer.adopt(**good)
    assert rings.view.base[QUOTES].tolist() == [2, 0, 0, 0]
    assert (rings.head(), writer.next_g) == (7, 8)


def test_two_ticks_of_one_symbol_in_a_state_are_refused():
    state, _, writer = the_state(lambda state: None)
    state["quotes"] = np.concatenate([state["quotes"], state["quotes"][:1]])
    state["quotes"]["g"][-1] = 4
    with pytest.raises(MirrorError, match="quotes of A: is in the state twice"):
        writer.adopt(**state)


def test_a_successor_continues_where_a_writer_stopped():
    given, rings, _ = pieces(lambda given: None)
    writer = MirrorWriter(rings)
    writer.write_given(**given)
    assert rings.head() == 7
