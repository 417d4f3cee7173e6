"""marketfeed.js in Node.js against a real engine, over each transport."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.js import program
from tests.support.process import engine
from tests.support.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.js import Program
    from tests.support.process import Engine

pytestmark = pytest.mark.e2e

SYNTHETIC = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 20\nrate = 500\n'
CONFIG = f"[limits]\nrequests_per_s = 10000\n{SYNTHETIC}[alerts]\nenabled = true\n"
ALL = {"quotes": ["*"], "trades": ["*"]}
WAYS = ["websocket", "events", "poll", "quotes"]


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Engine]:
    with engine(CONFIG, tmp_path_factory.mktemp("engine")) as started:
        yield started


def http(running: Engine) -> str:
    return running.ready.split()[2]


def ticks(feed: Program, more: int) -> None:
    """Wait until ``more`` ticks have come."""
    count = sum("n" in m and m["T"] in "qt" for m in feed.messages)
    feed.wait(lambda all_: sum("n" in m and m["T"] in "qt" for m in all_) >= count + more)


def check(feed: Program) -> Witness:
    witness = Witness(ordered=False)
    for message in feed.messages:
        witness.see(message)
    return witness


@pytest.mark.parametrize("way", WAYS)
def test_each_transport_resumes_after_cuts_without_a_hole(running, way):
    with program(http(running), transport=way, subscribe=ALL) as feed:
        for _ in range(3):
            ticks(feed, 300)
            before = len(feed.messages)
            feed.call("feed.cut()")
            assert feed.wait_for("resumed", before)["cursor"]
        ticks(feed, 300)
        assert feed.ask("feed.transport") == {"name": way, "why": "first"}
        figures = feed.ask("feed.statistics()")
    witness = check(feed)
    assert (witness.silent, witness.seen["gap"], witness.seen["reset"]) == (0, 0, 0)
    assert (figures["reconnects"], figures["gaps"], figures["lost"]) == (3, 0, 0)
    assert figures["latencyMs"]["p50"] >= 0


@pytest.mark.parametrize("encoding", ["json", "binary"])
def test_the_cursor_is_carried_from_transport_to_transport(running, encoding):
    with program(http(running), encoding=encoding, subscribe=ALL) as feed:
        for way in [*WAYS, "auto", "poll", "events", "auto"]:
            ticks(feed, 200)
            before = len(feed.messages)
            feed.call(f"feed.use({way!r})")
            name = "websocket" if way == "auto" else way
            feed.wait_for("transport", before, name=name)
            feed.wait_for("resumed", before)
        ticks(feed, 200)
    witness = check(feed)
    assert (witness.silent, witness.seen["reset"]) == (0, 0)


@pytest.mark.parametrize("way", WAYS)
def test_names_come_and_go_without_disturbing_the_others(running, way):
    with program(http(running), transport=way, subscribe={"quotes": ["SY0000"]}) as feed:
        feed.wait_for("q", S="SY0000")
        for name in ("SY0001", "SY0002", "SY001*"):
            before = len(feed.messages)
            feed.call(
                f"globalThis.last = feed.subscribe({{quotes: [{name!r}]}}, m => tell({{T: 'mine', m}}))"
            )
            prefix = name.rstrip("*")
            first = feed.wait(
                lambda all_, at=before, p=prefix: next(
                    (m["m"] for m in all_[at:] if m["T"] == "mine" and m["m"].get("S", "").startswith(p)),
                    None,
                )
            )
            assert first["snap"] == 1
            ticks(feed, 50)
            feed.call("globalThis.last.unsubscribe()")
        # What the session has comes from the book, marked as a snapshot.
        before = len(feed.messages)
        feed.call("feed.subscribe({quotes: ['SY0000']}, m => tell({T: 'again', m}))")
        assert feed.wait_for("again", before)["m"]["snap"] == 1
        ticks(feed, 20)
        assert feed.ask("feed.latest('SY0001')") is None
        assert feed.ask("feed.latest('SY0000').S") == "SY0000"
    assert check(feed).silent == 0
