"""The revocations in force and the file that keeps them: of the engine, or of a command while none runs."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from marketfeed.access.database import open_for_writing
from marketfeed.access.revocation_store import RevocationStore
from marketfeed.access.revocations import Revocation, Revocations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import apsw

    from marketfeed.access.revocations import Kind
    from marketfeed.config.schema import AuthConfig

MARGIN_S: Final = 60.0  # for which a revocation is kept after the last token that it revokes has expired


class KeptRevocations:
    """The revocations of ``auth.path``. ``auth`` may be replaced; ``now_s`` is the Unix clock."""

    def __init__(
        self,
        auth: AuthConfig,
        now_s: Callable[[], float],
        connect: Callable[[Path], apsw.Connection] = open_for_writing,
    ) -> None:
        self.auth = auth
        self._now_s = now_s
        self._revocations = Revocations()
        self._store = RevocationStore(Path(auth.path), connect)
        self._changing = trio.Lock()  # so that memory has the changes in the order of the file

    @contextmanager
    def open(self) -> Iterator[None]:
        """Read the file, and keep it open until the block ends. Raises RevocationError."""
        for revocation in self._store.open(self._now_s()):
            self._revocations.add(revocation)
        try:
            yield
        finally:
            self._store.close()

    @property
    def problem(self) -> str | None:
        """Return why the last write failed; None if it did not."""
        return self._store.problem

    def every(self) -> tuple[Revocation, ...]:
        """Return those in force, oldest first."""
        self._revocations.expire(self._now_s())
        return self._revocations.every()

    async def add(self, kind: Kind, value: str, comment: str) -> Revocation:
        """Revoke from now on, durably: for ever in mode keys, else until the last token has expired.

        Raises RevocationError; then nothing is revoked.
        """
        async with self._changing:
            now_s = self._now_s()
            until_s = now_s + self.auth.max_ttl_s + MARGIN_S if self.auth.mode == "jwt" else None
            revocation = Revocation(kind, value, now_s, until_s, comment)
            await trio.to_thread.run_sync(self._store.add, revocation)
            self._revocations.add(revocation)
        return revocation

    async def take_back(self, kind: Kind, value: str) -> bool:
        """Remove a revocation, durably; return False if there is none.

        Raises RevocationError; then it remains.
        """
        async with self._changing:
            if not any((one.kind, one.value) == (kind, value) for one in self.every()):
                return False
            await trio.to_thread.run_sync(self._store.take_back, kind, value)
            self._revocations.take_back(kind, value)
        return True
