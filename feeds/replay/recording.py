"""What a format of recordings has to offer, and what it makes of a piece of one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from marketfeed.core.counts import amount
from marketfeed.core.records import Batch
from marketfeed.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from marketfeed.ingest.feed import Intake

Symbol = Callable[[str], int | None]
MOST_KINDS: Final = 8  # of what was passed over, named in an error
SHOWN_CHARS: Final = 80  # of a line or a cell in a message
_REASON_CHARS: Final = 400
NOT_KEPT: Final = "not kept by `where`"
LOGGED: Final = 10  # broken lines or records logged one by one; further ones are counted
_NO_SYMBOL: Final = re.compile(r'[\s,*"\\]+')


@dataclass(frozen=True, slots=True)
class Decoded:
    """A piece of a recording: its ticks, when each came, and what else was in it."""

    batch: Batch  # channels is set
    times_ns: NDArray[np.int64]  # (len(batch),) the recorder's clock
    broken: list[tuple[int, str]] = field(default_factory=list)  # line, from 0, and what is wrong with it
    events: dict[str, int] = field(default_factory=dict)  # counted
    passed: dict[str, int] = field(default_factory=dict)  # what is no tick, by what the format calls it


NOTHING: Final = Decoded(Batch(channels=np.empty(0, np.uint8)), np.empty(0, np.int64))


class Decoder(Protocol):
    """Turns lines of one format into ticks. Keeps nothing between chunks."""

    def matches(self, first_lines: list[bytes]) -> bool:
        """Tell whether a file that begins like this is of this format."""
        ...

    def decode(self, lines: list[bytes], symbol: Symbol) -> Decoded:
        """Return the ticks in ``lines``; ``symbol`` maps a name to its id or None."""
        ...


class Source(Protocol):
    """One recording, its file opened anew for each pass. Made, it has looked at the beginning of the file."""

    def chunks(self) -> Iterator[Decoded]:
        """Yield the recording from its start, in pieces of a few milliseconds' work.

        What is broken is told to the :class:`Reporter` and left out, and so is a
        place from which on nothing can be read; nothing is raised for either.
        """
        ...


class Reporter:
    """Counts what is broken in a recording, and logs the first few by their place.

    Without an intake nothing is counted or logged: for a look at the beginning of a file, of which
    :meth:`account` tells.

    ``damage`` is the first place from which on a file could not be read in the
    present pass, and why; empty if all files were read to their ends.
    """

    def __init__(self, intake: Intake | None) -> None:
        self.damage = ""
        self._intake = intake
        self._logged = 0
        self._words: set[tuple[str, str]] = set()
        self._noticed: set[str] = set()
        self._read: Counter[str] = Counter()
        self._passed: Counter[str] = Counter()

    def begin(self) -> None:
        """Begin a pass: forget what was read and passed over in the one before."""
        self.damage = ""
        self._read.clear()
        self._passed.clear()

    def read(self, kind: str, times: int) -> None:
        """Note that so many lines, rows or records (``kind``) were read."""
        self._read[kind] += times

    def passed(self, kinds: dict[str, int]) -> None:
        """Note what was no tick, by what the format calls it."""
        self._passed.update(kinds)

    @property
    def kinds(self) -> Set[str]:
        """What in this pass was no tick."""
        return self._passed.keys()

    def account(self) -> str:
        """Return in words what was read in this pass and what of it could not be used."""
        read = " and ".join(amount(times, kind) for kind, times in self._read.items() if times)
        passed = ", ".join(f"{times:,} {kind}" for kind, times in self._passed.most_common(MOST_KINDS))
        more = ", …" if len(self._passed) > MOST_KINDS else ""
        return (read or "nothing to read") + (f" ({passed}{more})" if passed else "")

    def broken(self, at: str, reason: str, kind: str = "line", text: bytes | None = None) -> None:
        """Count one broken ``kind`` at ``at``, a file and a place in it; ``text`` is what stands there."""
        self._passed["broken"] += 1
        if self._intake is None:
            return
        self._intake.count(f"broken_{kind}")
        self._logged += 1
        if self._logged <= LOGGED:
            reason = shown(reason, _REASON_CHARS)
            if text is not None:
                reason += f": {shown(text)}"
            if self._logged == LOGGED:
                reason += f"; further broken {kind}s are only counted"
            self._intake.log.warning(f"broken {kind}", at=at, reason=reason)

    def unknown_word(self, column: str, word: str, times: int, at: str, reason: str) -> None:
        """Count ticks whose ``column`` holds a word of unknown meaning; log each of the first few words."""
        if self._intake is None:
            return
        self._intake.count(f"unknown_{column}", times)
        if (column, word) not in self._words and len(self._words) < LOGGED:
            self._words.add((column, word))
            self._intake.log.warning(f"unknown {column}", at=at, word=shown(word), reason=reason)

    def damaged(self, at: str, reason: str, kind: str = "line") -> None:
        """Count and log that from ``at`` on a file cannot be read."""
        reason = f"the file is damaged from here on: {reason}"
        self.damage = self.damage or f"{at}: {reason}"
        if self._intake is None:
            return
        self._intake.count(f"broken_{kind}")
        self._intake.log.error("damaged file", at=at, reason=reason)

    def notice(self, about: str, text: str) -> None:
        """Log a warning that holds for the whole recording, once."""
        if self._intake is not None and about not in self._noticed:
            self._noticed.add(about)
            self._intake.log.warning(about, reason=text)

    def events(self, events: dict[str, int]) -> None:
        """Count what else was met."""
        for event, times in events.items():
            if times and self._intake is not None:
                self._intake.count(event, times)


class DamagedError(Exception):
    """From here on the file cannot be read.

    ``cut``: it ends here; else some byte of it is wrong.
    """

    def __init__(self, reason: str, cut: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cut = cut


def symbol_name(text: str) -> str:
    """Return ``text`` with what no symbol may hold replaced: ``AAPL  250221C00250000`` has spaces."""
    return _NO_SYMBOL.sub("_", text.strip())


def shown(text: bytes | str, limit: int = SHOWN_CHARS) -> str:
    """Return the beginning of ``text`` as it stands, but control characters and broken UTF-8 escaped."""
    chars = text if isinstance(text, str) else text[: 4 * limit + 4].decode("utf-8", "backslashreplace")
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in chars[:limit])
    return escaped[:limit] + ("…" if len(escaped) > limit or len(chars) > limit else "")


def unreadable(path: Path, error: Exception) -> ConfigError:
    """Return what to tell the operator of a file that cannot be opened."""
    return ConfigError(f"path: {path}: {getattr(error, 'strerror', None) or error}")


def needs(package: str, extra: str, key: str) -> ConfigError:
    """Return what to tell the operator where an optional package is missing."""
    return ConfigError(f"{key} needs the package {package}: pip install 'marketfeed[{extra}]'")
