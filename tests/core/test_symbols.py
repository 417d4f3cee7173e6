import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.core.symbols import MAX_SYMBOLS, NameArea, SymbolTable, is_pattern, is_symbol
from marketfeed.errors import InvalidSymbolError, SymbolsFullError

ALLOWED = "".join(c for c in map(chr, range(33, 127)) if c not in ',*"\\')
NAMES = st.text(ALLOWED, min_size=1, max_size=24)


@given(NAMES)
def test_printable_ascii_without_the_forbidden_is_a_symbol(name):
    assert is_symbol(name)


@pytest.mark.parametrize(
    "name", ["", "a" * 25, "a b", "a,b", "a*", "*", 'a"', "a\\", "a\n", "\x00", "a\x7f", "ä", "１", "\u2028"]
)
def test_what_no_symbol_can_be(name):
    assert not is_symbol(name)
    with pytest.raises(InvalidSymbolError):
        SymbolTable(4).intern(name)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("*", True), ("BTC*", True), ("a" * 24 + "*", True), ("a" * 25 + "*", False), ("BTC", False),
        ("**", False), ("B*C", False), ("*BTC", False), ("", False), (" *", False),
    ],
)  # fmt: skip
def test_a_pattern_is_a_prefix_and_a_star(text, verdict):
    assert is_pattern(text) is verdict


@given(st.lists(NAMES, max_size=40))
def test_names_are_numbered_in_the_order_they_come_and_keep_their_ids(names):
    table = SymbolTable(MAX_SYMBOLS)
    distinct = list(dict.fromkeys(names))
    assert [table.intern(name) for name in names] == [distinct.index(name) for name in names]
    assert table.names() == distinct
    assert len(table) == len(distinct)
    for number, name in enumerate(distinct):
        assert table.find(name) == number
        assert table.name(number) == name
        assert table.names(number) == distinct[number:]


@given(
    st.lists(st.text("AB", min_size=1, max_size=3), unique=True),
    st.text("AB", max_size=3),
    st.integers(0, 14),
)
def test_matching_yields_what_the_pattern_names_from_start_on(names, prefix, start):
    table = SymbolTable(64)
    for name in names:
        table.intern(name)
    expected = [i for i, name in enumerate(names) if name.startswith(prefix) and i >= start]
    assert list(table.matching(prefix + "*", start)) == expected
    exact = [i for i, name in enumerate(names) if name == prefix and i >= start]
    assert list(table.matching(prefix, start)) == exact


def test_a_full_table_knows_its_names_and_takes_no_more():
    table = SymbolTable(2)
    table.intern("A")
    table.intern("B")
    with pytest.raises(SymbolsFullError, match="max_symbols to take C"):
        table.intern("C")
    assert table.intern("A") == 0
    assert table.names() == ["A", "B"]


def test_an_unknown_name_has_no_id_and_an_unknown_id_no_name():
    table = SymbolTable(2)
    assert table.find("A") is None
    with pytest.raises(IndexError):
        table.name(0)


@pytest.mark.parametrize("max_symbols", [0, -1, MAX_SYMBOLS + 1])
def test_a_table_has_room_for_1_to_65536(max_symbols):
    with pytest.raises(ValueError, match="1 to 65536"):
        SymbolTable(max_symbols)


@given(st.lists(st.tuples(NAMES, st.booleans()), max_size=40, unique_by=lambda step: step[0]))
def test_a_table_over_the_same_area_learns_the_names_when_it_is_told_to(steps):
    area = NameArea(np.zeros(40, "S24"), np.zeros(1, np.uint64))
    writer, reader = SymbolTable(40, area), SymbolTable(40, area)
    for name, look in steps:
        known = reader.names()
        number = writer.intern(name)
        assert reader.names() == known
        if look:
            reader.learn()
            assert reader.names() == writer.names()
            assert reader.find(name) == number
    assert SymbolTable(40, area).names() == [name for name, _ in steps]


def test_a_name_that_is_not_counted_yet_is_not_there():
    area = NameArea(np.zeros(4, "S24"), np.zeros(1, np.uint64))
    SymbolTable(4, area).intern("A")
    area.names[1] = b"half"  # its writer died here
    assert SymbolTable(4, area).names() == ["A"]
