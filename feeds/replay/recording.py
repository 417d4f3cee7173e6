"""Interfaces of recording formats, and the reporter of faults in recordings."""

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
MOST_KINDS: Final = 8  # kinds of skipped records named in an error
SHOWN_CHARS: Final = 80  # of a line or a cell in a message
_REASON_CHARS: Final = 400
NOT_KEPT: Final = "not kept by `where`"
LOGGED: Final = 10  # broken lines or records logged one by one; further ones are counted
_NO_SYMBOL: Final = re.compile(r'[\s,*"\\]+')


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded chunk of a recording: ticks, their times, and counts of everything else."""

    batch: Batch  # channels is set
    times_ns: NDArray[np.int64]  # (len(batch),) recorded times
    broken: list[tuple[int, str]] = field(default_factory=list)  # line from 0, reason
    events: dict[str, int] = field(default_factory=dict)  # counters of the feed
    passed: dict[str, int] = field(default_factory=dict)  # records that are no ticks, by the format's name


NOTHING: Final = Decoded(Batch(channels=np.empty(0, np.uint8)), np.empty(0, np.int64))


class Decoder(Protocol):
    """Stateless decoder of lines of one format."""

    def matches(self, first_lines: list[bytes]) -> bool:
        """Return whether these may be the first lines of a file of this format."""
        ...

    def decode(self, lines: list[bytes], symbol: Symbol) -> Decoded:
        """Return the ticks in ``lines``; ``symbol`` maps a name to its id, or None to drop the tick."""
        ...


class Source(Protocol):
    """One recording, whose file is opened for each pass. The constructor probes the start of the file."""

    def chunks(self) -> Iterator[Decoded]:
        """Yield one pass of the recording, in chunks decoded within a few milliseconds.

        Broken rows are reported to the :class:`Reporter` and skipped; damage
        that makes the rest unreadable is reported, too. Neither raises.
        """
        ...


class Reporter:
    """Counter of faults in a recording, which logs the first few with their places.

    Without an intake nothing is counted for metrics or logged. Probes use that, and
    summarise what they read with :meth:`account`.

    ``damage`` is the place and reason of the first damage in the current pass;
    empty if all files were read to their ends.
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
        """Begin a pass: reset its counts."""
        self.damage = ""
        self._read.clear()
        self._passed.clear()

    def read(self, kind: str, times: int) -> None:
        """Count lines, rows or records (``kind``) that were read."""
        self._read[kind] += times

    def passed(self, kinds: dict[str, int]) -> None:
        """Count records that were no ticks, by kind."""
        self._passed.update(kinds)

    @property
    def kinds(self) -> Set[str]:
        """Kinds of records in this pass that were no ticks."""
        return self._passed.keys()

    def account(self) -> str:
        """Return a summary of this pass for messages: records read, and those that were no ticks."""
        read = " and ".join(amount(times, kind) for kind, times in self._read.items() if times)
        passed = ", ".join(f"{times:,} {kind}" for kind, times in self._passed.most_common(MOST_KINDS))
        more = ", …" if len(self._passed) > MOST_KINDS else ""
        return (read or "nothing to read") + (f" ({passed}{more})" if passed else "")

    def broken(self, at: str, reason: str, kind: str = "line", text: bytes | None = None) -> None:
        """Count one broken ``kind`` at ``at``, a file and a place in it; ``text`` is its content."""
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
        """Count ticks with an unknown ``word`` in ``column``; log each of the first few words."""
        if self._intake is None:
            return
        self._intake.count(f"unknown_{column}", times)
        if (column, word) not in self._words and len(self._words) < LOGGED:
            self._words.add((column, word))
            self._intake.log.warning(f"unknown {column}", at=at, word=shown(word), reason=reason)

    def damaged(self, at: str, reason: str, kind: str = "line") -> None:
        """Count and log damage that makes a file unreadable from ``at`` on."""
        reason = f"the file is damaged from here on: {reason}"
        self.damage = self.damage or f"{at}: {reason}"
        if self._intake is None:
            return
        self._intake.count(f"broken_{kind}")
        self._intake.log.error("damaged file", at=at, reason=reason)

    def notice(self, about: str, text: str) -> None:
        """Log a warning about the whole recording, once per topic."""
        if self._intake is not None and about not in self._noticed:
            self._noticed.add(about)
            self._intake.log.warning(about, reason=text)

    def events(self, events: dict[str, int]) -> None:
        """Add to the feed's counters."""
        for event, times in events.items():
            if times and self._intake is not None:
                self._intake.count(event, times)


class DamagedError(Exception):
    """The rest of the file cannot be read.

    ``cut``: the file is truncated; otherwise its data is corrupt.
    """

    def __init__(self, reason: str, cut: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cut = cut


def symbol_name(text: str) -> str:
    """Replace characters that symbols exclude, such as the spaces in ``AAPL  250221C00250000``."""
    return _NO_SYMBOL.sub("_", text.strip())


def shown(text: bytes | str, limit: int = SHOWN_CHARS) -> str:
    """Return the start of ``text`` for a message; control characters and invalid UTF-8 are escaped."""
    chars = text if isinstance(text, str) else text[: 4 * limit + 4].decode("utf-8", "backslashreplace")
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in chars[:limit])
    return escaped[:limit] + ("…" if len(escaped) > limit or len(chars) > limit else "")


def unreadable(path: Path, error: Exception) -> ConfigError:
    """Return the error for a file that cannot be opened."""
    return ConfigError(f"path: {path}: {getattr(error, 'strerror', None) or error}")


def needs(package: str, extra: str, key: str) -> ConfigError:
    """Return the error for a missing optional package."""
    return ConfigError(f"{key} needs the package {package}: pip install 'marketfeed[{extra}]'")
