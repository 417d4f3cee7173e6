"""docs/configuration.md lists every configuration key with its type, range and default, and nothing else."""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from msgspec import inspect

from marketfeed.config.cluster import ClusterConfig
from marketfeed.config.schema import (
    AdminConfig,
    AlertsConfig,
    AuthConfig,
    Config,
    DefaultsConfig,
    EngineConfig,
    GatewayConfig,
    LatencyConfig,
    LimitsConfig,
    TenantConfig,
    TierConfig,
    default_text,
)
from marketfeed.feeds.push import PushConfig
from marketfeed.feeds.replay import ReplayConfig
from marketfeed.feeds.replay.columns import Columns, TableKeys
from marketfeed.feeds.synthetic import SyntheticConfig
from marketfeed.ingest.registry import _Common

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "configuration.md").read_text("utf-8")
SECTIONS = {
    "[engine]": EngineConfig,
    "[gateway]": GatewayConfig,
    "[admin]": AdminConfig,
    "[auth]": AuthConfig,
    "[auth.defaults]": DefaultsConfig,
    "[auth.tenants.NAME]": TenantConfig,
    "[tiers.NAME]": TierConfig,
    "[limits]": LimitsConfig,
    "[alerts]": AlertsConfig,
    "[latency]": LatencyConfig,
    "[cluster]": ClusterConfig,
}
FEEDS = {
    "Every feed": _Common,
    "synthetic": SyntheticConfig,
    "push": PushConfig,
    "replay": ReplayConfig,
    "replay of csv and parquet": TableKeys,
    "columns": Columns,
}
WORDS: dict[type, str] = {
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.StrType: "string",
    inspect.BoolType: "boolean",
    inspect.DateType: "date",
    inspect.DateTimeType: "date and time",
    inspect.AnyType: "anything",
    inspect.NoneType: "",
}


def type_words(kind):
    """Return what the docs call the type ``kind`` of a key."""
    match kind:
        case inspect.LiteralType(values=values):
            return " or ".join(f"`{json.dumps(value)}`" for value in sorted(values, key=str))
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            if isinstance(item, inspect.LiteralType):
                return f"list of {type_words(item)}"
            plain = isinstance(item, inspect.StrType | inspect.IntType)
            return f"list of {type_words(item)}s" if plain else "list of tables"
        case inspect.DictType() | inspect.StructType():
            return "table"
        case inspect.UnionType(types=types):
            return " or ".join(filter(None, map(type_words, types)))
        case inspect.Metadata(type=inner):
            return type_words(inner)
    low, high = getattr(kind, "ge", None), getattr(kind, "le", None)
    above, below = getattr(kind, "gt", None), getattr(kind, "lt", None)
    bounds = [
        f"{words} {bound:,}" if isinstance(bound, int) else f"{words} {bound:g}"
        for words, bound in (("from", low), ("above", above), ("to", high), ("below", below))
        if bound is not None
    ]
    least, most = getattr(kind, "min_length", None), getattr(kind, "max_length", None)
    if least == most == 1:
        bounds.append("of 1 character")
    elif most:
        bounds.append(f"of {least or 0} to {most} characters")
    elif least:
        bounds.append("not empty")
    return " ".join([WORDS[type(kind)], *bounds])


def default_words(field):
    """Return what the docs write as the default of ``field``."""
    if field.required:
        return "required"
    value = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if isinstance(value, datetime.date):
        return f"`{value.isoformat()}`"
    return "–" if value is None else f"`{json.dumps(msgspec.to_builtins(value))}`"


def expected(struct, without=()):
    """Return the rows (key, type, default) of the keys of ``struct``."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return [
        (f"`{field.name}`", type_words(field.type), default_words(field))
        for field in info.fields
        if field.name not in without
    ]


def rows(title):
    """Return the rows of the table below the heading ``title``, without their descriptions."""
    (section,) = re.findall(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert all(len(row) == 4 and row[3] for row in cells), f"{title}: a row without a description"
    return [(row[0], row[1].replace("\\|", "|"), row[2]) for row in cells]


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_has_a_row_for_each_key(title):
    assert rows(title) == expected(SECTIONS[title])


@pytest.mark.parametrize("title", FEEDS)
def test_a_feed_type_has_a_row_for_each_key(title):
    without = TableKeys.__struct_fields__ if FEEDS[title] is ReplayConfig else ()
    assert rows(title) == expected(FEEDS[title], without)


def test_no_other_section_is_described():
    titles = re.findall(r"^##+ (.*)$", PAGE, re.MULTILINE)
    tables = [title for title in titles if rows(title)]
    assert tables == [*SECTIONS, *FEEDS]


def test_every_section_of_a_configuration_is_described():
    names = {found[1] for title in SECTIONS if (found := re.match(r"\[(\w+)", title))}
    assert {*names, "feeds"} == set(Config.__struct_fields__)


def test_every_key_of_the_shipped_configuration_is_described():
    text = default_text()
    shipped = tomllib.loads(text)
    known = {
        name: {key for key, _, _ in rows(f"[{name}]")} for name in shipped if name not in ("tiers", "feeds")
    }
    for name, keys in known.items():
        assert {f"`{key}`" for key in shipped[name]} <= keys
    everywhere = {key for title in [*SECTIONS, *FEEDS] for key, _, _ in rows(title)}
    everywhere |= set(re.findall(r"`\w+`", (DOCS / "alerts.md").read_text("utf-8")))  # keys of rules
    commented = re.findall(r"^# (\w+) = ", text, re.MULTILINE)
    assert commented
    assert {f"`{key}`" for key in commented} <= everywhere


@pytest.mark.parametrize("name", ["engine", "gateway", "admin", "auth", "limits", "latency"])
def test_the_defaults_described_are_those_of_the_shipped_configuration(name):
    described = {key.strip("`"): default for key, _, default in rows(f"[{name}]")}
    for key, value in tomllib.loads(default_text())[name].items():
        assert described[key] == f"`{json.dumps(value)}`"


def test_the_keys_of_the_cluster_are_shipped_as_comments_in_the_same_order():
    _, _, after = default_text().partition("# [cluster]")
    text = re.sub("^# ", "", "[cluster]" + after.partition("\n\n")[0], flags=re.MULTILINE)
    shipped = tomllib.loads(text)["cluster"]
    described = {key.strip("`"): default for key, _, default in rows("[cluster]")}
    assert list(shipped) == list(described)
    assert {key: f"`{json.dumps(shipped[key])}`" for key in described if described[key] != "–"} == {
        key: default for key, default in described.items() if default != "–"
    }
