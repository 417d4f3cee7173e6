"""Retry-After: seconds, dates, and everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.alerts.escalation.retry_after import MOST_S, parse_retry_after
from tests.support.escalations import NOW_NS  # 18:00:00 UTC


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9999999999", MOST_S),
        ("Fri, 27 Nov 2026 18:00:30 GMT", 30.0),
        ("Friday, 27-Nov-26 18:00:30 GMT", 30.0),
        ("Fri, 27 Nov 2026 19:00:30 +0100", 30.0),
        ("Fri, 27 Nov 2026 18:00:30 -0000", 30.0),
        ("Fri, 27 Nov 2026 17:00:00 GMT", 0.0),
        ("Fri, 27 Nov 2099 17:00:00 GMT", MOST_S),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("1e3", None),
        ("soon", None),
        ("99999999999", None),
        ("Fri, 99 Nov 2026 17:00:00 GMT", None),
        ("Fri, 27 Nov 99999 17:00:00 GMT", None),
    ],
)
def test_texts(text, expected_s):
    assert parse_retry_after(text, NOW_NS) == expected_s


@given(st.text(max_size=60))
def test_no_text_raises(text):
    found = parse_retry_after(text, NOW_NS)
    assert found is None or 0 <= found <= MOST_S
