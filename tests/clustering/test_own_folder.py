"""The folder of a node: one id for all its processes, one process at a time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from marketfeed.clustering.own_folder import own_folder
from marketfeed.file_lock import lock_path


def test_the_id_stays_from_one_process_to_the_next(tmp_path):
    path = tmp_path / "state" / "cluster.a"
    with own_folder(path) as first:
        assert len(first) == 32
    with own_folder(path) as second:
        assert second == first
    with own_folder(tmp_path / "other" / "cluster.a") as other:
        assert other not in ("", first)


def test_two_processes_never_have_it_at_once(tmp_path):
    path = tmp_path / "cluster.a"
    with own_folder(path) as mine:
        with capture_logs() as logs, own_folder(path) as second:
            assert second == ""
        assert [entry["event"] for entry in logs] == ["another process has the folder of this node"]
        assert logs[0]["pid"] == str(os.getpid())
    with own_folder(path) as third:
        assert third == mine


@pytest.mark.e2e
def test_a_process_that_was_killed_leaves_it_to_the_next(tmp_path):
    path = tmp_path / "cluster.a"
    program = (
        "import sys\nfrom pathlib import Path\nfrom marketfeed.clustering.own_folder import own_folder\n"
        "with own_folder(Path(sys.argv[1])) as mine:\n    print(mine, flush=True)\n    sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    theirs = child.stdout.readline().strip()
    with own_folder(path) as mine:
        assert mine == ""
    child.kill()
    child.communicate()
    with own_folder(path) as mine:
        assert mine == theirs


@pytest.mark.parametrize("content", ["", "abc", "Z" * 32, "\x00\xff" * 16])
def test_a_damaged_id_is_replaced(tmp_path, content):
    path = tmp_path / "cluster.a"
    path.write_text(content, "latin-1")
    with own_folder(path) as mine:
        assert len(mine) == 32
        assert mine != content


def test_a_folder_that_cannot_be_written_costs_the_lock_only(tmp_path):
    path = tmp_path / "cluster.a"
    lock_path(path).mkdir()
    with capture_logs() as logs, own_folder(path) as mine:
        assert mine == ""
    assert [entry["event"] for entry in logs] == ["the folder of this node cannot be written"]
    path.mkdir()
    lock_path(path).rmdir()
    with capture_logs() as logs, own_folder(path) as mine:
        assert mine == ""
    assert [entry["event"] for entry in logs] == ["the folder of this node cannot be written"]
