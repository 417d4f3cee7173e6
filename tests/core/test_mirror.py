"""The mirror's writer: rings equal to the origin's, holes that readers are told of, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.mirror import MirrorWriter
from marketfeed.core.records import QUOTES, TRADES
from marketfeed.core.rings import Rings
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
    # Of ticks 6 to 20, the mirror gets only 20. Slots 13 to 19 hold ticks 1 to 5 and zeros, all of a g below 3.
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
