"""Usage on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import apsw
import numpy as np
import pytest

from marketfeed.access.database import open_for_reading
from marketfeed.access.usage import Totals, Unwritten, User
from marketfeed.access.usage_file import UsageWriter, read_days
from marketfeed.errors import AccessFileError

if TYPE_CHECKING:
    from pathlib import Path

ANN, BOB = User("acme", "ann"), User("acme", "bob")
NAMES = ["A", "AB", "B", "C"]
QUOTES = ("vip", "quotes")
WRITES = """
import itertools, pathlib, sys
from marketfeed.access.usage import Unwritten, User
from marketfeed.access.usage_file import UsageWriter
writer = UsageWriter(pathlib.Path(sys.argv[1]))
for number in itertools.count(1):
    writer.write({(1, User("acme", "ann")): Unwritten({("vip", "quotes"): (1, 10)})}, [])
    print(number, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "access.db"


def ids(*numbers: int) -> bytes:
    return np.array(numbers, "<u4").tobytes()


def sets(path: Path) -> list[str]:
    connection = open_for_reading(path)
    found = [names for (names,) in connection.execute("SELECT names FROM symbol_sets ORDER BY names")]
    connection.close()
    return found


def test_usage_adds_up_over_reopening(path):
    for _ in range(2):
        writer = UsageWriter(path)
        writer.write(
            {
                (5, ANN): Unwritten({QUOTES: (3, 30), ("vip", "alerts"): (1, 100)}, 2, {ids(0, 2)}),
                (5, BOB): Unwritten({QUOTES: (1, 10)}, 1),
                (6, ANN): Unwritten({QUOTES: (7, 70)}, 1),
            },
            NAMES,
        )
        totals = writer.totals(5)
        writer.close()
    assert totals == {"acme": Totals(8, 280)}
    first, second, third = read_days(path, 5, 6)
    assert (first.user, first.peak, first.symbols) == (ANN, 2, {"A", "B"})
    assert first.counts == {QUOTES: (6, 60), ("vip", "alerts"): (2, 200)}
    assert (second.user, second.symbols) == (BOB, frozenset())
    assert (third.day, third.counts) == (6, {QUOTES: (14, 140)})
    assert [one.user for one in read_days(path, 6, 6)] == [ANN]
    assert read_days(path, 5, 6, "other") == []
    assert len(read_days(path, 5, 6, "acme")) == 3


def test_users_with_the_same_symbols_share_a_set_and_sets_that_grew_go(path):
    writer = UsageWriter(path)
    one = {ids(0, 1), ids(2)}
    writer.write({(5, User("t", str(n))): Unwritten(sets=set(one)) for n in range(10)}, NAMES)
    assert sets(path) == ["A,AB,B"]
    writer.write({(5, User("t", "1")): Unwritten(sets={ids(3)})}, NAMES)
    assert sets(path) == ["A,AB,B", "A,AB,B,C"]
    # After a restart ids are others.
    writer.write({(5, User("t", str(n))): Unwritten(sets={ids(0, 1)}) for n in range(10)}, ["C", "AB"])
    assert sets(path) == ["A,AB,B,C"]
    writer.close()


def test_a_batch_is_written_whole_or_not_at_all(path):
    writer = UsageWriter(path)
    batch = {(5, ANN): Unwritten({QUOTES: (1, 1)}), (5, BOB): Unwritten({QUOTES: (2**70, 1)})}
    with pytest.raises(OverflowError):
        writer.write(batch, NAMES)
    assert read_days(path, 5, 5) == []
    writer._connection.pragma("query_only", 1)
    with pytest.raises(AccessFileError, match=r"access\.db cannot be opened"):
        writer.write({(5, ANN): Unwritten({QUOTES: (1, 1)})}, NAMES)
    writer._connection.pragma("query_only", 0)
    writer.write({(5, ANN): Unwritten({QUOTES: (1, 1)})}, NAMES)
    writer.close()
    assert [one.counts for one in read_days(path, 5, 5)] == [{QUOTES: (1, 1)}]


def test_files_that_are_none_are_told(tmp_path):
    with pytest.raises(AccessFileError, match=r"there is no file of access .*: an engine with auth\.mode"):
        read_days(tmp_path / "none.db", 1, 1)
    other = tmp_path / "other.db"
    connection = apsw.Connection(str(other))
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(AccessFileError, match=r"database of another program: set auth\.path to"):
        UsageWriter(other)
    (tmp_path / "file").write_text("")
    with pytest.raises(AccessFileError, match=r"the folder .* cannot be created"):
        UsageWriter(tmp_path / "file" / "access.db")


@pytest.mark.e2e
def test_a_kill_loses_nothing_that_was_committed(path):
    process = subprocess.Popen([sys.executable, "-c", WRITES, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 20:
            break
    os.kill(process.pid, signal.SIGKILL)
    last = [20, *map(int, process.stdout.read().split())][-1]
    process.wait()
    process.stdout.close()
    (one,) = read_days(path, 1, 1)
    ticks, size = one.counts[QUOTES]
    assert ticks in (last, last + 1)  # the last commit may not have been printed
    assert size == 10 * ticks
