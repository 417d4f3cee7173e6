"""Kind and conditions of trades: bytes and validity."""

import numpy as np
import pytest

from marketfeed.core.details import CONDITIONS, details_fault, details_of, has_details, valid_conditions
from marketfeed.core.records import TRADE


def trades(*conditions: bytes, kind: int = 0):
    records = np.zeros(len(conditions), TRADE)
    records["side"], records["kind"] = ord("b"), kind
    records["cond"] = conditions
    return records


def test_details_are_side_kind_and_conditions_from_the_lowest_bits():
    records = trades(b"@I", kind=2)
    records["unused"] = b"\x01\x02"
    assert details_of(records).tolist() == [int.from_bytes(b"b\x02@I\0\0\x01\x02", "little")]
    assert details_of(trades(b"", b"")).tolist() == [ord("b")] * 2


def test_details_of_some_rows_are_those_of_the_rows():
    records = trades(b"A", b"B", b"C", b"D")
    assert (details_of(records[::2]) >> 16).tolist() == [ord("A"), ord("C")]


@pytest.mark.parametrize(
    ("records", "has"),
    [
        (trades(b"", b""), False),
        (trades(b"", b"@"), True),
        (trades(b"", b"", kind=1), True),
    ],
)
def test_only_kind_conditions_and_unused_bytes_are_details(records, has):
    assert has_details(records) is has
    records["unused"] = b"\1"
    assert has_details(records)


def test_conditions_are_what_json_and_csv_hold_as_it_is():
    every = np.zeros(64, TRADE)
    every["cond"] = np.arange(256, dtype=np.uint8).view("S4")
    assert {letter for letters in valid_conditions(every).tolist() for letter in letters} - {0} == CONDITIONS
    assert not CONDITIONS & set(b' ",\\\x7f\x80\n\0')
    assert {*b"@FTIZ4*"} <= CONDITIONS


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        (trades(b"@", b""), None),
        (trades(b"", kind=1), None),
        (trades(b"", kind=2), None),
        (trades(b"", kind=3), "a kind that is not 0, 1 or 2"),
        (trades(b"", b'@"'), "conditions that are not printable ASCII"),
        (trades(b"\x80"), "conditions that are not printable ASCII"),
    ],
)
def test_a_fault_says_what_is_wrong(records, fault):
    found = details_fault(records)
    assert found is None if fault is None else found is not None and found.startswith(fault)
