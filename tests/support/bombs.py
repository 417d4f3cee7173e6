"""Encoded histograms that inflate endlessly."""

import struct
import zlib

from tests.support.foreign_histograms import V0, V1, V2, payload_of, recorded, text

MIB = 1 << 20
HDR, COUNTS = recorded(range(1000, 900_000, 77))


def bomb(base, size, **header):
    """Return a histogram whose payload inflates to at least ``size`` zeros, without an end."""
    deflate = zlib.compressobj(9)
    data = deflate.compress(payload_of(HDR, [], base, **header)) + deflate.flush(zlib.Z_FULL_FLUSH)
    # After a full flush the same bytes can be repeated.
    data += (deflate.compress(bytes(MIB)) + deflate.flush(zlib.Z_FULL_FLUSH)) * (size // MIB)
    return text(struct.pack(">II", {V0: 0x1C849389, V1: 0x1C849382, V2: 0x1C849314}[base], len(data)) + data)
