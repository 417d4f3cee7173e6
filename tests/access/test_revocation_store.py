"""Revocations in a file: what was answered is kept, what cannot be kept is told."""

from __future__ import annotations

import subprocess
import sys

import apsw
import msgspec
import pytest

from marketfeed.access.database import open_for_writing as connected
from marketfeed.access.revocation_store import RevocationStore
from marketfeed.access.revocations import Revocation
from marketfeed.errors import RevocationError

ANN = Revocation("sub", "ann", 100.0, None, "left")
DESK = Revocation("tenant", "desk-3", 101.5, 200.0)
KEY = Revocation("token", "5f1e0c9a7b21", 102.0, 300.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "var" / "access.db"


def reopened(path, now_s=110.0):
    store = RevocationStore(path)
    try:
        return store.open(now_s)
    finally:
        store.close()


def test_revocations_are_kept(path):
    store = RevocationStore(path)
    assert store.open(110.0) == []
    for one in (DESK, KEY, ANN):
        store.add(one)
    store.close()
    assert reopened(path) == [ANN, DESK, KEY]


def test_those_of_no_use_any_more_are_removed(path):
    store = RevocationStore(path)
    store.open(110.0)
    for one in (ANN, DESK, KEY):
        store.add(one)
    store.close()
    assert reopened(path, 250.0) == [ANN, KEY]
    assert reopened(path, 110.0) == [ANN, KEY]


def test_a_later_one_takes_the_place_of_an_earlier_one(path):
    store = RevocationStore(path)
    store.open(110.0)
    store.add(ANN)
    later = Revocation("sub", "ann", 150.0, 250.0, "again")
    store.add(later)
    store.close()
    assert reopened(path) == [later]


def test_a_revocation_is_taken_back_by_kind_and_value(path):
    store = RevocationStore(path)
    store.open(110.0)
    store.add(ANN)
    store.add(Revocation("tenant", "ann", 100.0))
    store.take_back("sub", "ann")
    store.take_back("sub", "nobody")
    store.close()
    assert reopened(path) == [Revocation("tenant", "ann", 100.0)]


def test_each_write_is_on_disk_when_it_returns(path):
    store = RevocationStore(path)
    store.open(110.0)
    assert store._connection is not None
    assert (store._connection.pragma("synchronous"), store._connection.pragma("journal_mode")) == (2, "wal")
    store.add(ANN)
    other = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    assert list(other.execute("SELECT value FROM revocations")) == [("ann",)]
    other.close()
    store.close()


def test_other_tables_of_the_file_are_left_alone(path):
    path.parent.mkdir()
    connection = connected(path)
    connection.execute("INSERT INTO usage (day, tenant, sub) VALUES (20785, 'acme', 'ann')")
    connection.close()
    assert reopened(path) == []
    connection = connected(path)
    assert list(connection.execute("SELECT day FROM usage")) == [(20785,)]
    connection.close()


def test_one_process_has_the_file_at_a_time(path):
    store = RevocationStore(path)
    store.open(110.0)
    other = RevocationStore(path)
    with pytest.raises(RevocationError, match=r"access\.db is in use by process \d+: stop it, or set"):
        other.open(110.0)
    other.close()
    store.close()
    assert reopened(path) == []


@pytest.mark.e2e
def test_the_lock_ends_with_its_process(path):
    path.parent.mkdir()
    code = "import os, pathlib, sys; from marketfeed.file_lock import FileLock\n"
    code += "FileLock(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(path)], timeout=30)
    assert reopened(path) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no database " * 100, " is no file of access, or its beginning is damaged: restore"),
        (None, " is a folder"),
    ],
    ids=["junk", "folder"],
)
def test_a_file_that_is_none_is_told(path, content, why):
    path.parent.mkdir()
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(RevocationError, match=f"access.db{why}"):
        reopened(path)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "var").write_text("a file")
    with pytest.raises(RevocationError, match=r"var: (File exists|Not a directory)"):
        reopened(tmp_path / "var" / "access.db")


def test_rows_that_are_no_revocations_are_told(path):
    store = RevocationStore(path)
    store.open(110.0)
    assert store._connection is not None
    store._connection.execute("INSERT INTO revocations VALUES ('colour', 'red', 1, NULL, '')")
    store.close()
    with pytest.raises(RevocationError, match=r"access\.db: not revocations: Invalid enum value 'colour'"):
        reopened(path)


def test_a_failed_write_is_told_until_one_succeeds(path):
    store = RevocationStore(path)
    store.open(110.0)
    assert store._connection is not None
    store._connection.pragma("query_only", 1)
    for write in (lambda: store.add(ANN), lambda: store.take_back("sub", "ann")):
        with pytest.raises(RevocationError, match=r"access\.db cannot be opened \("):
            write()
        assert store.problem is not None
    store._connection.pragma("query_only", 0)
    store.add(ANN)
    assert store.problem is None
    store.close()
    with pytest.raises(RevocationError, match="is closed"):
        store.add(ANN)


def test_a_full_disk_is_told(path):
    store = RevocationStore(path)
    store.open(110.0)
    assert store._connection is not None
    store._connection.pragma("max_page_count", store._connection.pragma("page_count"))
    with pytest.raises(RevocationError, match=r"no room to write .*access\.db: free space"):
        store.add(msgspec.structs.replace(ANN, comment="x" * 8192))
    store.close()
