"""Checks that files can be written, before they are; folders for secrets."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path


SECRETS_MODE: Final = 0o700  # of a new folder for secrets


def make_secrets_folder(folder: Path) -> None:
    """Create ``folder`` for its owner alone, unless it exists, and those that it is in. Raises OSError."""
    folder.mkdir(SECRETS_MODE, parents=True, exist_ok=True)


def file_problem(path: Path) -> str:
    """Return why ``path`` cannot be created or appended to; "" if it can."""
    try:
        if not path.exists():
            return folder_problem(path.parent)
    except OSError as error:
        return f"{path}: {error.strerror or error}"
    if path.is_dir():
        return f"{path} is a folder, and must be a file"
    return "" if os.access(path, os.W_OK) else f"{path} cannot be written: Permission denied"


def folder_problem(folder: Path) -> str:
    """Return why files cannot be created in ``folder``, which need not exist; "" if they can.

    Creates an unnamed file in the nearest existing folder, which leaves nothing behind.
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
