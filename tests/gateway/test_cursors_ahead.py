"""Cursors ahead of the rings: a moment's wait, and no more."""

from __future__ import annotations

import numpy as np
import pytest
import trio

from marketfeed.core.cursor import Cursor
from marketfeed.core.records import QUOTE, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.writer import RingWriter
from marketfeed.gateway.cursors import AHEAD_S, LOOK_S, reached


@pytest.fixture
def rings():
    rings = Rings.private(4, 8, "e1")
    RingWriter(rings).write(Batch(np.zeros(1, QUOTE)))
    return rings


@pytest.mark.parametrize("cursor", [None, Cursor("e0", 7), Cursor("e1", 0), Cursor("e1", 1)])
async def test_only_a_cursor_that_is_ahead_waits(rings, cursor, autojump_clock):
    began_s = trio.current_time()
    await reached(rings, cursor)
    assert trio.current_time() == began_s


async def test_it_waits_until_the_rings_have_its_ticks(rings, autojump_clock):
    async def write() -> None:
        await trio.sleep(0.2)
        RingWriter(rings).write(Batch(np.zeros(2, QUOTE)))

    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await reached(rings, Cursor("e1", 3))
        assert 0.2 <= trio.current_time() - began_s <= 0.2 + 2 * LOOK_S
    assert rings.head() == 3


async def test_it_waits_no_longer_than_a_moment(rings, autojump_clock):
    began_s = trio.current_time()
    await reached(rings, Cursor("e1", 3))
    assert trio.current_time() - began_s == pytest.approx(AHEAD_S)
