"""Tables checked against structs, nested ones too, as third parties' feeds may have them."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from marketfeed.config.validation import checked
from marketfeed.errors import ConfigError


class Venue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: Annotated[int, Meta(ge=1)] = 1


class Nested(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    venues: list[Venue] = []
    named: dict[str, dict[str, Venue]] = {}
    backup: Venue | None = None


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"venues": [{}, {"prt": 1}]}, "feeds.0.venues.1.prt: unknown key; did you mean port? allowed: port"),
        (
            {"named": {"a": {"x": {}}, "b": {"y": {}, "z": {"port": 0}}}},
            "feeds.0.named.b.z.port: must be an integer of at least 1, not 0",
        ),
        ({"named": {"a": {"x": {"q": 1}}}}, "feeds.0.named.a.x.q: unknown key; allowed: port"),
        ({"backup": {"q": 1}}, "feeds.0.backup.q: unknown key; allowed: port"),
        ("x", 'feeds.0: must be a table, not "x"'),
    ],
)
def test_paths_reach_into_nested_tables(table, told):
    with pytest.raises(ConfigError) as caught:
        checked(table, Nested, "feeds.0")
    assert str(caught.value).startswith(told)
