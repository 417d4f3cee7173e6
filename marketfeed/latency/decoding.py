"""Decoding of histograms in any HdrHistogram encoding, in bounded memory for any input.

The first four bytes, the cookie, identify the encoding: base 0x1c849300, with the size of a word in bits
4 to 7:

    V0   08, compressed 09   big-endian words of 2, 4 or 8 bytes     HdrHistogram 1, jHiccup to 2.0.5
    V1   01, compressed 02   the same behind a longer header         HdrHistogram 2.0, YCSB
    V2   03, compressed 04   ZigZag LEB128, runs of zeros as one     HdrHistogram from 2.1.4
    0x0c72124e, 4f           a DoubleHistogram: its range, then one of the above with a ratio

Compressed encodings hold an encoding of the same version, compressed by zlib. A payload is inflated in
blocks, and refused as soon as it is longer than its own header allows. Only filled buckets are kept.

Source: EncodableHistogram, AbstractHistogram, DoubleHistogram and ZigZagEncoding of
https://github.com/HdrHistogram/HdrHistogram.
"""

from __future__ import annotations

import binascii
import functools
import math
import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from hdrh.codec import decode as varints

from marketfeed.latency.sums import BucketLayout, Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from marketfeed.core.histogram import Values

BLOCK_BYTES: Final = 1 << 16  # inflated at a time
ROOM: Final = 1 << 16  # buckets that are decoded at once: 512 kB
MAX_FILLED: Final = 1 << 20  # buckets of one histogram; 5 digits over an hour in ns have 3.3 million in all
MAX_TOTAL: Final = 2**53  # values of one histogram
MAX_WORD: Final = 8  # bytes of LEB128; only counts beyond MAX_TOTAL need the ninth
_MAX_DIGITS: Final = 5
_HIGHEST: Final = 2**63 - 1
_BASE: Final = 0x1C849300
_WORD_BITS: Final = 0xF0
_COMPRESSED: Final = {0x09: 0x08, 0x02: 0x01, 0x04: 0x03}  # to the kind of its content
_VERSIONS: Final = {0x08: "V0", 0x01: "V1", 0x03: "V2"}
_DOUBLES: Final = (0x0C72124E, 0x0C72124F)  # the latter compressed
_NOTHING: Final = (np.empty(0, np.int64), np.empty(0, np.int64))
_OUTER: Final = struct.Struct(">II")  # cookie, length of the compressed data
_DOUBLE_HEADER_BYTES: Final = 16  # cookie, digits, ratio of the highest to the lowest value
_V0_HEADER: Final = struct.Struct(">IIqQq")  # cookie, digits, lowest, highest, total
_HEADER: Final = struct.Struct(">IIiIqQd")  # cookie, payload's length, offset, digits, lowest, highest, ratio


class UndecodableError(Exception):
    """The text is not a histogram, or a damaged one; the message gives the reason."""


class Header(NamedTuple):
    """The header before the counts."""

    version: str
    word_bytes: int  # 0: LEB128
    layout: BucketLayout
    buckets: int  # in the whole range


class HistogramDecoder:
    """Decoder of histograms in units of ``unit_ns``. Not thread-safe.

    V2 of a moderate range, which nearly all logs use, is decoded by the hdrhistogram package into a buffer
    that is reused: this takes half the time.
    """

    def __init__(self, unit_ns: float = 1.0) -> None:
        self._unit_ns = unit_ns
        self._room: Values = np.zeros(ROOM, np.int64)

    def __call__(self, encoded: str) -> Part:
        """Decode a histogram from base64. Raises UndecodableError."""
        try:
            # Some writers omit the padding.
            raw = binascii.a2b_base64(encoded + "=" * (-len(encoded) % 4))
        except (binascii.Error, ValueError):
            raise UndecodableError("a histogram that is not base64") from None
        double = int.from_bytes(raw[:4]) in _DOUBLES
        if double:
            raw = raw[_DOUBLE_HEADER_BYTES:]
        if len(raw) < _OUTER.size:
            raise UndecodableError("a histogram that is cut off")
        cookie, length = _OUTER.unpack_from(raw)
        kind = cookie & ~_WORD_BITS & 0xFF
        if cookie >> 8 != _BASE >> 8 or kind not in (*_COMPRESSED, *_VERSIONS):
            raise UndecodableError(
                f"a histogram with the cookie 0x{cookie:08x}: none of HdrHistogram's encodings V0, V1 and V2"
            )
        pieces = iter((raw,))
        if kind in _COMPRESSED:
            if length > len(raw) - _OUTER.size:
                raise UndecodableError(
                    f"a histogram of {len(raw) - _OUTER.size} bytes that says it has {length}"
                )
            pieces = _inflated(raw[_OUTER.size : _OUTER.size + length])
        version = _VERSIONS[_COMPRESSED.get(kind, kind)]
        head, rest = _head(pieces, _V0_HEADER.size if version == "V0" else _HEADER.size, version)
        length = 0
        if version != "V0":
            length = int.from_bytes(head[4:8])
            head = head[:4] + bytes(4) + head[8:]
        header = _header(head, double, self._unit_ns)
        if header.version != version:
            raise UndecodableError(f"a histogram that says {version} and holds {header.version}")
        more = next(pieces, b"")
        if not (more or header.word_bytes) and header.buckets <= ROOM:
            return self._quick(header, length, rest)
        return _counts(header, length, _payload(header, rest + more, pieces))

    def _quick(self, header: Header, length: int, payload: bytes) -> Part:
        """Decode V2 from one block."""
        if len(payload) < length:
            raise UndecodableError("a histogram that ends within its counts")
        room = self._room[: header.buckets]
        try:
            found = varints(payload, 0, room.ctypes.data, len(room), room.itemsize)
            # From bucket 0: the package reports no lowest bucket for an empty histogram.
            buckets = np.flatnonzero(room[: found["max_nonzero_index"] + 1] != 0)
            counts = room[buckets]
            room[buckets] = 0
        except Exception as error:
            room[:] = 0
            raise UndecodableError(f"a histogram whose counts are damaged: {error}") from None
        if len(counts) and (int(counts.min()) < 0 or float(counts.sum(dtype=np.float64)) > MAX_TOTAL):
            raise UndecodableError(f"a histogram with a count below 0, or of more than {MAX_TOTAL:,} values")
        return Part(header.layout, buckets, counts)


def _head(pieces: Iterator[bytes], size: int, version: str) -> tuple[bytes, bytes]:
    """Return the first ``size`` bytes, and the rest of their block."""
    data = b""
    while len(data) < size:
        piece = next(pieces, b"")
        if not piece:
            raise UndecodableError(f"a histogram in encoding {version} that is cut off")
        data += piece
    return data[:size], data[size:]


def _inflated(packed: bytes) -> Iterator[bytes]:
    inflate = zlib.decompressobj()
    try:
        while not inflate.eof:
            piece = inflate.decompress(packed, BLOCK_BYTES)
            packed = inflate.unconsumed_tail
            if piece:
                yield piece
            elif not inflate.eof:
                raise UndecodableError("a histogram that is cut off")
    except zlib.error as error:
        raise UndecodableError(f"a histogram whose compression is damaged: {error}") from None


@functools.lru_cache(maxsize=8)  # a log has one or two
def _header(head: bytes, double: bool, unit_ns: float) -> Header:
    """Parse a header, whose field for the payload's length is set to 0 for the cache."""
    cookie = int.from_bytes(head[:4])
    version = _VERSIONS.get(cookie & 0xF, "")
    if cookie & ~(_WORD_BITS | 0xF) != _BASE or not version:
        raise UndecodableError(f"a histogram whose counts have the cookie 0x{cookie:08x}")
    ratio = 1.0
    if version == "V0":
        _, digits, lowest, highest, _ = _V0_HEADER.unpack(head[: _V0_HEADER.size])
    else:
        _, _, _, digits, lowest, highest, ratio = _HEADER.unpack(head)
    word_bytes = 0 if version == "V2" else (cookie & _WORD_BITS) >> 4
    if word_bytes not in (0, 2, 4, 8):
        raise UndecodableError(f"a histogram in encoding {version} with words of {word_bytes} bytes")
    # Some writers allow values up to 2**64; no latency is above 2**63 ns.
    highest = min(highest, _HIGHEST)
    if digits > _MAX_DIGITS or not 1 <= lowest <= highest:
        raise UndecodableError(f"a histogram of {digits} digits from {lowest} to {highest}")
    sub_bits = math.ceil(math.log2(2 * 10**digits))
    unit_bits = lowest.bit_length() - 1
    scale = unit_ns * ratio if double else unit_ns
    if unit_bits + sub_bits > 62 or not (0 < scale < math.inf):
        raise UndecodableError(f"a histogram of {digits} digits from {lowest} to {highest}, ratio {ratio}")
    doublings = max(highest.bit_length() - unit_bits - sub_bits, 0)
    layout = BucketLayout(unit_bits, sub_bits - 1, digits, scale)
    return Header(version, word_bytes, layout, (doublings + 2) << (sub_bits - 1))


def _payload(header: Header, rest: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the bytes of the counts; raises UndecodableError if there are more than the range allows."""
    most = header.buckets * (header.word_bytes or MAX_WORD + 1)
    taken = 0
    while rest or (rest := next(pieces, b"")):
        taken += len(rest)
        if taken > most:
            raise UndecodableError(f"a histogram that unpacks to more than the {most:,} bytes of its range")
        yield rest
        rest = b""


def _counts(header: Header, length: int, payload: Iterator[bytes]) -> Part:
    """Return the filled buckets; raises UndecodableError if the payload has fewer than ``length`` bytes."""
    take = _varints if not header.word_bytes else functools.partial(_words, header.word_bytes)
    found: list[tuple[Values, Values]] = [_NOTHING]
    at, filled, taken, total, left = 0, 0, 0, 0.0, b""
    for piece in payload:
        taken += len(piece)
        buckets, counts, at, left = take(left + piece, at, header.buckets)
        filled += len(buckets)
        total += float(counts.sum(dtype=np.float64))
        if filled > MAX_FILLED or total > MAX_TOTAL:
            raise UndecodableError(f"a histogram of more than {MAX_FILLED:,} buckets or {MAX_TOTAL:,} values")
        found.append((buckets, counts))
    if left or taken < length:
        raise UndecodableError("a histogram that ends within its counts")
    if len(found) <= 2:
        return Part(header.layout, *found[-1])
    return Part(header.layout, np.concatenate([b for b, _ in found]), np.concatenate([c for _, c in found]))


def _words(size: int, data: bytes, at: int, buckets: int) -> tuple[Values, Values, int, bytes]:
    """Decode big-endian words; return buckets, counts, the next bucket, and the undecoded bytes.

    The first word is the count of bucket ``at``.
    """
    number = len(data) // size
    words: NDArray[np.int64] = np.frombuffer(data, f">i{size}", number)
    positions = np.flatnonzero(words != 0)
    if len(positions) and at + int(positions[-1]) >= buckets:
        raise UndecodableError(f"a histogram with counts beyond the {buckets:,} buckets of its range")
    counts = words[positions].astype(np.int64)
    if len(counts) and int(counts.min()) < 0:
        raise UndecodableError("a histogram with a negative count")
    return positions + at, counts, at + number, data[number * size :]


def _varints(data: bytes, at: int, buckets: int) -> tuple[Values, Values, int, bytes]:
    """Decode ZigZag LEB128 words, as :func:`_words`; a negative word is a run of that many zeros."""
    octets = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(octets < 128)
    if not len(ends):
        if len(data) > MAX_WORD:
            raise UndecodableError(f"a histogram with a count above {MAX_TOTAL:,}")
        return *_NOTHING, at, data
    starts = np.empty_like(ends)
    starts[0] = 0
    starts[1:] = ends[:-1] + 1
    lengths = ends - starts
    words = (octets[starts] & 127).astype(np.int64)
    longest = int(lengths.max())
    if longest >= MAX_WORD:
        raise UndecodableError(f"a histogram with a count above {MAX_TOTAL:,}")
    for place in range(1, longest + 1):
        longer = np.flatnonzero(lengths >= place)
        words[longer] |= (octets[starts[longer] + place] & 127).astype(np.int64) << (7 * place)
    values = (words >> 1) ^ -(words & 1)
    steps = np.maximum(-values, 1)
    if int(steps.max()) > buckets:
        raise UndecodableError(f"a histogram with a run of zeros beyond the {buckets:,} buckets of its range")
    after = steps.cumsum()
    after += at
    held = np.flatnonzero(values > 0)
    if int(after[-1]) > buckets:
        raise UndecodableError(f"a histogram with counts beyond the {buckets:,} buckets of its range")
    return after[held] - 1, values[held], int(after[-1]), data[int(ends[-1]) + 1 :]
