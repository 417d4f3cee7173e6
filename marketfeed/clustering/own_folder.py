"""The folder of a node, by a random id in a file whose lock the process holds.

A lease has the id of its holder's folder. A process that has the lock of the same folder, under the same
node name, knows that the holder has ended: the kernel frees a lock when its process ends. So a node that is
started again on its machine takes its lease over at once, instead of waiting until it has expired.
"""

from __future__ import annotations

import re
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import structlog

from marketfeed.file_lock import FileLock, HeldError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ID_BYTES: Final = 16
_ID: Final = re.compile(r"[0-9a-f]{32}")

log = structlog.get_logger()


@contextmanager
def own_folder(path: Path) -> Iterator[str]:
    """Hold the lock on ``path`` during the block; yield the id in it, "" without a lock.

    The id is made if there is none, or not a valid one. Without the lock nothing is lost but time.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
    except HeldError as error:
        log.warning("another process has the folder of this node", path=str(path), pid=str(error))
        yield ""
        return
    except OSError as error:
        log.warning("the folder of this node cannot be written", path=str(path), reason=error.strerror)
        yield ""
        return
    try:
        yield _id(path)
    finally:
        lock.release()


def _id(path: Path) -> str:
    try:
        if path.exists() and _ID.fullmatch(found := path.read_text("ascii", "replace").strip()):
            return found
        made = secrets.token_hex(ID_BYTES)
        path.write_text(f"{made}\n")
    except OSError as error:
        log.warning("the folder of this node cannot be written", path=str(path), reason=error.strerror)
        return ""
    return made
