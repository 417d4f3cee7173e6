"""Where ``marketfeed revoke`` makes its changes: in the engine, or in the file while no engine runs.

--url, or a process holds the file ──► HTTP to the engine's admin port
nobody holds it ───────────────────► the engine's handlers over the file

An engine that runs has to make each change itself: it ends the sessions.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from marketfeed.access.kept_revocations import KeptRevocations
from marketfeed.admin.access_operations import OFF, AccessOperations
from marketfeed.cli.alerts_http import Answer, Call, CallError, UnreachableError
from marketfeed.cli.alerts_offline import answer_of
from marketfeed.cli.alerts_place import BUSY_S, ELSEWHERE, LOOK_S, NOT_TEXT, engine_of
from marketfeed.cli.options import fail, load_config
from marketfeed.errors import ConfigError, RevocationError
from marketfeed.file_lock import held

if TYPE_CHECKING:
    from marketfeed.access.revocations import Kind, Revocation
    from marketfeed.config.schema import AuthConfig


@dataclass(frozen=True)
class RevokePlace:
    """The place, by the options of the command."""

    config: Path | None = None
    set_: list[str] | None = None
    url: str | None = None
    ca: Path | None = None
    admin_token_file: Path | None = None

    def answer(self, call: Call) -> tuple[Answer, bool]:
        """Return the answer to ``call``, and whether an engine gave it; raises the exit with status 2."""
        loaded = load_config(self.config, self.set_)
        auth = loaded.config.auth
        path = Path(auth.path)
        if self.url is None and auth.mode == "none":
            raise fail(f"{OFF}; {ELSEWHERE}")
        until_s = time.monotonic() + BUSY_S
        while True:
            try:
                if self.url is not None or held(path):
                    engine = engine_of(loaded, call, self.url, self.ca, self.admin_token_file)
                    return engine.answer(call), True
                return _offline(auth, call), False
            except (CallError, ConfigError) as error:
                raise fail(str(error)) from None
            except UnicodeEncodeError:
                raise fail(NOT_TEXT) from None
            except (UnreachableError, RevocationError) as error:
                # The holder may be an engine that starts, or another command, which is done soon.
                refused = isinstance(error, UnreachableError) and error.refused and self.url is None
                taken = isinstance(error, RevocationError) and held(path)
                if not (refused or taken) or time.monotonic() >= until_s:
                    raise fail(str(error)) from None
            time.sleep(LOOK_S)


class _Offline:
    """Revokes without an engine, and so without sessions."""

    def __init__(self, kept: KeptRevocations) -> None:
        self._kept = kept
        self.revocations, self.take_back = kept.every, kept.take_back

    async def revoke(self, kind: Kind, value: str, comment: str) -> tuple[Revocation, int]:
        return await self._kept.add(kind, value, comment), 0


def _offline(auth: AuthConfig, call: Call) -> Answer:
    if not Path(auth.path).exists():
        raise fail(f"there is no {auth.path}: an engine with access control creates it; {ELSEWHERE}")
    kept = KeptRevocations(auth, time.time)
    with kept.open():
        return trio.run(answer_of, AccessOperations(_Offline(kept)).routes, call)
