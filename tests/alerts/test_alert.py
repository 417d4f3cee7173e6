"""Identifiers of alerts."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from marketfeed.alerts.alert import alert_id, ulid

times = st.integers(1, 2**63 - 1)


def test_an_id_is_the_documented_hash_of_its_cause():
    found = alert_id("wide", "AAPL", "raised", 1_700_000_000_123_456_789, 5, 7)
    cause = "".join(f"{part}\0" for part in ("wide", "AAPL", "raised", "1700000000123456789", "7"))
    assert found == ulid(1_700_000_000_123, hashlib.sha256(cause.encode()).digest()[:10])


@given(times, times)
def test_ids_are_ordered_by_time(first_ns, second_ns):
    first, second = sorted((first_ns, second_ns))
    earlier, later = (alert_id("r", "S", "raised", at, 1)[:10] for at in (first, second))
    assert earlier <= later


@given(times, st.sampled_from(["rule", "symbol", "state", "t_ns", "venue_id"]))
def test_another_cause_has_another_id(at_ns, changed):
    cause: dict[str, Any] = {"rule": "r", "symbol": "S", "state": "raised", "t_ns": at_ns, "venue_id": 1}
    other = {"rule": "rS", "symbol": "T", "state": "cleared", "t_ns": at_ns + 1, "venue_id": 2}
    assert alert_id(**cause, r_ns=3) == alert_id(**cause, r_ns=4)
    assert alert_id(**cause, r_ns=3) != alert_id(**{**cause, changed: other[changed]}, r_ns=3)


@given(times)
def test_without_a_venue_time_the_arrival_counts(at_ns):
    assert alert_id("r", "S", "raised", 0, at_ns) == alert_id("r", "S", "raised", at_ns, 0)


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_ulid_is_its_bits_in_base_32(time_ms, tail):
    text = ulid(time_ms, tail)
    number = 0
    for character in text:
        number = number * 32 + "0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(character)
    assert len(text) == 26
    assert number.to_bytes(16, "big") == time_ms.to_bytes(6, "big") + tail
