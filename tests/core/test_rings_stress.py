"""One writing and two reading processes over one shared block, at full speed and small depth.

Every record is a function of its symbol and n, so that readers detect torn records.
"""

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from marketfeed.core.layout import block_bytes
from marketfeed.core.rings import Rings
from tests.support import rings_worker

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

SYMBOLS = 64
HANG_S = 240


def run(depth, batches, batch_ticks, step, *reader_options, seed=1):
    """Run the three processes to their ends; return the output of the writer and the readers."""
    size = block_bytes(SYMBOLS, depth)
    descriptor = os.memfd_create("rings")
    processes = []
    try:
        os.ftruncate(descriptor, size)
        with mmap.mmap(descriptor, size) as block:
            laid_out = bytearray(size)
            Rings.create(laid_out, SYMBOLS, depth)
            block[:] = bytes(laid_out)
        roles = [("write", batches, batch_ticks, seed)]
        roles += [("read", number, step, *reader_options) for number in range(rings_worker.READERS)]
        for role, *arguments in roles:
            command = [sys.executable, rings_worker.__file__, role, descriptor, *arguments]
            processes.append(
                subprocess.Popen(
                    list(map(str, command)),
                    pass_fds=[descriptor],
                    stdout=subprocess.PIPE,
                    cwd=Path(__file__).parents[2],
                )
            )
        # The others would wait for a dead process.
        results = [json.loads(process.communicate(timeout=HANG_S)[0]) for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0]
        return results[0], results[1:]
    finally:
        os.close(descriptor)
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def test_two_reading_processes_accept_no_torn_record_and_miss_none_unannounced():
    depth, batches, batch_ticks = 256, 20_000, 1024
    writer, readers = run(depth, batches, batch_ticks, SYMBOLS)
    written = np.array(writer["written"])
    assert written.sum() == writer["head"] == batches * batch_ticks >= 20_000_000
    for reader in readers:
        assert reader["torn"] == 0
        assert reader["above_head"] == 0
        assert (np.array(reader["got"]) + reader["lost"] == written).all()
        assert sum(reader["got"]) > 0
        assert sum(reader["lost"]) > 0  # the check rejected something
        assert reader["followed"] > 0


def test_without_the_check_after_the_copy_torn_records_are_accepted():
    for seed in range(20):
        _, readers = run(64, 2_000, 512, SYMBOLS, "unchecked", seed=seed)
        if sum(reader["torn"] for reader in readers):
            return
    raise AssertionError("no torn record in 20 runs: the test above could not have found one either")
