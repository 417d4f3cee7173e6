"""The alert log on a real file system that runs full: a small tmpfs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def test_the_log_survives_a_full_file_system(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted by root alone; tests/alerts/test_disk_full.py does without")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.full_tmpfs", str(disk)],
            capture_output=True,
            text=True,
            timeout=100,
        )
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    answered = found["answered"]
    assert answered > 20
    assert found == {
        "answered": answered,
        "error": f"no room to write {disk / 'alerts.db'}: free space on its disk",
        "read": answered,
        "again": answered + 1,
        "head": answered + 1,
    }
