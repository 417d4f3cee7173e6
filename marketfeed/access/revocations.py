"""Revocations: which keys and tokens are no longer good although they are valid. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marketfeed.access.grant import Grant

Kind = Literal["sub", "tenant", "token"]


class Revocation(msgspec.Struct, frozen=True):
    """What was issued up to ``at_s`` to a `sub` or tenant, or the token or key with an id.

    It is of no use after ``until_s`` (None: for ever), when all that it revokes has expired.
    """

    kind: Kind
    value: str
    at_s: float
    until_s: float | None = None
    comment: str = ""


class Revocations:
    """A set of revocations. Of two of the same kind and value, the later one counts."""

    def __init__(self, revocations: Iterable[Revocation] = ()) -> None:
        self._all: dict[tuple[Kind, str], Revocation] = {}
        for one in revocations:
            self.add(one)

    def __len__(self) -> int:
        return len(self._all)

    def add(self, revocation: Revocation) -> None:
        """Add a revocation."""
        known = self._all.get((revocation.kind, revocation.value))
        if known is None or known.at_s <= revocation.at_s:
            self._all[revocation.kind, revocation.value] = revocation

    def take_back(self, kind: Kind, value: str) -> None:
        """Remove a revocation, if there is one."""
        self._all.pop((kind, value), None)

    def every(self) -> tuple[Revocation, ...]:
        """Return all, oldest first."""
        return tuple(sorted(self._all.values(), key=lambda one: one.at_s))

    def expire(self, now_s: float) -> None:
        """Forget those that are of no use any more."""
        self._all = {
            key: one for key, one in self._all.items() if one.until_s is None or one.until_s >= now_s
        }

    def revokes(self, grant: Grant) -> bool:
        """Return whether ``grant`` is revoked. Without a time of issue, it counts as issued before.

        A token whose `iat` is in whole seconds may have been issued later in the second of the revocation;
        it counts as issued before too.
        """
        if not self._all:
            return False
        if grant.token_id and ("token", grant.token_id) in self._all:
            return True
        for kind, value in (("sub", grant.claims.sub), ("tenant", grant.claims.tenant)):
            found = self._all.get((kind, value))  # type: ignore[arg-type]
            if found is not None and (grant.issued_s is None or grant.issued_s <= found.at_s):
                return True
        return False
