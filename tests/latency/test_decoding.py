"""Decoding of every HdrHistogram encoding: counts equal the package's, broken histograms are refused."""

import base64
import contextlib
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.latency.decoding import HistogramDecoder, UndecodableError
from tests.support.bombs import COUNTS, HDR, MIB, bomb
from tests.support.foreign_histograms import V0, V1, V2, double, packed, payload_of, recorded, text

ranges = st.sampled_from([(1000, 60_000_000_000), (1, 10**6), (4096, 3_600_000_000_000), (1, 10**9)])
values = st.lists(st.integers(0, 900_000), max_size=40)


def shown(part):
    return dict(zip(part.buckets.tolist(), part.counts.tolist(), strict=True))


def held(counts):
    return {int(i): int(counts[i]) for i in np.flatnonzero(counts)}


@pytest.mark.slow
@settings(max_examples=120)
@given(
    values,
    ranges,
    st.integers(1, 5),
    st.sampled_from([V0, V1, V2]),
    st.sampled_from([2, 4, 8]),
    st.booleans(),
)
def test_every_encoding_gives_the_counts_that_were_recorded(ones, bounds, digits, base, word, compressed):
    lowest, highest = bounds
    hdr, counts = recorded(ones, lowest, highest, digits)
    data = payload_of(hdr, counts, base, word)
    part = HistogramDecoder()(text(packed(data, base, word) if compressed else data))
    assert shown(part) == held(counts)
    assert (part.layout.unit_bits, part.layout.digits) == (hdr.unit_magnitude, digits)
    if ones:
        count, _, *percentiles, most = part.statistics()
        assert count == len(ones)
        assert percentiles == [hdr.get_value_at_percentile(p) for p in (50, 90, 99, 99.9, 99.99)]
        assert most == hdr.get_highest_equivalent_value(hdr.max_value)


def test_a_log_of_jhiccup_2_0_3_holds_the_maxima_that_it_says():
    # Three lines of a log in HdrHistogram's own tests, from 2014.
    for most_ms, line in (
        (0.115, "HISTiQAAAEV42pNpmdzBwMDAxAAGfgoMDMxuBjsWQLgMQt4QmrkKQvNugkq8g9KKUJoHSjMzoAJG"
                "hlEwCkbBKBgFo2AUDDkAANEpBrU="),
        (1.294, "HISTiQAAAEh42pNpmdzBwMDAxAAGfgoMDMxuBjsWQLgMQm5QBhuEYraF0LyuEJoxFypvA6UFoTQz"
                "wygYBZQDxtEgGAWjYBSMgoEBAItJBaw="),
        (3.113, "HISTiQAAAEZ42pNpmdzBwMDAxAAGfgoMDMxuBjsWQLgMQlFQBiMqzX8RQjNJQMVDobQwlGZCo0fB"
                "8ASMo0EwGs+jYDS+R8HwBAC+mAXU"),
    ):  # fmt: skip
        part = HistogramDecoder()(line)
        lowest, highest = part.layout.lowest(part.buckets)[-1], part.layout.highest(part.buckets)[-1]
        assert lowest <= most_ms * 1e6 + 500
        assert most_ms * 1e6 - 500 <= highest
        assert part.counts.sum() > 4000


@pytest.mark.parametrize(
    ("encoded", "buckets"),
    [
        # Written by hdrhistogram for Rust: uncompressed, up to 2**64, one without padding.
        ("HISTEwAAAAMAAAAAAAAAAwAAAAAAAAAB//////////8/8AAAAAAAAM8PAg==", {1000: 1}),
        ("HISTEwAAAAEAAAAAAAAAAwAAAAAAAAABAAAAAAAAAAI/8AAAAAAAAAA", {}),
        # An empty histogram written by hdr-histogram-js.
        ("HISTFAAAABx4nJNpmSzMwMDACMXMDBDAyCD/HwzgfAB/wwdn", {}),
    ],
)
def test_what_other_makes_write_is_decoded(encoded, buckets):
    assert shown(HistogramDecoder()(encoded)) == buckets


@given(
    st.lists(st.integers(1, 900_000), min_size=1, max_size=30),
    st.sampled_from([V1, V2]),
    st.integers(-20, 10),
)
def test_a_double_histogram_is_decoded_in_its_writer_s_unit(ones, base, power):
    hdr, counts = recorded(ones, 1, 10**6)
    data = double(packed(payload_of(hdr, counts, base, ratio=2.0**power), base))
    part = HistogramDecoder(unit_ns=1000)(text(data))
    assert shown(part) == held(counts)
    assert part.statistics()[-1] == pytest.approx(
        hdr.get_highest_equivalent_value(max(ones)) * 2.0**power * 1000, abs=1
    )


@given(values, st.sampled_from([V0, V1, V2]), st.sampled_from([1.0, 1000.0]), st.data())
def test_a_histogram_that_was_damaged_anywhere_is_refused_or_decoded_and_does_no_harm(ones, base, unit, data):
    hdr, counts = recorded(ones)
    payload = bytearray(payload_of(hdr, counts, base))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    payload = payload[: data.draw(st.integers(0, len(payload)))] + data.draw(st.binary(max_size=12))
    encoded = text(packed(bytes(payload), base))
    decoder = HistogramDecoder(unit)
    with contextlib.suppress(UndecodableError):
        assert decoder(encoded).counts.min(initial=1) > 0
    # It leaves no state for the next histogram.
    assert shown(decoder(text(packed(payload_of(hdr, counts, V2), V2)))) == held(counts)


@given(
    st.binary(max_size=80),
    st.sampled_from([b"", b"\x1c\x84\x93\x14", b"\x1c\x84\x93\x89", b"\x0c\x72\x12\x4f"]),
)
def test_any_bytes_are_decoded_or_refused(data, cookie):
    for encoded in (text(cookie + data), data.decode("latin-1")):
        try:
            HistogramDecoder()(encoded)
        except UndecodableError:
            continue


def outer(base, payload, word=8):
    return text(packed(payload, base, word))


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        ("!", "cut off"),
        ("é", "not base64"),
        (text(b"\x12\x34\x56\x78" * 4), "cookie 0x12345678: none of HdrHistogram's encodings V0, V1 and V2"),
        (outer(V2, payload_of(HDR, COUNTS, V2))[:-8], "says it has"),
        (text(packed(payload_of(HDR, COUNTS, V2), V2)[:8] + b"junk" * 999), "compression is damaged"),
        (outer(V2, payload_of(HDR, COUNTS, V2)[:30]), "V2 that is cut off"),
        (outer(V0, payload_of(HDR, COUNTS, V0)[:-3]), "ends within its counts"),
        (outer(V1, payload_of(HDR, COUNTS, V1)[:-8]), "ends within its counts"),
        (outer(V2, payload_of(HDR, COUNTS, V2, length=10**6)), "ends within its counts"),
        (outer(V2, payload_of(HDR, COUNTS, V1)), "says V2 and holds V1"),
        (outer(V1, payload_of(HDR, [-1], V1)), "negative count"),
        (outer(V2, payload_of(HDR, COUNTS, V2, digits=9)), "9 digits"),
        (outer(V2, payload_of(HDR, COUNTS, V2, lowest=0)), "from 0 to"),
        (outer(V2, payload_of(HDR, COUNTS, V2, highest=10)), "from 1000 to 10"),
        (outer(V2, payload_of(HDR, [2**54], V2)), "values"),
        (outer(V2, payload_of(HDR, [1, *[0] * 30_000, 1], V2)), "counts are damaged"),
        (outer(V2, payload_of(HDR, np.r_[1, np.zeros(10**7, np.int64), 1], V2, digits=5)), "beyond the"),
        (outer(V1, payload_of(HDR, [1] * 30_000, V1)), "more than the"),
        (outer(V1, payload_of(HDR, [1] * 30_000, V1, 2), 2), "more than the 36,864 bytes"),
        (bomb(V0, 64 * MIB), "unpacks to more than the 147,456 bytes of its range"),
        (bomb(V1, 64 * MIB), "unpacks to more than the 147,456 bytes of its range"),
        (bomb(V2, 64 * MIB), "beyond the 18,432 buckets"),
        (bomb(V1, 64 * MIB, digits=5, lowest=1, highest=2**62), "unpacks to more than the"),
    ],
)  # fmt: skip
def test_what_is_refused_says_what_is_wrong(encoded, said):
    with pytest.raises(UndecodableError, match=said):
        HistogramDecoder()(encoded)


@pytest.mark.parametrize("base", [V0, V1, V2])
@pytest.mark.parametrize("header", [{}, {"digits": 5, "lowest": 1, "highest": 2**62}])
def test_no_histogram_takes_more_than_a_few_mebibytes_however_much_it_inflates_to(base, header):
    encoded = bomb(base, 256 * MIB, **header)
    decoder = HistogramDecoder()
    tracemalloc.start()
    try:
        decoder(encoded)
    except UndecodableError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 16 * MIB


def test_a_million_filled_buckets_are_the_most():
    counts = [1] * (MIB + 1)
    encoded = outer(V1, payload_of(HDR, counts, V1, 2, digits=5, lowest=1), 2)
    with pytest.raises(UndecodableError, match="more than 1,048,576 buckets"):
        HistogramDecoder()(encoded)
    part = HistogramDecoder()(outer(V1, payload_of(HDR, counts[1:], V1, 2, digits=5, lowest=1), 2))
    assert len(part.buckets) == MIB


@pytest.mark.slow
def test_a_histogram_that_comes_in_pieces_is_whole():
    rng = random.Random(1)
    counts = [rng.choice([0, 0, 1, 5, 300]) for _ in range(200_000)]
    for base in (V1, V2):
        part = HistogramDecoder()(outer(base, payload_of(HDR, counts, base, digits=5, lowest=1)))
        assert shown(part) == held(np.array(counts))
    assert base64.b64decode(outer(V2, payload_of(HDR, COUNTS, V2)))[:4] == b"\x1c\x84\x93\x14"
