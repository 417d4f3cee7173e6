"""Writing of recordings: binary frames back to back, in one file or in several that rotate.

Each file begins with the symbols announced so far, so that it can be read
without the others. A compressed file (``.mfr.zst``) is one Zstandard stream,
flushed to the end of a block with every write: if the program is killed, all
earlier writes can be decompressed, in whole frames.
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
LEVEL: Final = 3  # of Zstandard: 400 MB/s; higher levels save little space
SYNC_NS: Final = 5_000_000_000  # longest time between calls of fdatasync while data come


class RecordingWriter:
    """Writer of one recording.

    ``out`` is the file. With rotation, each file's name also has the UTC time
    of its start, such as ``day.20260102T090000.000Z.mfr.zst``, so that names
    sort by time. Existing files are never changed; missing folders are made.
    """

    def __init__(self, out: Path, rotate_bytes: int = 0, rotate_ns: int = 0) -> None:
        """Check the arguments; the first write opens the file. Raises ConfigError."""
        self._suffix = next((s for s in (PACKED, PLAIN) if out.name.endswith(s)), "")
        if not self._suffix or out.name == self._suffix:
            raise ConfigError(f"--out {out}: must end in {PLAIN}, or {PACKED} for compression")
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
            raise ConfigError(f"--out {out}: the file exists; recordings are never overwritten")
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
        """Append complete ``frames``; ``symbols`` were announced before them. Raises OSError."""
        if self._file is not None and self._is_full(now_ns):
            self.close()
        if self._file is None:
            self._open(symbols, now_ns)
        self._append(frames)
        if now_ns - self._synced_ns >= SYNC_NS:
            self._synced_ns = now_ns
            os.fdatasync(self._opened.fileno())

    def close(self) -> None:
        """Complete and close the open file, if any; raises OSError."""
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
            while view:  # an unbuffered file may write only a part
                taken = self._opened.write(view)
                self._count(taken)
                view = view[taken:]
        except OSError:
            self._cut(whole)
            raise

    def _cut(self, size: int) -> None:
        """Truncate the file to ``size``, the end of the last complete write, after a failed one."""
        self._packer = None  # its state includes data that are not in the file
        self.written_bytes -= self._here - size
        self._here = size
        with contextlib.suppress(OSError):  # then the last frame is incomplete, which readers detect
            self._opened.truncate(size)

    def _count(self, size: int) -> None:
        self._here += size
        self.written_bytes += size
