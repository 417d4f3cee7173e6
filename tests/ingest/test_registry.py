"""Parsing of feed tables, and one line per mistake with the key and the allowed values."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, cast

import msgspec
import pytest
import trio

from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.errors import ConfigError
from marketfeed.feeds.replay import ReplayConfig, ReplayFeed
from marketfeed.feeds.synthetic import SyntheticConfig, SyntheticFeed
from marketfeed.ingest import registry
from marketfeed.ingest.pump import MAX_FEEDS, Pump
from marketfeed.ingest.registry import feed_specs
from marketfeed.ingest.roster import Roster

KNOWN = ", ".join(sorted(point.name for point in entry_points(group="marketfeed.feeds")))


def refusal(*tables):
    with pytest.raises(ConfigError) as caught:
        feed_specs(tables)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_built_in_types_are_registered():
    assert {"replay", "synthetic"} <= set(KNOWN.split(", "))


def test_built_in_types_are_found_like_any_other():
    specs = feed_specs(
        [
            {"name": "demo", "type": "synthetic", "rate": 50, "symbols": ["A", "B"]},
            {"name": "day", "type": "replay", "path": "x.gz", "speed": 0},
        ]
    )
    assert [(spec.name, cast("type", spec.factory), spec.settings) for spec in specs] == [
        ("demo", SyntheticFeed, SyntheticConfig(rate=50, symbols=["A", "B"])),
        ("day", ReplayFeed, ReplayConfig(path="x.gz", speed=0)),
    ]


def test_no_feed_is_no_error():
    assert feed_specs([]) == []


def test_the_name_is_the_type_unless_given():
    assert [spec.name for spec in feed_specs([{"type": "synthetic"}])] == ["synthetic"]


def test_the_table_is_left_as_it_was():
    table = {"name": "demo", "type": "synthetic"}
    feed_specs([table])
    assert table == {"name": "demo", "type": "synthetic"}


def test_an_unknown_type_lists_the_known_ones():
    text = refusal({"type": "synthetic"}, {"type": "telepathy"})
    assert text == f'feeds.1.type: unknown feed type "telepathy"; one of {KNOWN}'


@pytest.mark.parametrize("kind", [7, ["synthetic"], {}])
def test_a_type_that_is_no_text(kind):
    assert refusal({"type": kind, "name": "x"}).startswith("feeds.0.type: unknown feed type")


def test_a_missing_type():
    assert refusal({"name": "x"}) == f"feeds.0.type: missing; one of {KNOWN}"


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("rate", "fast", 'feeds.0.rate: must be a number above 0, at most 5000000, not the string "fast"'),
        ("rate", 0, "feeds.0.rate: must be a number above 0, at most 5000000, not 0"),
        ("trades", -1, "feeds.0.trades: must be a number from 0 to 10, not -1"),
        ("activity", "pareto", 'feeds.0.activity: must be one of "uniform", "zipf", not the string "pareto"'),
        ("symbols", ["A", 1], "feeds.0.symbols.1: must be a string, not 1"),
        ("symbols", 0, "feeds.0.symbols: must be an integer from 1 to 65536 or a list of strings, not 0"),
    ],
)
def test_a_bad_value_is_named_by_its_key_path(key, value, text):
    assert refusal({"type": "synthetic", key: value}) == text


def test_an_unknown_key_lists_what_is_allowed_and_guesses():
    text = refusal({"type": "synthetic"}, {"type": "synthetic", "name": "b", "rte": 5})
    assert text.startswith("feeds.1.rte: unknown key; did you mean rate? ")
    assert text.endswith(
        "allowed: name, type, required, symbols, prefix, rate, activity, trades, seed, start_sessions"
    )


def test_all_mistakes_of_all_feeds_are_told_together():
    with pytest.raises(ConfigError) as caught:
        feed_specs(
            [
                {"type": "synthetic", "rte": 5, "trades": "0.1", "required": 1},
                {"type": "synthetic", "name": "b"},
                {"type": "replay", "columns": {"tim": 0}},
                {"type": "replya"},
            ]
        )
    assert [mistake.partition(": ")[0] for mistake in caught.value.mistakes] == [
        "feeds.0.required",
        "feeds.0.rte",
        "feeds.0.trades",
        "feeds.2.columns.tim",
        "feeds.2.columns.time",
        "feeds.2.path",
        "feeds.3.type",
    ]
    assert "; did you mean replay? one of" in caught.value.mistakes[-1]


def test_a_missing_key():
    assert refusal({"type": "replay"}) == "feeds.0.path: missing; must be a string"


def test_two_feeds_of_one_name():
    text = refusal({"type": "synthetic", "name": "a"}, {"type": "replay", "name": "a", "path": "x"})
    assert text == 'feeds.1.name: another feed is named "a": feeds.0'
    assert "feeds.1.name: another" in refusal({"type": "synthetic"}, {"type": "synthetic"})


@pytest.mark.parametrize("name", ["", "x" * 65, 5])
def test_a_bad_name(name):
    assert refusal({"type": "synthetic", "name": name}).startswith(
        "feeds.0.name: must be a string of 1 to 64 characters, not "
    )


def test_too_many_feeds():
    tables = [{"type": "synthetic", "name": str(number)} for number in range(MAX_FEEDS + 1)]
    assert refusal(*tables) == f"feeds: at most {MAX_FEEDS}, not {MAX_FEEDS + 1}"
    assert len(feed_specs(tables[:-1])) == MAX_FEEDS


class Venue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: Annotated[int, msgspec.Meta(ge=1)] = 1
    required: str = ""

    def __post_init__(self):
        if self.port == 7:
            raise ValueError("7 is no port of this venue")


class VenueFeed:
    Config = Venue

    def __init__(self, config, intake):
        if config.port == 8:
            raise KeyError("EIGHT")
        if config.port == 9:
            raise ConfigError("port: not 9", "the venue is closed")


@pytest.fixture
def venue(monkeypatch):
    point = EntryPoint("venue", f"{__name__}:VenueFeed", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"port": 0, "prot": 1}, ["port: must be an integer of at least 1, not 0", "prot: unknown key; did"]),
        ({"port": 7}, [": 7 is no port of this venue"]),
        ({"required": 5}, ["required: must be a string, not 5"]),
    ],
)
@pytest.mark.usefixtures("venue")
def test_a_third_partys_config_is_checked_like_our_own(keys, told):
    with pytest.raises(ConfigError) as caught:
        feed_specs([{"type": "venue", **keys}])
    for mistake, text in zip(caught.value.mistakes, told, strict=True):
        assert mistake.startswith(f"feeds.0{text if text[0] == ':' else f'.{text}'}")


@pytest.mark.usefixtures("venue")
@pytest.mark.parametrize(
    ("port", "told"),
    [
        (8, ["feeds.0: the feed cannot be constructed: KeyError: 'EIGHT'"]),
        (9, ["feeds.0.port: not 9", "feeds.0: the venue is closed"]),
    ],
)
def test_a_third_partys_feed_that_cannot_be_made_is_a_mistake_too(tmp_path, port, told):
    pump = Pump(RingWriter(Rings.private(4, 8)), SymbolTable(4), lambda: None)
    with pytest.raises(ConfigError) as caught:
        Roster(pump, tmp_path, trio.sleep).plan([{"type": "venue", "port": port}])
    assert list(caught.value.mistakes) == told
    assert pump.feeds == []


class Unchecked:
    Config = dict


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("no_such_module:Feed", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        (
            "marketfeed.feeds.synthetic:NoSuchFeed",
            "cannot be loaded: AttributeError: module 'marketfeed.feeds.synthetic' has no",
        ),
        ("math:pi", "cannot be loaded: AttributeError: "),
        (f"{__name__}:Unchecked", "has a Config that is not a msgspec.Struct"),
    ],
)
def test_a_third_partys_type_that_is_none(monkeypatch, value, why):
    broken = EntryPoint("broken", value, registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken])
    assert refusal({"type": "broken"}).startswith(f"feeds.0.type: broken ({value}) {why}")
