"""Writes recordings: binary frames back to back in a file, or in several, each complete in itself.

A file begins with the symbols announced so far, so that any one of them can be
read alone. Compressed ones (``.mfr.zst``) are one Zstandard stream that is
flushed to a block's end with every write: whatever ends the program, all that
was written before can be unpacked, and no frame in it is cut.
"""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from marketfeed.core.binary import symbols_frame
from marketfeed.errors import ConfigError
from marketfeed.folders import folder_problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PLAIN, PACKED = ".mfr", ".mfr.zst"
LEVEL: Final = 3  # of Zstandard: 400 MB/s, and what more would gain in size is little
SYNC_NS: Final = 5_000_000_000  # on disk, and not only with the kernel, at least this often


class RecordingWriter:
    """One recording under way.

    ``out`` is the file; with a rotation each file is named after it and the
    UTC time at which it begins, such as ``day.20260102T090000.000Z.mfr.zst``, so that
    their names sort by time. Existing files are never written to; a folder
    that is missing is made.
    """

    def __init__(self, out: Path, rotate_bytes: int = 0, rotate_ns: int = 0) -> None:
        """Prepare; nothing is opened before the first write. Raises ConfigError."""
        self._suffix = next((s for s in (PACKED, PLAIN) if out.name.endswith(s)), "")
        if not self._suffix or out.name == self._suffix:
            raise ConfigError(f"--out {out}: a name that ends in {PLAIN}, or {PACKED} to have it compressed")
        if self._suffix == PACKED:
            try:
                import zstandard
            except ImportError:
                raise ConfigError(
                    f"--out {out}: {PACKED} needs the package zstandard: pip install 'marketfeed[zstd]'"
                ) from None
            self._zstandard = zstandard
        if problem := folder_problem(out.parent):
            raise ConfigError(f"--out {out}: {problem}")
        self._rotate_bytes, self._rotate_ns = rotate_bytes, rotate_ns
        if not self._rotates and out.exists():
            raise ConfigError(f"--out {out}: exists, and recordings are never overwritten")
        self._out = out
        self._file: BinaryIO | None = None
        self._packer: Any = None
        self._began_ns = self._synced_ns = 0
        self._here = 0  # bytes in this file
        self.files: list[Path] = []
        self.raw_bytes = self.written_bytes = 0

    @property
    def _rotates(self) -> bool:
        return bool(self._rotate_bytes or self._rotate_ns)

    def write(self, frames: bytes, symbols: Mapping[str, int], now_ns: int) -> None:
        """Append whole ``frames``; ``symbols`` are those announced before them. Raises OSError."""
        if self._file is not None and self._is_full(now_ns):
            self.close()
        if self._file is None:
            self._open(symbols, now_ns)
        self._append(frames)
        if now_ns - self._synced_ns >= SYNC_NS:
            self._synced_ns = now_ns
            os.fdatasync(self._opened.fileno())

    def close(self) -> None:
        """End the file under way, if there is one; raises OSError."""
        if self._file is None:
            return
        file, self._file = self._file, None
        with file:
            if self._packer is not None:
                self._count(file.write(self._packer.flush()))
            os.fdatasync(file.fileno())

    def _is_full(self, now_ns: int) -> bool:
        by_size = bool(self._rotate_bytes) and self._here >= self._rotate_bytes
        return by_size or (bool(self._rotate_ns) and now_ns - self._began_ns >= self._rotate_ns)

    def _open(self, symbols: Mapping[str, int], now_ns: int) -> None:
        path = self._out
        if self._rotates:
            began = datetime.fromtimestamp(now_ns / 1e9, UTC)
            stamp = f"{began:%Y%m%dT%H%M%S}.{began.microsecond // 1000:03}Z"
            path = path.with_name(f"{path.name.removesuffix(self._suffix)}.{stamp}{self._suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("xb", buffering=0)
        self.files.append(path)
        self._packer = None
        if self._suffix == PACKED:
            self._packer = self._zstandard.ZstdCompressor(LEVEL, write_checksum=True).compressobj()
        self._began_ns = self._synced_ns = now_ns
        self._here = 0
        if symbols:
            self._append(symbols_frame(symbols, now_ns))

    @property
    def _opened(self) -> BinaryIO:
        assert self._file is not None
        return self._file

    def _append(self, frames: bytes) -> None:
        self.raw_bytes += len(frames)
        data = frames
        if self._packer is not None:
            whole = self._zstandard.COMPRESSOBJ_FLUSH_BLOCK
            data = self._packer.compress(frames) + self._packer.flush(whole)
        view = memoryview(data)
        whole = self._here
        try:
            while view:  # an unbuffered file may take part of it
                taken = self._opened.write(view)
                self._count(taken)
                view = view[taken:]
        except OSError:
            self._cut(whole)
            raise

    def _cut(self, size: int) -> None:
        """Have the file end at ``size``, where it was whole, after what could not be written."""
        self._packer = None  # it has taken what is not in the file: its end would not fit
        self.written_bytes -= self._here - size
        self._here = size
        with contextlib.suppress(OSError):  # then its last frame is cut, which readers tell
            self._opened.truncate(size)

    def _count(self, size: int) -> None:
        self._here += size
        self.written_bytes += size
