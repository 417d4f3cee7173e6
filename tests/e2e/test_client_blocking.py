"""``marketfeed.stream``: a feed in a thread, for scripts and notebooks."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from itertools import islice
from typing import Any

import pytest

import marketfeed
from marketfeed.client import Alert, Disconnected, Quote, Reset, Resumed
from marketfeed.errors import ConfigError, ConnectError, FeedClosedError, RequestRefusedError
from tests.support.ports import free_port
from tests.support.process import engine

SYNTHETIC = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 20\nrate = 2000\n'
WAIT_S = 30


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with engine(SYNTHETIC, tmp_path_factory.mktemp("blocking")) as running:
        yield f"http://127.0.0.1:{running.port}"


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "marketfeed"]


def quotes_of(feed, count: int) -> list[Quote]:
    return list(islice((message for message in feed if isinstance(message, Quote)), count))


def in_order(quotes: list[Quote]) -> bool:
    last: dict[str, int] = {}
    for quote in quotes:
        if quote.n != last.setdefault(quote.S, quote.n - 1) + 1:
            return False
        last[quote.S] = quote.n
    return True


def test_a_script_gets_every_quote(url):
    with marketfeed.stream(url, quotes=["SY00*"], tier="vip") as feed:
        quotes = quotes_of(feed, 2000)
        assert feed.state.name == "connected"
        assert feed.tier == "vip"
        assert feed.latest("SY0000").S == "SY0000"
        assert feed.statistics().quotes >= 2000
    assert in_order(quotes)
    assert not threads()


def test_binary_batches_and_messages(url):
    with marketfeed.stream(url, quotes=["*"], tier="vip", encoding="binary") as feed:
        count = 0
        for batch in feed.batches():
            count += len(batch.quotes)
            if count > 1000:
                break
        assert in_order(quotes_of(feed, 1000))
        assert set(feed.frame()["symbol"]) == {f"SY{number:04}" for number in range(20)}


def test_requests_and_their_refusals(url):
    with marketfeed.stream(url) as feed:
        feed.subscribe(quotes=["SY0003"])
        feed.set_tier("premium")
        assert {quote.S for quote in quotes_of(feed, 3)} == {"SY0003"}
        with pytest.raises(RequestRefusedError, match="tier"):
            feed.set_tier("gold")
        feed.unsubscribe(quotes=["SY0003"])
        assert feed.tier == "premium"
        assert [tier["tier"] for tier in feed.request("/v1/engine")["tiers"]] == ["vip", "premium", "basic"]


def test_errors_come_from_the_call(url):
    with pytest.raises(ConnectError, match="connection refused"):
        marketfeed.stream(f"http://127.0.0.1:{free_port()}", quotes=["A"])
    with pytest.raises(RequestRefusedError, match="tier"):
        marketfeed.stream(url, quotes=["A"], tier="gold")
    with pytest.raises(ConfigError, match="encoding"):
        marketfeed.stream(url, encoding="xml")
    assert not threads()


def test_inside_a_running_loop_as_in_a_notebook(url):
    async def cell() -> list[Quote]:
        with marketfeed.stream(url, quotes=["SY00*"], tier="vip") as feed:
            return quotes_of(feed, 100)

    assert in_order(asyncio.run(cell()))


def test_close_ends_an_iteration_that_waits(url):
    feed = marketfeed.stream(url, quotes=["NEVER"])
    found: list[object] = []
    reader = threading.Thread(target=lambda: found.extend(feed))
    reader.start()
    while feed.cursor is None:  # until `synced`; then nothing comes
        time.sleep(0.01)
    feed.close()
    feed.close()
    reader.join(WAIT_S)
    assert not reader.is_alive()
    assert not [message for message in found if isinstance(message, Quote)]
    assert list(feed) == []
    with pytest.raises(FeedClosedError):
        feed.subscribe(quotes=["SY0000"])
    assert not threads()


def test_a_feed_that_nobody_refers_to_ends(url):
    feed = marketfeed.stream(url, quotes=["SY00*"])
    assert len(threads()) == 1
    next(feed)
    del feed
    gc.collect()
    assert not threads()


class Interrupted(Future[Any]):
    """A result during whose return Ctrl-C is pressed."""

    def __init__(self, inner: Future[Any]) -> None:
        super().__init__()
        self._inner = inner

    def done(self) -> bool:
        return self._inner.done()

    def result(self, timeout: float | None = None) -> Any:
        self._inner.result(timeout)
        raise KeyboardInterrupt

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._inner.exception(timeout)
        raise KeyboardInterrupt


def test_ctrl_c_loses_no_batch(url, monkeypatch):
    with marketfeed.stream(url, quotes=["SY00*"], tier="vip") as feed:
        quotes, submit, interruptions = quotes_of(feed, 1), feed._submit, 0
        with monkeypatch.context() as patch:
            patch.setattr(feed, "_submit", lambda work: Interrupted(submit(work)))
            while interruptions < 3:
                try:
                    quotes += quotes_of(feed, 1)
                except KeyboardInterrupt:
                    interruptions += 1
                    feed._taking = None  # as if it was pressed before that was set
        quotes += quotes_of(feed, 100)
        assert in_order(quotes)


# A shell starts what it runs in the background with SIGINT ignored, and a process inherits that.
SCRIPT = """
import signal, sys, marketfeed
signal.signal(signal.SIGINT, signal.default_int_handler)
print("began", flush=True)
for message in marketfeed.stream(sys.argv[1], quotes=["NEVER"]):
    print(message.__class__.__name__, flush=True)
"""


def test_ctrl_c_ends_a_script_that_waits(url):
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert script.stdout is not None
    while script.stdout.readline() != "Synced\n":
        assert script.poll() is None
    script.send_signal(signal.SIGINT)
    _, said = script.communicate(timeout=WAIT_S)
    assert script.returncode == -signal.SIGINT
    assert said.rstrip().endswith("KeyboardInterrupt")


def test_an_engine_that_restarts_is_told_in_its_place(tmp_path):
    port = free_port()
    at = ("--set", f"gateway.port={port}")
    with engine(SYNTHETIC, tmp_path, *at) as running:
        feed = marketfeed.stream(running.url, quotes=["SY00*"], tier="vip", retry_s=(0.1, 0.5))
        assert in_order(quotes_of(feed, 100))
        running.stop(signal.SIGKILL)
    with engine(SYNTHETIC, tmp_path, *at):
        told = []
        for message in feed:
            if isinstance(message, Disconnected | Reset | Resumed):
                told.append(type(message))
            if told and told[-1] is Reset and isinstance(message, Quote):
                break
        assert told[0] is Disconnected
        assert in_order(quotes_of(feed, 100))
        feed.close()


ALERTS = """
[[alerts.rules]]
name = "wide"
type = "spread"
symbols = "*"
severity = "warning"
absolute = 0.0001
"""


def test_alerts_of_a_consumer_and_a_notice(tmp_path):
    with engine(SYNTHETIC + ALERTS, tmp_path) as running, marketfeed.stream(running.url) as feed:
        id_ = feed.publish("a limit was exceeded", key="order-1", to="desk")
        found: list[Alert] = []
        for alert in feed.alerts(consumer="desk"):
            found.append(alert)
            if alert.id == id_:
                feed.acknowledge([alert.id])
                break
        assert found[-1].msg == "a limit was exceeded"
        assert len({alert.id for alert in found}) == len(found)
