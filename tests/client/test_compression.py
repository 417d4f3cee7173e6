"""The client's side of compression: what it asks for, what it reads, and what it refuses."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest

from marketfeed.client import connect, messages
from marketfeed.client.intake import Intake, Now
from marketfeed.client.subscriptions import Subscriptions
from marketfeed.core.binary import HEADER
from marketfeed.core.compressed import MAX_INFLATED_BYTES, compressed_frame
from marketfeed.errors import ConfigError, FeedProtocolError

NOW = Now(1.0, 1_700_000_000_000_000_000)


def intake() -> Intake:
    def keep(message: Any, into: list[Any]) -> None:
        into.append(message)

    return Intake(keep, lambda g: None)


def quote(n: int) -> dict[str, Any]:
    tick = {"T": "q", "S": "A", "bp": 1.5, "bs": 1.0, "ap": None, "as": 0.0, "t": 0, "r": 1}
    return tick | {"n": n, "g": n}


def test_a_compressed_message_is_read_as_the_text_that_it_holds():
    text = json.dumps([quote(n) for n in range(1, 101)] + [{"T": "ä"}], ensure_ascii=False)
    plain, compressed = intake(), intake()
    packed = compressed.binary(compressed_frame(text.encode(), 7), NOW)
    read = plain.text(text, NOW)
    assert packed.messages == read.messages
    assert len(packed.messages) == 100
    assert packed.data == read.data == text  # so buffer_bytes bounds what is in memory
    assert compressed.counters.statistics() == plain.counters.statistics()
    assert isinstance(compressed.newest.quotes["A"], messages.Quote)


@pytest.mark.parametrize("size", [MAX_INFLATED_BYTES + 1, 64 << 20])
def test_a_bomb_breaks_the_protocol(size):
    payload = zlib.compress(b"[" + b" " * (size - 2) + b"]", 9, -15)
    bomb = HEADER.pack(1, 6, 0, len(payload), 0) + payload
    assert len(bomb) < 100_000
    with pytest.raises(FeedProtocolError, match="holds more than 1048576 bytes"):
        intake().binary(bomb, NOW)


@pytest.mark.parametrize("inside", [b"", b"{", b'{"T":"q"}', b"[" * 1000, b"\xff"])
def test_what_holds_no_array_breaks_the_protocol(inside):
    with pytest.raises(FeedProtocolError):
        intake().binary(compressed_frame(inside, 0), NOW)


@pytest.mark.parametrize("compress", [False, True])
def test_every_request_asks_for_it(compress):
    subscriptions = Subscriptions("json", "premium", compress)
    subscriptions.add(quotes=["A"])
    subscriptions.add(trades=["B"])
    asked = [json.loads(text) for text in subscriptions.to_send("e1", 0.0)]
    assert [one.get("compress") for one in asked] == [True if compress else None] * 2


def test_it_is_refused_with_binary():
    with pytest.raises(ConfigError, match="compress: only with encoding 'json', not 'binary'"):
        connect("http://localhost:1", encoding="binary", compress=True)
