"""Calls for alerts arrive in the engine as the worker made them, and results as the engine returned them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.alerts.alert import Alert
from marketfeed.alerts.history import Wanted
from marketfeed.alerts.log import Silence
from marketfeed.alerts.service import AlertRefusedError
from marketfeed.errors import ControlError
from marketfeed.workers import alert_messages as calls
from marketfeed.workers.alert_messages import decode_call, encode_call

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.lists(TEXTS, max_size=3).map(tuple)
NUMBERS = st.integers(0, 2**62)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ALERTS = st.builds(
    Alert,
    id=TEXTS,
    key=TEXTS,
    rule=TEXTS,
    symbol=TEXTS,
    severity=st.sampled_from(["info", "warning", "critical"]),
    state=st.sampled_from(["raised", "cleared", "notice"]),
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    t_ns=NUMBERS,
    message=TEXTS,
    to=st.none() | TEXTS,
    data=st.none() | st.dictionaries(TEXTS, JSON, max_size=3),
)
SILENCES = st.builds(
    Silence,
    id=TEXTS,
    rules=NAMES,
    symbols=NAMES,
    starts_ns=NUMBERS,
    ends_ns=NUMBERS,
    created_by=TEXTS,
    comment=TEXTS,
)
WANTED = st.builds(Wanted, NAMES, NAMES, st.sampled_from([(), ("info", "critical")]), NAMES)
CALLS = st.one_of(
    st.builds(calls.Join, TEXTS, TEXTS, st.sampled_from(["now", "all"]), NAMES),
    st.builds(calls.Take, TEXTS, NUMBERS),
    st.builds(calls.Acknowledge, TEXTS, NAMES),
    st.builds(calls.Head),
    st.builds(calls.Entries, NUMBERS, NUMBERS),
    st.builds(calls.History, WANTED, TEXTS, NUMBERS),
    st.builds(calls.Publish, ALERTS, st.none() | st.floats(0, 100)),
    st.builds(calls.Resolve, TEXTS, TEXTS, TEXTS),
    st.builds(calls.Silences),
    st.builds(calls.AddSilence, SILENCES),
    st.builds(calls.ExpireSilence, TEXTS, TEXTS),
)


@given(CALLS)
def test_a_call_arrives_as_it_was_made(call):
    assert decode_call(encode_call(call)) == call


@given(st.binary(max_size=80) | st.builds(msgspec.json.encode, JSON))
def test_anything_else_is_refused(data):
    with pytest.raises(ControlError, match="not a call for alerts"):
        decode_call(data)


def nested(depth: int) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for _ in range(depth):
        data = {"x": data}
    return data


def notice(data: dict[str, Any]) -> Alert:
    return Alert(id="1", key="k", rule="notice", state="notice", data=data)


def test_data_that_is_nested_too_deeply_is_its_publishers_mistake():
    with pytest.raises(AlertRefusedError, match="nested too deeply"):
        encode_call(calls.Publish(notice(nested(5000)), None))
    shallow = encode_call(calls.Publish(notice({"x": 1}), None))
    with pytest.raises(AlertRefusedError, match="nested too deeply"):
        decode_call(shallow.replace(b'{"x":1}', b'{"x":' * 5000 + b"1" + b"}" * 5000))
