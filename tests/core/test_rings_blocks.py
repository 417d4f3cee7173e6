"""Rings in any memory block: attached by readers, and refused if the block is invalid."""

import contextlib
import itertools
import mmap
import os

import numpy as np
import pytest
from hypothesis import given, settings

from marketfeed.core.layout import HEADER, block_bytes
from marketfeed.core.records import QUOTE, QUOTES, TRADE, TRADES, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.writer import RingWriter
from tests.support.rings import BATCHES, DEPTH, EVERY, SYMBOLS, Ledger, Reader, batch_of, quotes_of


def heap(size):
    return bytearray(size)


def anonymous_map(size):
    return mmap.mmap(-1, size)


def shared_file(size):
    descriptor = os.memfd_create("rings")
    os.ftruncate(descriptor, size)
    block = mmap.mmap(descriptor, size)
    os.close(descriptor)
    return block


@pytest.mark.parametrize("new_block", [heap, anonymous_map, shared_file])
def test_rings_over_any_block_are_found_again(new_block):
    block = new_block(block_bytes(SYMBOLS, DEPTH))
    made = Rings.create(block, SYMBOLS, DEPTH, "life1")
    RingWriter(made).write(batch_of((QUOTES, 1), (TRADES, 2), (QUOTES, 1)))
    again = Rings(block)
    assert (again.max_symbols, again.depth, again.epoch) == (SYMBOLS, DEPTH, "life1")
    assert again.head() == 3
    assert again.latest(QUOTES, EVERY, 3)[1].tolist() == [0, 2, 0, 0]
    assert again.latest(TRADES, EVERY, 3)[1].tolist() == [0, 0, 1, 0]


def test_a_second_mapping_of_a_memfd_sees_what_the_first_writes_even_if_read_only():
    size = block_bytes(SYMBOLS, DEPTH)
    descriptor = os.memfd_create("rings")
    os.ftruncate(descriptor, size)
    writer = RingWriter(Rings.create(mmap.mmap(descriptor, size), SYMBOLS, DEPTH))
    reader = Reader(Rings(mmap.mmap(descriptor, size, prot=mmap.PROT_READ)), QUOTES)
    os.close(descriptor)
    for n in range(1, 4):
        writer.write(quotes_of(3))
        assert reader.poll().records["n"].tolist() == [n]


@pytest.fixture
def shared():
    rings = Rings.shared(SYMBOLS, DEPTH, "life1")
    yield rings
    os.close(rings.fd)


def test_shared_rings_are_found_by_their_descriptor(shared):
    other = Rings.attach(shared.fd)
    reader = Reader(other, TRADES)
    RingWriter(shared).write(batch_of((TRADES, 2), (QUOTES, 0)))
    assert (other.epoch, other.depth, other.head()) == ("life1", DEPTH, 2)
    assert reader.poll().records["symbol"].tolist() == [2]


def test_who_is_handed_shared_rings_cannot_write_or_resize_them(shared):
    other = Rings.attach(shared.fd)
    with pytest.raises(ValueError, match="read-only"):
        RingWriter(other).write(quotes_of(0))
    with pytest.raises(PermissionError):
        mmap.mmap(shared.fd, block_bytes(SYMBOLS, DEPTH))
    for size in (0, 1 << 30):
        with pytest.raises(PermissionError):
            os.ftruncate(shared.fd, size)
    with pytest.raises(PermissionError):
        os.pwrite(shared.fd, b"x", 0)


def test_rings_larger_than_the_machine_are_refused_at_once():
    before = os.listdir("/proc/self/fd")
    with pytest.raises((OSError, OverflowError, ValueError)):
        Rings.shared(65536, 1 << 40)
    assert os.listdir("/proc/self/fd") == before


@settings(max_examples=30)
@given(BATCHES, BATCHES)
def test_a_second_writer_goes_on_with_g_and_n(first, second):
    block = bytearray(block_bytes(SYMBOLS, DEPTH))
    Rings.create(block, SYMBOLS, DEPTH)
    ledger = Ledger()
    for batches in (first, second):
        writer = RingWriter(Rings(block))
        for ticks in batches:
            ledger.add(ticks)
            assert writer.write(batch_of(*ticks)) == ledger.g
    for channel in (QUOTES, TRADES):
        lengths = [len(ledger.ticks[channel, symbol]) for symbol in range(SYMBOLS)]
        assert Rings(block).published(channel).tolist() == lengths


def test_a_block_without_rings_is_refused():
    with pytest.raises(ValueError, match="does not hold rings"):
        Rings(bytearray(block_bytes(SYMBOLS, DEPTH)))


@pytest.mark.parametrize(
    ("field", "value"), [("magic", b"mfrings\x02"), ("magic", b"MFRINGS\x01"), ("version", 1)]
)
def test_another_magic_or_version_is_refused(field, value):
    block = bytearray(block_bytes(SYMBOLS, DEPTH))
    Rings.create(block, SYMBOLS, DEPTH)
    np.frombuffer(block, HEADER, 1)[field] = value
    with pytest.raises(ValueError, match="does not hold rings"):
        Rings(block)


@pytest.mark.parametrize("missing", [1, 64, 4096])
def test_a_block_cut_short_is_refused(missing):
    block = bytearray(block_bytes(SYMBOLS, DEPTH))
    Rings.create(block, SYMBOLS, DEPTH)
    with pytest.raises(ValueError, match="shorter"):
        Rings(block[:-missing])
    with pytest.raises(ValueError):
        Rings(block[:10])


def test_a_block_too_small_is_refused():
    with pytest.raises(ValueError, match="do not fit"):
        Rings.create(bytearray(block_bytes(SYMBOLS, DEPTH) - 1), SYMBOLS, DEPTH)


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 6, 1000, -8])
def test_depth_is_a_power_of_two_from_4(depth):
    with pytest.raises(ValueError, match="power of two"):
        Rings.private(SYMBOLS, depth)


@pytest.mark.parametrize("max_symbols", [0, -1, 65537])
def test_max_symbols_is_1_to_65536(max_symbols):
    with pytest.raises(ValueError, match="max_symbols"):
        Rings.create(bytearray(8192), max_symbols, DEPTH)


@pytest.mark.parametrize("epoch", ["", "a b", "a:b", "x" * 33, "ä"])
def test_an_epoch_is_what_a_cursor_can_name(epoch):
    with pytest.raises(ValueError, match="epoch"):
        Rings.private(SYMBOLS, DEPTH, epoch)


def test_without_one_a_fresh_epoch_is_drawn():
    assert Rings.private(1, 4).epoch != Rings.private(1, 4).epoch


@pytest.mark.parametrize("depth", [4, 8, 4096])
@pytest.mark.parametrize("max_symbols", [1, 127, 128, 129, 2000])
def test_the_areas_of_a_block_do_not_overlap(max_symbols, depth):
    size = block_bytes(max_symbols, depth)
    rings = Rings.create(mmap.mmap(-1, size), max_symbols, depth)
    areas = (rings.view.claimed, rings.view.published, rings.view.base, rings.names.names, rings.view.slots)
    start = rings.view.published_g.__array_interface__["data"][0]
    ends = [
        (array.__array_interface__["data"][0] - start, array.nbytes)
        for array in (rings.view.published_g, rings.names.count, *areas)
    ]
    assert all(at + length <= next_at for (at, length), (next_at, _) in itertools.pairwise(ends))
    assert HEADER.fields is not None
    assert ends[-1][0] + ends[-1][1] + HEADER.fields["published_g"][1] == size


@pytest.mark.parametrize("symbols", [(4,), (0, 4), (0, 1, 2, 65535)])
@pytest.mark.parametrize("channel", [QUOTES, TRADES])
def test_an_unknown_symbol_publishes_nothing(symbols, channel):
    rings = Rings.private(SYMBOLS, DEPTH)
    writer = RingWriter(rings)
    writer.write(quotes_of(0))
    before = rings.view.claimed.copy()
    with pytest.raises(IndexError):
        writer.write(batch_of((QUOTES, 1), *((channel, symbol) for symbol in symbols)))
    assert (rings.view.claimed == before).all()
    assert rings.head() == 1
    assert writer.write(quotes_of(0)) == 2


def test_no_g_is_given_twice_whatever_the_channel_numbers():
    quotes, trades = np.zeros(2, QUOTE), np.zeros(1, TRADE)
    with contextlib.suppress(ValueError):  # Batch may reject them
        RingWriter(Rings.private(SYMBOLS, DEPTH)).write(Batch(quotes, trades, np.array([0, 2, 1], np.uint8)))
        assert quotes["g"].tolist() + trades["g"].tolist() == [1, 2, 3]


def test_an_empty_batch_changes_nothing():
    rings = Rings.private(SYMBOLS, DEPTH)
    writer = RingWriter(rings)
    assert writer.write(Batch()) == 0
    writer.write(quotes_of(0))
    assert writer.write(Batch(np.zeros(0, QUOTE), np.zeros(0, TRADE), np.zeros(0, np.uint8))) == 1
    assert rings.head() == 1
