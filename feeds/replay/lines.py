"""Recordings of one line a message, plain or gzip, decoded line by line."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from feeds.replay.recording import Decoded, Decoder, Symbol, Teller, unreadable
from marketfeed.errors import ConfigError

CHUNK_LINES: Final = 256  # decoded in one go, about 1 ms
FIRST_LINES: Final = 20  # looked at to tell whether this is such a file


class Lines:
    """A file that a :class:`Decoder` reads."""

    def __init__(self, path: Path, format: str, decoder: Decoder, symbol: Symbol, teller: Teller) -> None:
        """Look at the first lines; raises ConfigError."""
        self._path = path
        self._decoder = decoder
        self._symbol = symbol
        self._teller = teller
        try:
            with open_lines(path) as file:
                first_lines = list(islice(file, FIRST_LINES))
        except (OSError, EOFError, zlib.error) as error:
            raise unreadable(path, error) from None
        if not decoder.looks_right(first_lines):
            raise ConfigError(f"path: {path} does not look like {format}")

    def chunks(self) -> Iterator[Decoded]:
        """Yield the file decoded, CHUNK_LINES lines at a time; what is broken is counted and logged."""
        line_number, damage = 1, None
        with open_lines(self._path) as file:
            while damage is None:
                lines: list[bytes] = []
                try:
                    lines.extend(islice(file, CHUNK_LINES))
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                    damage = error  # what came before it is whole
                if not lines:
                    break
                decoded = self._decoder.decode(lines, self._symbol)
                self._teller.events(decoded.events)
                for offset, what in decoded.broken:
                    self._teller.broken(f"{self._path}:{line_number + offset}", what)
                line_number += len(lines)
                yield decoded
        if damage is not None:
            self._teller.damaged(f"{self._path}:{line_number}", str(damage))


def open_lines(path: Path) -> io.BufferedIOBase:
    """Open ``path`` for reading lines of bytes, unpacked if its name ends in .gz."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")
