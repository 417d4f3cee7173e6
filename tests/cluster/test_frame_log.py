import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.cluster.frame_log import OVERHEAD_BYTES, Found, FrameLog

COST = 10 + OVERHEAD_BYTES


def log_of(*lasts, log_bytes=1 << 20):
    log, first = FrameLog(log_bytes), 1
    for last in lasts:
        log.append(b"%010d" % last, first, last)
        first = last + 1
    return log


@given(st.lists(st.integers(1, 5), max_size=60), st.integers(0, 30), st.integers(1, 200), st.integers(0, 20))
def test_a_range_is_covered_or_gone(sizes, frames, first, more):
    lasts = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    log = log_of(*lasts, log_bytes=frames * COST)
    assert log.held_bytes == len(log) * COST <= log.log_bytes
    assert len(log) == min(frames, len(lasts))
    found = log.between(first, first + more)
    kept = lasts[len(lasts) - len(log) :]
    starts = [1, *(last + 1 for last in lasts)][len(lasts) - len(log) :]
    if not kept or first < starts[0]:
        assert found is None
        return
    wanted = [
        last for start, last in zip(starts, kept, strict=False) if last >= first and start <= first + more
    ]
    assert found is not None
    assert [int(frame) for frame in found.frames] == wanted
    assert found.last_g == (wanted[-1] if wanted else first - 1)


def test_an_answer_is_cut_but_has_one_frame():
    log = log_of(2, 4, 6)
    assert log.between(1, 6, most_bytes=20) == Found([b"%010d" % 2, b"%010d" % 4], 4)
    assert log.between(3, 6, most_bytes=1) == Found([b"%010d" % 4], 4)


def test_a_log_starts_anew_after_a_hole():
    log = log_of(2, 4)
    log.append(b"%010d" % 9, 8, 9)
    assert (log.oldest_g, log.newest_g, len(log), log.held_bytes) == (8, 9, 1, COST)
    assert log.between(4, 9) is None


def test_frames_that_the_log_has_are_left_out_and_overlaps_kept():
    log = log_of(2, 4)
    log.append(b"%010d" % 4, 3, 4)
    assert len(log) == 2
    log.append(b"%010d" % 6, 3, 6)
    assert log.between(5, 6) == Found([b"%010d" % 6], 6)


def test_a_frame_that_exceeds_the_limit_is_not_kept():
    log = log_of(2, 4, log_bytes=COST - 1)
    assert (len(log), log.held_bytes, log.oldest_g, log.newest_g) == (0, 0, 0, 0)


@pytest.mark.parametrize("frames", [10, 3000])
def test_the_entries_of_dropped_frames_are_freed(frames):
    log = log_of(*range(1, 10_001), log_bytes=frames * COST)
    assert (log.oldest_g, log.newest_g) == (10_001 - frames, 10_000)
    assert len(log._frames) < 2 * frames + 1025
    assert log.between(9_999, 10_000) == Found([b"%010d" % 9999, b"%010d" % 10000], 10_000)
