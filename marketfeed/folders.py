"""Folders of files that are about to be written."""

from __future__ import annotations

import tempfile
from pathlib import Path


def folder_problem(folder: Path) -> str:
    """Return why files cannot be created in ``folder``, which may have to be made first; "" if they can.

    It is tried with a file without a name in the nearest folder that is there, which leaves nothing behind.
    """
    there = folder
    try:
        while not there.exists():
            if there == there.parent:
                return f"there is no folder {folder}"
            there = there.parent
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    if not there.is_dir():
        return f"{there} is a file, and no folder"
    try:
        with tempfile.TemporaryFile(dir=there):
            return ""
    except OSError as error:
        return f"no file can be created in {there}: {error.strerror or error}"
