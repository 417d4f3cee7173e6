"""Disks for SQLite that lose power or run full: VFS of apsw over the file system.

Files are real, so that the program that runs sees what it wrote. Beside each, ``PowerLossDisk`` keeps what
would be on the disk: what was synced, and the writes since, in order. At a power loss each of these is on the
disk or not, at random, since a disk writes in any order, and the last one may be there in part. New and
deleted files are taken as synced. Source: https://sqlite.org/atomiccommit.html, sections 2 and 9.
"""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

SECTOR = 512
numbers = itertools.count()


class _Content:
    """A file on the disk: synced bytes, and writes (offset, bytes) or truncations (size) since."""

    def __init__(self) -> None:
        self.synced = bytearray()
        self.unsynced: list[tuple[int, bytes] | int] = []

    def sync(self) -> None:
        for change in self.unsynced:
            apply(self.synced, change)
        self.unsynced.clear()

    def after_power_loss(self, rng: random.Random) -> bytes:
        content = bytearray(self.synced)
        for change in self.unsynced[:-1]:
            if rng.random() < 0.5:
                apply(content, change)
        for change in self.unsynced[-1:]:
            if isinstance(change, int):
                continue
            offset, data = change
            apply(content, (offset, data[: rng.randrange(len(data) + 1) // SECTOR * SECTOR]))
        return bytes(content)


def apply(content: bytearray, change: tuple[int, bytes] | int) -> None:
    if isinstance(change, int):
        del content[change:]
        return
    offset, data = change
    content.extend(bytes(max(offset - len(content), 0)))
    content[offset : offset + len(data)] = data


class PowerLossDisk(apsw.VFS):
    """A disk whose power fails at change number ``fails_at``; changes are writes, syncs and truncations.

    At that moment ``on_loss`` is called, and ``image`` gets the content of the files by name. The program
    goes on.
    """

    def __init__(self, rng: random.Random, fails_at: int, on_loss: Callable[[], None]) -> None:
        self.name = f"power-loss-{next(numbers)}"
        super().__init__(self.name, "")
        self.files: dict[str, _Content] = {}
        self.image: dict[str, bytes] | None = None
        self.changes = 0
        self._rng, self._fails_at, self._on_loss = rng, fails_at, on_loss
        self._lock = threading.Lock()

    def xOpen(self, name, flags):
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        content = self.files.setdefault(Path(path).name, _Content()) if path else _Content()
        return _File(self, content, name, flags)

    def xDelete(self, name, sync):
        super().xDelete(name, False)
        self.files.pop(Path(name).name, None)

    def change(self) -> None:
        """Count a change, and lose the power if it is the one."""
        with self._lock:
            self.changes += 1
            if self.changes == self._fails_at:
                self._on_loss()
                self.image = {name: file.after_power_loss(self._rng) for name, file in self.files.items()}

    def restore(self, folder: Path) -> None:
        """Write the files as the power loss left them into ``folder``."""
        assert self.image is not None
        folder.mkdir()
        for name, content in self.image.items():
            (folder / name).write_bytes(content)


class _File(apsw.VFSFile):
    def __init__(self, disk: PowerLossDisk, content: _Content, name, flags) -> None:
        super().__init__("", name, flags)
        self._disk, self._content = disk, content

    def xWrite(self, data, offset):
        super().xWrite(data, offset)
        self._content.unsynced.append((offset, bytes(data)))
        self._disk.change()

    def xTruncate(self, newsize):
        super().xTruncate(newsize)
        self._content.unsynced.append(newsize)
        self._disk.change()

    def xSync(self, flags):
        self._disk.change()
        self._content.sync()


class FullDisk(apsw.VFS):
    """A disk with room for files of ``room_bytes`` each; None means enough, and 0 refuses every write."""

    def __init__(self) -> None:
        self.name = f"full-{next(numbers)}"
        super().__init__(self.name, "")
        self.room_bytes: int | None = None

    def xOpen(self, name, flags):
        return _BoundedFile(self, name, flags)


class _BoundedFile(apsw.VFSFile):
    def __init__(self, disk: FullDisk, name, flags) -> None:
        super().__init__("", name, flags)
        self._disk = disk

    def xWrite(self, data, offset):
        room_bytes = self._disk.room_bytes
        if room_bytes is not None and offset + len(data) > (room_bytes and max(room_bytes, self.xFileSize())):
            raise apsw.FullError("no space left on device")
        super().xWrite(data, offset)
