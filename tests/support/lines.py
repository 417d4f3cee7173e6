"""Lines that a process prints, read as they come."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

T = TypeVar("T")
R = TypeVar("R")
WAIT_S = 60


class Lines(Generic[T]):
    """The standard output of ``process``; ``parse`` makes each line an entry of ``all``."""

    def __init__(self, process: subprocess.Popen[str], parse: Callable[[str], T]) -> None:
        self.all: list[T] = []
        self._process, self._parse = process, parse
        self._grown = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._grown:
                self.all.append(self._parse(line))
                self._grown.notify_all()

    def wait(self, found: Callable[[list[T]], R | None], timeout_s: float = WAIT_S) -> R:
        """Return what ``found`` returns about all entries so far, once it is true."""
        with self._grown:
            result = self._grown.wait_for(lambda: found(self.all), timeout_s)
            assert result, self.all[-20:]
            return result

    def close(self) -> None:
        """Read what is left of a process that has ended."""
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
