"""Recordings in several files, a folder or a pattern, replayed as one in order of file names."""

from __future__ import annotations

import errno
import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from marketfeed.errors import ConfigError
from marketfeed.feeds.replay.archives import suffix

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator

    from marketfeed.feeds.replay.recording import Decoded, Reporter, Source

# Suffixes of each format's files in a folder, case-insensitive, before the suffix of a compressed file.
ENDINGS: Final = {
    "binance-raw": (".txt", ".log", ".raw", ".json", ".jsonl", ".ndjson"),
    "csv": (".csv", ".txt", ".tsv", ".psv", ".asc", ".dat"),
    "parquet": (".parquet", ".pq"),
    "dbn": (".dbn",),
    "marketfeed": (".mfr",),
}


def files_of(path: Path, format: str, member: re.Pattern[str] | None) -> list[Path]:
    """Return the files that ``path`` names, sorted by name; raises ConfigError if there is none.

    ``path`` is a file, a folder, or a pattern such as ``2024/**/*.csv.gz``. If there are several files,
    ``member`` selects by name; .zip files are always selected, because ``member`` selects within them.
    """
    if path.is_dir():
        found = [file for file in path.iterdir() if _is_of(file, ENDINGS[format])]
        what = f"{path} holds no file that ends in {', '.join(ENDINGS[format])}, compressed or not"
    elif path.exists():
        return [path]
    elif not glob.has_magic(str(path)):
        raise ConfigError(f"path: {path}: {os.strerror(errno.ENOENT)}")
    else:
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
        what = f"no file matches {path}"
    found = sorted(file for file in found if file.is_file())
    if not found:
        raise ConfigError(f"path: {what}")
    if member is not None:
        found = [file for file in found if suffix(file) == ".zip" or member.search(file.name)]
        if not found:
            raise ConfigError(f"member: no file at {path} matches")
    return found


def _is_of(path: Path, endings: tuple[str, ...]) -> bool:
    if path.name.startswith("."):
        return False
    if not suffix(path):
        return path.suffix.lower() in endings
    inner = path.with_suffix("").suffix.lower()
    return inner in endings or not inner


class InOrder:
    """Source for several files of one format, in order; one file is open at a time."""

    def __init__(self, paths: list[Path], opened: Callable[[Path], Source], reporter: Reporter) -> None:
        """Probe the first file; raises ConfigError. ``opened`` opens the source of one file."""
        opened(paths[0])
        self._paths = paths
        self._opened = opened
        self._reporter = reporter

    def chunks(self) -> Iterator[Decoded]:
        """Yield one pass over all files; files that do not match the configuration are reported."""
        for path in self._paths:
            try:
                source = self._opened(path)
            except ConfigError as error:
                self._reporter.damaged(str(path), str(error), "file")
                continue
            yield from source.chunks()
