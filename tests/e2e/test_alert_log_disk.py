"""The alert log on a real file system that runs full: a tmpfs in a mount namespace of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

MOUNTED = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"')


def test_the_log_survives_a_full_file_system(tmp_path):
    if subprocess.run([*MOUNTED, tmp_path, "true"], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs requires user namespaces; tests/alerts/test_disk_full.py does without")
    done = subprocess.run(
        [*MOUNTED, tmp_path, sys.executable, "-m", "tests.support.full_tmpfs", tmp_path],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    answered = found["answered"]
    assert answered > 20
    assert found == {
        "answered": answered,
        "error": f"no room to write {tmp_path / 'alerts.db'}: free space on its disk",
        "read": answered,
        "again": answered + 1,
        "head": answered + 1,
    }
