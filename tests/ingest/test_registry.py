"""Feed tables become feeds, or one line that says which key is wrong and what is allowed."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

import pytest

from feeds.replay import ReplayConfig, ReplayFeed
from feeds.synthetic import SyntheticConfig, SyntheticFeed
from marketfeed.errors import ConfigError
from marketfeed.ingest import registry
from marketfeed.ingest.registry import MAX_FEEDS, feed_specs

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
    assert [(spec.name, spec.factory, spec.settings) for spec in specs] == [
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
    assert text == f"feeds.1.type: unknown feed type 'telepathy'; one of {KNOWN}"


@pytest.mark.parametrize("kind", [7, ["synthetic"], {}])
def test_a_type_that_is_no_text(kind):
    assert refusal({"type": kind, "name": "x"}).startswith("feeds.0.type: unknown feed type")


def test_a_missing_type():
    assert refusal({"name": "x"}) == f"feeds.0.type: missing; one of {KNOWN}"


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("rate", "fast", "feeds.0.rate: expected float, got str"),
        ("rate", 0, "feeds.0.rate: expected float > 0.0"),
        ("trades", -1, "feeds.0.trades: expected float >= 0.0"),
        ("activity", "pareto", "feeds.0.activity: one of uniform, zipf, not 'pareto'"),
        ("symbols", ["A", 1], "feeds.0.symbols.1: expected str, got int"),
        ("symbols", 0, "feeds.0.symbols: expected int >= 1"),
    ],
)
def test_a_bad_value_is_named_by_its_key_path(key, value, text):
    assert refusal({"type": "synthetic", key: value}) == text


def test_an_unknown_key_lists_what_is_allowed_and_guesses():
    text = refusal({"type": "synthetic"}, {"type": "synthetic", "name": "b", "rte": 5})
    assert text.startswith("feeds.1.rte: unknown key; did you mean rate? ")
    assert text.endswith("allowed: symbols, prefix, rate, activity, trades, seed, start_sessions")


def test_a_missing_key():
    assert refusal({"type": "replay"}) == "feeds.0: object missing required field path"


def test_two_feeds_of_one_name():
    text = refusal({"type": "synthetic", "name": "a"}, {"type": "replay", "name": "a", "path": "x"})
    assert text == "feeds.1.name: another feed is named a already"
    assert "feeds.1.name: another" in refusal({"type": "synthetic"}, {"type": "synthetic"})


@pytest.mark.parametrize("name", ["", "x" * 65, 5])
def test_a_bad_name(name):
    assert refusal({"type": "synthetic", "name": name}) == "feeds.0.name: a text of 1 to 64 characters"


def test_too_many_feeds():
    tables = [{"type": "synthetic", "name": str(number)} for number in range(MAX_FEEDS + 1)]
    assert refusal(*tables) == f"feeds: at most {MAX_FEEDS}"
    assert len(feed_specs(tables[:-1])) == MAX_FEEDS


class Unchecked:
    Config = dict


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("no_such_module:Feed", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("feeds.synthetic:NoSuchFeed", "cannot be loaded: AttributeError: module 'feeds.synthetic' has no"),
        ("math:pi", "cannot be loaded: AttributeError: "),
        (f"{__name__}:Unchecked", "has a Config that is no msgspec.Struct"),
    ],
)
def test_a_third_partys_type_that_is_none(monkeypatch, value, why):
    broken = EntryPoint("broken", value, registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken])
    assert refusal({"type": "broken"}).startswith(f"feeds.0.type: broken ({value}) {why}")
