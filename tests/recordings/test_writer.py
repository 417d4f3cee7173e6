"""Writing of recordings: self-contained files, never overwritten, readable up to a truncation."""

from __future__ import annotations

import sys

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketfeed.core.binary import FrameParser, Kind, messages_frame
from marketfeed.errors import ConfigError
from marketfeed.recordings.writer import RecordingWriter

S = 10**9
NOW_NS = 1_767_344_400 * S  # 2026-01-02 09:00


def unpacked(path):
    data = path.read_bytes()
    return zstandard.ZstdDecompressor().decompressobj().decompress(data) if path.suffix == ".zst" else data


def frames(path):
    parser = FrameParser()
    parser.feed(unpacked(path))
    found = list(parser)
    assert not parser.pending_bytes
    return found


def message(number):
    return messages_frame([b'{"T":"test","n":%d}' % number], number)


def numbers(path):
    return [m["n"] for frame in frames(path) if frame.kind is Kind.MESSAGES for m in frame.messages()]


@pytest.mark.parametrize("name", ["day.mfr", "day.mfr.zst"])
def test_what_is_written_is_read(tmp_path, name):
    writer = RecordingWriter(tmp_path / name)
    for number in range(100):
        writer.write(message(number), {}, NOW_NS + number * S)
    writer.close()
    assert numbers(tmp_path / name) == list(range(100))
    assert writer.files == [tmp_path / name]
    assert writer.written_bytes == (tmp_path / name).stat().st_size


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.data())
def test_every_write_can_be_read_before_the_file_is_closed_and_however_much_follows(tmp_path, counts, data):
    path = tmp_path / "day.mfr.zst"
    path.unlink(missing_ok=True)
    writer = RecordingWriter(path)
    ends, number = [], 0
    for count in counts:
        writer.write(b"".join(message(number + i) for i in range(count)), {}, NOW_NS)
        number += count
        ends.append((path.stat().st_size, number))
        assert numbers(path) == list(range(number))
    writer.close()
    cut = data.draw(st.integers(ends[0][0], path.stat().st_size))
    path.write_bytes(path.read_bytes()[:cut])
    whole = max(count for size, count in ends if size <= cut)
    parser = FrameParser()
    parser.feed(unpacked(path))
    assert len(list(parser)) >= whole


@pytest.mark.parametrize("packed", ["", ".zst"])
def test_files_are_rotated_by_size_and_by_time_and_each_announces_its_symbols(tmp_path, packed):
    writer = RecordingWriter(tmp_path / f"day.mfr{packed}", rotate_bytes=4000, rotate_ns=60 * S)
    for number in range(200):
        writer.write(message(number), {"A": 1, "B": 2} if number else {}, NOW_NS + number * S)
    writer.close()
    assert sorted(writer.files) == writer.files == sorted(tmp_path.iterdir())
    assert len(writer.files) >= 4
    assert writer.files[0].name == f"day.20260102T090000.000Z.mfr{packed}"
    assert [n for path in writer.files for n in numbers(path)] == list(range(200))
    for path in writer.files[1:]:
        first = frames(path)[0]
        assert first.kind is Kind.SYMBOLS
        assert first.symbols() == {"A": 1, "B": 2}


def test_what_cannot_be_written_is_told_before_anything_is(tmp_path, monkeypatch):
    (tmp_path / "there.mfr").write_bytes(b"precious")
    for name, said in (
        ("there.mfr", "the file exists; recordings are never overwritten"),
        ("day.txt", "must end in .mfr, or .mfr.zst for compression"),
        (".mfr", "must end in .mfr"),
        ("there.mfr/day.mfr", f"{tmp_path}/there.mfr is a file, and no folder"),
        ("/proc/nowhere/day.mfr", "no file can be created in /proc: No such file or directory"),
    ):
        with pytest.raises(ConfigError) as caught:
            RecordingWriter(tmp_path / name)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "there.mfr").read_bytes() == b"precious"
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ConfigError, match=r"pip install 'marketfeed\[zstd\]'"):
        RecordingWriter(tmp_path / "day.mfr.zst")


def test_a_folder_that_is_missing_is_made_with_the_first_write(tmp_path):
    writer = RecordingWriter(tmp_path / "rec" / "of" / "day.mfr")
    assert list(tmp_path.iterdir()) == []
    writer.write(message(1), {}, NOW_NS)
    writer.close()
    assert numbers(tmp_path / "rec" / "of" / "day.mfr") == [1]


def test_a_file_that_appears_meanwhile_is_not_written_to(tmp_path):
    writer = RecordingWriter(tmp_path / "day.mfr")
    (tmp_path / "day.mfr").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        writer.write(message(1), {}, NOW_NS)
    assert (tmp_path / "day.mfr").read_bytes() == b"precious"


def test_a_full_disk_is_an_error(tmp_path):
    with open("/dev/full", "wb", buffering=0) as full:
        writer = RecordingWriter(tmp_path / "day.mfr")
        writer.write(message(1), {}, NOW_NS)
        assert writer._file is not None
        writer._file.close()
        writer._file = full
        with pytest.raises(OSError, match="No space left"):
            writer.write(message(2), {}, NOW_NS)
