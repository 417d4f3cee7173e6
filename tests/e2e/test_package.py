"""What users install: the wheel built from the source distribution has all files of the page and the feeds.

Links of the repository, such as marketfeed/web/marketfeed.js, are files there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("marketfeed", "feeds", "js", "pyproject.toml", "README.md", "LICENSE")
IGNORED = shutil.ignore_patterns("__pycache__", "node_modules")


def build(kind: str, source: Path, target: Path) -> Path:
    """Build with the installed setuptools; return the path of the result."""
    code = f"import sys, setuptools.build_meta as backend; backend.build_{kind}(sys.argv[1])"
    command = [sys.executable, "-c", code, str(target)]
    subprocess.run(command, cwd=source, capture_output=True, text=True, check=True, timeout=120)
    (built,) = target.iterdir()
    return built


def contents(folder: Path, *parts: str) -> dict[str, bytes]:
    """Return the files below parts of ``folder``, as links lead to them, by path."""
    found = {}
    for part in parts:
        for path in (folder / part).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.mark.slow
def test_the_wheel_has_the_page_the_browser_client_and_the_feeds(tmp_path):
    for name in ("source", "sdist", "unpacked", "wheel"):
        (tmp_path / name).mkdir()
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, tmp_path / "source" / name, symlinks=True, ignore=IGNORED)
        else:
            shutil.copy(path, tmp_path / "source" / name)
    with tarfile.open(build("sdist", tmp_path / "source", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    with zipfile.ZipFile(build("wheel", unpacked, tmp_path / "wheel")) as wheel:
        installed = {
            name: wheel.read(name)
            for name in wheel.namelist()
            if name.startswith(("marketfeed/web/", "marketfeed/feeds/"))
        }
    expected = contents(ROOT, "marketfeed/web")
    expected |= {f"marketfeed/{name}": body for name, body in contents(ROOT, "feeds").items()}
    assert "marketfeed/web/marketfeed.js" in expected
    assert installed == expected
