"""Encoders of HdrHistogram's V0, V1, V2 and DoubleHistogram, like the Java original.

Layouts from EncodableHistogram, AbstractHistogram and DoubleHistogram of the releases that wrote each.
"""

import base64
import struct
import zlib

import numpy as np
from hdrh.histogram import HdrHistogram

V0, V1, V2 = 0x1C849308, 0x1C849301, 0x1C849303
COMPRESSED = {V0: 0x1C849309, V1: 0x1C849302, V2: 0x1C849304}
DOUBLE = 0x0C72124F


def recorded(values, lowest=1000, highest=60_000_000_000, digits=3):
    """Return a histogram of the package, and its counts up to the last nonzero one."""
    hdr = HdrHistogram(lowest, highest, digits)
    for value in values:
        hdr.record_value(value)
    counts = np.ctypeslib.as_array(hdr.counts).view(np.int64)
    held = np.flatnonzero(counts)
    return hdr, counts[: int(held[-1]) + 1 if len(held) else 0]


def zigzag(value):
    """Return ZigZag LEB128, of at most 9 bytes."""
    value = (value << 1) ^ (value >> 63)
    found = bytearray()
    while value >= 0x80 and len(found) < 8:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def runs(counts):
    """Return the words of V2: counts, with runs of zeros as negative lengths."""
    counts = np.asarray(counts)
    found, end = b"", 0
    for index in map(int, np.flatnonzero(counts)):
        if zeros := index - end:
            found += zigzag(-zeros if zeros > 1 else 0)
        found += zigzag(int(counts[index]))
        end = index + 1
    if zeros := len(counts) - end:
        found += zigzag(-zeros if zeros > 1 else 0)
    return found


def payload_of(hdr, counts, base, word=8, ratio=1.0, length=None, lowest=None, highest=None, digits=None):
    """Return header and counts, uncompressed."""
    lowest = hdr.lowest_trackable_value if lowest is None else lowest
    highest = hdr.highest_trackable_value if highest is None else highest
    digits = hdr.significant_figures if digits is None else digits
    body = runs(counts) if base == V2 else np.asarray(counts).astype(f">i{word}").tobytes()
    cookie = base | (0x10 if base == V2 else word << 4)
    if base == V0:
        return struct.pack(">IIqQq", cookie, digits, lowest, highest, int(np.sum(counts))) + body
    length = len(body) if length is None else length
    return struct.pack(">IIiIqQd", cookie, length, 0, digits, lowest, highest, ratio) + body


def packed(payload, base, word=8):
    """Return cookie, length and compressed payload."""
    data = zlib.compress(payload, 9)
    return struct.pack(">II", COMPRESSED[base] | (0x10 if base == V2 else word << 4), len(data)) + data


def double(inner, digits=3):
    """Return a DoubleHistogram that wraps a compressed histogram."""
    return struct.pack(">IIq", DOUBLE, digits, 1 << 40) + inner


def text(data):
    return base64.b64encode(data).decode()
