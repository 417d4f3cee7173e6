"""marketfeed.js in Node.js against a real engine, over each transport."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.support.js import program
from tests.support.process import engine
from tests.support.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.js import Program
    from tests.support.process import Engine

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

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

            def mine(messages, at=before, prefix=prefix):
                of = [m["m"] for m in messages[at:] if m["T"] == "mine"]
                return next((m for m in of if m.get("S", "").startswith(prefix)), None)

            first = feed.wait(mine)
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


class Blocking(threading.Thread):
    """A proxy of an office: it forwards each connection, and refuses requests for some paths."""

    def __init__(self, to: int) -> None:
        super().__init__(daemon=True)
        self.blocked: set[str] = set()
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self.start()

    def run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._to)) as engine:
            # Fresh connections only, so that each request is seen.
            head = client.recv(65536)
            path = head.split(b" ", 2)[1].split(b"?")[0].decode() if b" " in head else ""
            if path in self.blocked:
                client.sendall(
                    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy"
                )
                return
            engine.sendall(head if path == "/v1/stream" else head.replace(b"keep-alive", b"close", 1))
            back = threading.Thread(target=_copy, args=(engine, client), daemon=True)
            back.start()
            _copy(client, engine)
            back.join()

    def close(self) -> None:
        self._listener.close()


def _copy(source: socket.socket, to: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            to.sendall(data)
    except OSError:
        pass
    for end in (source, to):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def test_a_transport_that_is_blocked_is_followed_by_the_next(running):
    proxy = Blocking(running.port)
    paths = ["/v1/stream", "/v1/events"]
    for blocked, name in ((1, "events"), (2, "poll")):
        proxy.blocked = set(paths[:blocked])
        with program(proxy.url, retryMs=[10, 20], subscribe=ALL) as feed:
            ticks(feed, 100)
            transport = feed.ask("feed.transport")
        assert transport["name"] == name
        assert transport["why"].startswith(("websocket: ", "events: "))
        assert check(feed).silent == 0
    proxy.close()


def test_alerts_come_to_a_consumer_until_they_are_acknowledged(running):
    for way in ("websocket", "events", "poll"):
        with program(http(running), transport=way) as feed:
            feed.call(
                f"globalThis.desk = feed.alerts({{consumer: 'desk-{way}', start: 'now'}}, "
                "a => tell({T: 'got', a}))"
            )
            feed.call("feed.alerts({patterns: ['no*']}, a => tell({T: 'live', a}))")
            feed.wait_for("state", state="connected")
            consumers = f"http://127.0.0.1:{running.admin_port}/v1/alerts/consumers"
            while f"desk-{way}" not in urllib.request.urlopen(consumers).read().decode():
                pass
            answer = feed.ask(f"feed.publish({{key: 'order-{way}', msg: 'too large', data: {{order: 17}}}})")
            alert = feed.wait_for("got")["a"]
            assert (alert["id"], alert["msg"], alert["ack"]) == (answer["id"], "too large", True)
            acked = feed.ask(f"globalThis.desk.ack({answer['id']!r})")
            assert acked == {"alerts": [answer["id"]], "unknown": []}
            again = feed.ask(f"globalThis.desk.ack([{answer['id']!r}])")
            assert again["unknown"] == [answer["id"]]
            if way != "poll":
                assert feed.wait_for("live")["a"]["ack"] is False


def test_a_request_that_is_refused_has_the_reason(running):
    with program(http(running)) as feed:
        feed.call("await feed.request('/v1/poll?tier=none&quotes=A')")
        failed = feed.wait_for("failed")
        assert (failed["code"], "tier" in failed["error"]) == (400, True)
        assert len(feed.ask("feed.request('/v1/symbols')")["symbols"]) == 20


def test_a_tier_that_does_not_exist_is_told_and_the_subscription_goes_on(running):
    for way in ("websocket", "events"):
        names = {"quotes": ["*"], "tier": "platinum"}
        with program(http(running), transport=way, retryMs=[10, 20], subscribe=names) as feed:
            assert feed.wait_for("error")["code"] == 400
            ticks(feed, 50)
            assert feed.ask("feed.tier") == "vip"


def test_the_tier_is_the_fastest_that_a_subscription_asks_for(running):
    with program(http(running), subscribe={"quotes": ["SY0000"], "tier": "basic"}) as feed:
        feed.wait_for("tier", tier="basic")
        feed.call("globalThis.fast = feed.subscribe({quotes: ['SY0001'], tier: 'vip'}, () => {})")
        feed.wait_for("tier", tier="vip")
        before = len(feed.messages)
        feed.call("globalThis.fast.unsubscribe()")
        feed.wait_for("tier", before, tier="basic")
        feed.call("feed.setTier('premium')")
        feed.wait_for("tier", before, tier="premium", why="asked")


def test_the_estimate_of_the_engines_clock_does_not_need_that_of_this_machine(running):
    with program(http(running), subscribe=ALL) as feed:
        feed.call("const real = Date.now; Date.now = () => real() - 3600e3; await feed.request('/v1/engine')")
        ticks(feed, 200)
        feed.call("feed.cut()")
        feed.wait_for("resumed")
        ticks(feed, 200)
        ages = feed.ask(
            "[...Array(20)].map((_, i) => feed.now() - (feed.latest(`SY00${10 + i % 10}`)?.r ?? 0))"
        )
        assert min(ages) >= 0
        assert feed.ask("feed.statistics().latencyMs.max") < 60_000


def test_ticks_are_the_same_in_json_and_binary(running):
    with (
        program(http(running), encoding="json", subscribe=ALL) as plain,
        program(http(running), encoding="binary", subscribe=ALL) as packed,
    ):
        for feed in (plain, packed):
            feed.wait_for("synced")
            ticks(feed, 500)
        assert packed.ask("feed.encoding") == "binary"
    seen = [
        {(m["T"], m["S"], m["n"]): m for m in feed.messages if "n" in m and "snap" not in m}
        for feed in (plain, packed)
    ]
    both = seen[0].keys() & seen[1].keys()
    assert {key[0] for key in both} == {"q", "t"}
    assert len(both) > 200
    for key in both:
        assert seen[0][key] == seen[1][key]
