"""Compressed recordings: every format, byte order mark and suffix; no corrupt byte becomes a price."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import random
import zipfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from marketfeed.feeds.replay import archives
from tests.support.replay import damaged, names, outcome, refusal, replayed

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = b"".join(b"%d,1.%05d,2\n" % (1_399_500_000_000 + n * 7, 39147 + n % 100) for n in range(400))
PRICES = [(139147 + n % 100) * 10_000 for n in range(400)]
PLAY = {"format": "csv", "symbol": "A", "time": "ms", "columns": {"time": 0, "bid": 1, "ask": 2}}


class Stream(io.BytesIO):
    """Cannot seek, so that checksums come after the data."""

    def seekable(self) -> bool:
        return False


def zipped(data, method=zipfile.ZIP_DEFLATED, streamed=False, name="day.csv"):
    out = Stream() if streamed else io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr(name, data)
    return out.getvalue()


def zstd(data):
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "day.csv.gz": gzip.compress,
    "day.csv.bz2": bz2.compress,
    "day.csv.xz": lzma.compress,
    "day.csv.zst": zstd,
    "deflated.zip": zipped,
    "stored.zip": lambda data: zipped(data, zipfile.ZIP_STORED),
    "bzipped.zip": lambda data: zipped(data, zipfile.ZIP_BZIP2),
    "streamed.zip": lambda data: zipped(data, streamed=True),
}


def bids(intake):
    return intake.quotes["bid_px"].tolist()


@pytest.mark.parametrize("case", [str, str.upper, str.title])
@pytest.mark.parametrize("name", PACKINGS)
async def test_every_packing_is_read_whatever_the_case_of_its_suffix(tmp_path, name, case):
    (tmp_path / case(name)).write_bytes(PACKINGS[name](ROWS))
    intake = await replayed(tmp_path, path=case(name), **PLAY)
    assert bids(intake) == PRICES
    assert not intake.events


@pytest.mark.parametrize("name", PACKINGS)
async def test_no_flipped_byte_of_a_packed_file_becomes_a_price(tmp_path, name):
    whole = PACKINGS[name](ROWS)
    chance = random.Random(7)
    told = 0
    for _ in range(150):
        at = chance.randrange(len(whole))
        broken = bytearray(whole)
        broken[at] ^= chance.choice((1, 4, 12, 16, 128))
        (tmp_path / name).write_bytes(bytes(broken))
        intake, said = await outcome(tmp_path, path=name, **PLAY)
        told += bool(said)
        if not said:  # an irrelevant byte, such as one of a file's time
            assert bids(intake) == PRICES
        elif intake is not None:  # replayed up to an apparent cut, and all ticks are correct
            assert bids(intake) == PRICES[: len(intake.quotes)]
    assert told > 75


async def test_a_wrong_checksum_is_told_before_anything_is_published(tmp_path):
    # One flipped byte in a stored member: 1.39147 would be 1.39197.
    whole = zipped(ROWS, zipfile.ZIP_STORED)
    (tmp_path / "day.zip").write_bytes(whole.replace(b"1.39147", b"1.39197", 1))
    said = refusal(tmp_path, path="day.zip", **PLAY)
    assert said.startswith(f"path: {tmp_path}/day.zip/day.csv is damaged: its checksum (CRC-32) is ")


MANY = b"".join(b"%d,1.%05d,2\n" % (1_399_500_000_000 + n * 7, n) for n in range(20_000))


@pytest.mark.parametrize("name", ["day.zip", "day.csv.gz"])
async def test_a_large_file_is_verified_before_its_first_tick(tmp_path, monkeypatch, name):
    monkeypatch.setattr(archives, "SMALL_BYTES", 0)
    whole = bytearray(PACKINGS.get(name, zipped)(MANY))
    # A byte of the checksum itself, so that all of the text is readable.
    whole[whole.index(b"PK\x01\x02") + 16 if name == "day.zip" else -8] ^= 1
    (tmp_path / name).write_bytes(bytes(whole))
    intake, said = await damaged(tmp_path, path=name, **PLAY)
    assert not len(intake.quotes)
    assert ":1: the file is damaged from here on: " in said


async def test_a_file_too_large_to_be_read_twice_ends_at_its_wrong_checksum(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "SMALL_BYTES", 0)
    monkeypatch.setattr(archives, "MAX_VERIFIED_BYTES", 0)
    whole = bytearray(gzip.compress(MANY))
    whole[-8] ^= 1
    (tmp_path / "day.csv.gz").write_bytes(bytes(whole))
    intake, said = await damaged(tmp_path, path="day.csv.gz", **PLAY)
    assert len(intake.quotes) > 10_000
    assert ": the file is damaged from here on: not gzip data: " in said


async def test_whole_streams_before_a_wrong_byte_are_replayed(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "SMALL_BYTES", 0)
    half = len(ROWS) // 2
    half = ROWS.index(b"\n", half) + 1
    first, second = gzip.compress(ROWS[:half]), bytearray(gzip.compress(ROWS[half:]))
    second[len(second) // 2] ^= 8
    (tmp_path / "day.csv.gz").write_bytes(first + bytes(second))
    intake, _ = await damaged(tmp_path, path="day.csv.gz", **PLAY)
    assert bids(intake) == PRICES[: ROWS[:half].count(b"\n")]


@pytest.mark.parametrize("name", ["day.csv.gz", "day.csv.bz2", "day.csv.xz", "day.csv.zst"])
async def test_several_streams_in_one_file_are_one_text(tmp_path, name):
    pack = PACKINGS[name]
    padding = b"" if name.endswith(("zst", "bz2")) else bytes(8)
    (tmp_path / name).write_bytes(pack(ROWS[:1000]) + padding + pack(ROWS[1000:]) + padding)
    assert bids(await replayed(tmp_path, path=name, **PLAY)) == PRICES


async def test_one_damaged_member_does_not_keep_the_others_from_being_replayed(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "SMALL_BYTES", 0)
    with zipfile.ZipFile(tmp_path / "day.zip", "w") as archive:
        archive.writestr("a.csv", ROWS)
        archive.writestr("b.csv", ROWS.replace(b",1.", b",5."))
    whole = (tmp_path / "day.zip").read_bytes()
    (tmp_path / "day.zip").write_bytes(whole.replace(b",5.39147", b",5.39197", 1))
    intake, said = await damaged(tmp_path, path="day.zip", **PLAY)
    assert bids(intake) == PRICES
    assert f"{tmp_path}/day.zip/b.csv:1: the file is damaged from here on: its checksum" in said


@pytest.mark.parametrize("change", ["encrypted", "method"])
def test_members_that_cannot_be_unpacked_are_told_at_once(tmp_path, change):
    whole = bytearray(zipped(ROWS))
    for magic, flags, method in ((b"PK\x03\x04", 6, 8), (b"PK\x01\x02", 8, 10)):
        at = whole.index(magic)
        whole[at + (flags if change == "encrypted" else method)] = 1 if change == "encrypted" else 9
    (tmp_path / "day.zip").write_bytes(bytes(whole))
    said = refusal(tmp_path, path="day.zip", **PLAY)
    wanted = {
        "encrypted": " is encrypted",
        "method": " has compression method 9; supported are stored, deflate, bzip2",
    }
    assert said == f"path: {tmp_path}/day.zip/day.csv{wanted[change]}"


MARKS = {
    "utf-8-sig": "utf-8-sig",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


def encoded(text, encoding):
    mark = MARKS[encoding]
    return text.encode(encoding) if isinstance(mark, str) else mark + text.encode(encoding)


@pytest.mark.parametrize("encoding", MARKS)
@pytest.mark.parametrize("name", ["day.csv", "day.csv.gz", "deflated.zip"])
@pytest.mark.parametrize("header", [False, True])
async def test_a_byte_order_mark_is_no_text(tmp_path, encoding, name, header):
    data = encoded(("time,bid,ask\n" if header else "") + ROWS.decode(), encoding)
    (tmp_path / name).write_bytes(PACKINGS.get(name, bytes)(data))
    columns = {"time": "time", "bid": "bid", "ask": "ask"} if header else PLAY["columns"]
    intake = await replayed(tmp_path, path=name, **{**PLAY, "header": header, "columns": columns})
    assert bids(intake) == PRICES
    assert not intake.events


async def test_a_quoted_first_name_after_a_byte_order_mark(tmp_path):
    (tmp_path / "day.csv").write_bytes(codecs.BOM_UTF8 + b'"time","bid"\n' + b"1399500000000,2\n")
    columns = {"time": "time", "bid": "bid"}
    intake = await replayed(tmp_path, path="day.csv", **{**PLAY, "header": True, "columns": columns})
    assert bids(intake) == [2 * 10**9]


LINE = '{} {{"stream":"a@bookTicker","data":{{"s":"É{}","b":"1","B":"1","a":"2","A":"1"}}}}\n'


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le"])
@pytest.mark.parametrize("name", ["day.txt", "day.GZ", "day.bz2", "day.xz", "day.zst", "day.zip"])
async def test_lines_of_frames_come_in_any_packing_and_with_a_mark_too(tmp_path, encoding, name):
    text = "".join(LINE.format(10**18 + n, n % 3) for n in range(700)).replace("É", "A")
    pack = PACKINGS.get(f"day.csv.{name.lower().rpartition('.')[2]}", zipped if name == "day.zip" else bytes)
    (tmp_path / name).write_bytes(pack(encoded(text, encoding)))
    intake = await replayed(tmp_path, path=name, format="binance-raw")
    assert names(intake, intake.quotes) == [f"A{n % 3}" for n in range(700)]
    assert not intake.events


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("header", "at", "value"),
    [
        (b"PK\1\2", 24, 5), (b"PK\1\2", 24, 10**6), (b"PK\1\2", 20, 50), (b"PK\1\2", 20, 1 << 30),
        (b"PK\1\2", 16, 5), (b"PK\1\2", 42, 10**5), (b"PK\1\2", 42, 3), (b"PK\3\4", 26, 500),
        (b"PK\3\4", 26, 8), (b"PK\3\4", 28, 40), (b"PK\3\4", 0, 0),
    ],
)  # fmt: skip
async def test_wrong_sizes_and_offsets_in_an_archive_give_no_wrong_row(tmp_path, method, header, at, value):
    data = bytearray(zipped(ROWS, method))
    place = data.rindex(header) + at
    width = 2 if at in (26, 28) else 4
    data[place : place + width] = value.to_bytes(width, "little")
    (tmp_path / "day.zip").write_bytes(data)
    intake, said = await outcome(tmp_path, path="day.zip", **PLAY)
    if intake is None:
        assert "is damaged" in said
    else:  # deflate marks its own end
        assert not said
        assert bids(intake) == PRICES


@pytest.mark.slow
async def test_no_flipped_bit_of_an_archive_loses_a_member_silently_or_names_it_otherwise(tmp_path):
    """In the directory, too: its lengths can hide members, and its names define symbols."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("AAA.csv", "BBB.csv", "CCC.csv"):
            archive.writestr(name, b"1399500000000,1.5,2.5\n")
    whole = out.getvalue()
    play = PLAY | {"path": "day.zip", "member": "(?P<symbol>[A-Z]+)[.]csv", "symbol": "{symbol}"}
    directory = whole.index(b"PK\x01\x02")
    for at in range(directory, len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << bit
            (tmp_path / "day.zip").write_bytes(flipped)
            intake, said = await outcome(tmp_path, **play)
            found = [] if intake is None else names(intake, intake.quotes)
            assert set(found) <= {"AAA", "BBB", "CCC"}
            assert said or len(found) == 3


async def test_an_archive_with_names_in_other_scripts_a_comment_and_a_prefix_is_whole(tmp_path):
    out = io.BytesIO(b"#!/bin/sh\n")
    out.seek(0, io.SEEK_END)
    with zipfile.ZipFile(out, "a") as archive:
        archive.comment = b"of the day"
        archive.writestr("Gebühr-日.csv", b"1399500000000,1.5,2.5\n")
    (tmp_path / "day.zip").write_bytes(out.getvalue())
    intake = await replayed(tmp_path, path="day.zip", **PLAY)
    assert bids(intake) == [1_500_000_000]
