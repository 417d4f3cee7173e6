"""One process of test_rings_stress.py: writes a checkable pattern into shared rings, or reads and checks it.

    python rings_worker.py write FD BATCHES BATCH_TICKS SEED
    python rings_worker.py read FD FIRST_SYMBOL STEP [unchecked]

Prints one JSON object when it is done.
"""

import json
import mmap
import sys

import numpy as np

from marketfeed.core.layout import HEADER
from marketfeed.core.records import QUOTE, QUOTES, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.writer import RingWriter

READERS = 2
FOLLOWED = 512  # newest ticks read in order of g
_GO = HEADER.itemsize  # bytes after the header, unused by the rings: one per reader, and "written"
_WRITTEN = _GO + READERS


class UncheckedRings(Rings):
    """Rings without the check of ``claimed`` after the copy."""

    def _survived(self, channel, symbols, spans, ns, copied):
        return np.ones(len(ns), np.bool_)


def pattern_of(symbols, ns):
    """Return ``bid_px`` of tick ``n`` of ``symbol``: a mix over all 64 bits."""
    mixed = (ns.astype(np.uint64) << np.uint64(16)) + symbols.astype(np.uint64) + np.uint64(1)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    return mixed.view(np.int64)


def whole(records, symbols, ns):
    """Return which ``records`` equal tick ``ns`` of ``symbols`` in every byte."""
    pattern = pattern_of(symbols, ns)
    return (
        (records["ts_event"] == pattern)
        & (records["ts_recv"] == ~pattern)
        & (records["bid_px"] == pattern)
        & (records["ask_px"] == ~pattern)
        & (records["bid_sz"] == ns)
        & (records["ask_sz"] == -ns)
        & (records["n"] == ns)
        & (records["symbol"] == symbols)
    )


def write(block, batches, batch_ticks, seed):
    """Write ``batches`` batches of ``batch_ticks`` ticks; lower symbols are more frequent."""
    rings = Rings(block)
    writer = RingWriter(rings)
    random = np.random.default_rng(seed)
    weight = 1 / np.arange(1, rings.max_symbols + 1)
    choices = random.choice(rings.max_symbols, (16, batch_ticks), p=weight / weight.sum())
    # Number of tick i among those of its symbol in the batch: 1, 2, 3 …
    ranks = np.array(
        [[np.count_nonzero(row[: i + 1] == row[i]) for i in range(batch_ticks)] for row in choices]
    )
    batch = Batch(np.zeros(batch_ticks, QUOTE))
    written = np.zeros(rings.max_symbols, np.int64)
    per_choice = [np.bincount(row, minlength=rings.max_symbols) for row in choices]
    while not all(block[_GO : _GO + READERS]):
        pass
    for i in range(batches):
        symbols = choices[i % 16]
        ns = written[symbols] + ranks[i % 16]
        pattern = pattern_of(symbols, ns)
        quotes = batch.quotes
        quotes["symbol"] = symbols
        quotes["ts_event"] = quotes["bid_px"] = pattern
        quotes["ts_recv"] = quotes["ask_px"] = ~pattern
        quotes["bid_sz"] = ns
        quotes["ask_sz"] = -ns
        writer.write(batch)
        written += per_choice[i % 16]
    block[_WRITTEN] = 1
    return {"written": written.tolist(), "head": rings.head()}


def read(block, number, step, unchecked):
    """Read all symbols, ``step`` at a time, until the writer has ended and all is read."""
    rings = UncheckedRings(block) if unchecked else Rings(block)
    groups = np.array_split(np.arange(rings.max_symbols), -(-rings.max_symbols // step))
    seen = np.zeros(rings.max_symbols, np.int64)
    lost, got = seen.copy(), seen.copy()
    torn = above_head = followed = 0
    block[_GO + number] = 1
    ended = False
    while not ended:
        ended = block[_WRITTEN] == 1  # this round then reads the rest
        head = rings.head()
        if newest := rings.between(max(0, head - FOLLOWED), head):
            records, ns = newest[QUOTES]
            torn += int(np.count_nonzero(~whole(records, records["symbol"], ns)))
            followed += len(records)
        for symbols in groups:
            head = rings.head()
            upto = rings.published(QUOTES).take(symbols)
            ticks = rings.read(QUOTES, symbols, seen[symbols], upto, head)
            owners = symbols.repeat(ticks.counts)
            # The ticks of a symbol are the last ``counts`` up to ``seen``.
            ns = np.arange(1, len(owners) + 1) + (ticks.seen - ticks.counts.cumsum()).repeat(ticks.counts)
            torn += int(np.count_nonzero(~whole(ticks.records, owners, ns)))
            above_head += int(np.count_nonzero(ticks.records["g"] > head))
            seen[symbols] = ticks.seen
            lost[symbols] += ticks.lost
            got[symbols] += ticks.counts
    return {
        "got": got.tolist(),
        "lost": lost.tolist(),
        "torn": torn,
        "above_head": above_head,
        "followed": followed,
    }


def main():
    """Run the role given on the command line."""
    role, descriptor, *rest = sys.argv[1:]
    block = mmap.mmap(int(descriptor), 0)
    if role == "write":
        result = write(block, *map(int, rest))
    else:
        result = read(block, int(rest[0]), int(rest[1]), "unchecked" in rest)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
