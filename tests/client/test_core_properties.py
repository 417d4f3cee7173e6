"""The core against a model of an engine: cuts at any byte, any pieces, restarts, lag, broken proxies.

Every tick comes once and in order, or the stream tells that it does not.
"""

from __future__ import annotations

import json
import os
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfeed.client.batch import Batch
from marketfeed.client.core import Core, Settings
from marketfeed.client.dialogue import Answered
from marketfeed.client.intake import Now
from marketfeed.client.subscriptions import Stage
from tests.support.model_engine import NOW_NS, SYMBOLS, Model, Session, corrupted, matches
from tests.support.witness import Witness

NAMES = [*SYMBOLS, *SYMBOLS, "A*", "*"]
names = st.lists(st.sampled_from(NAMES), max_size=2)
some = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3)
ticks = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(SYMBOLS)), min_size=1, max_size=25)
sizes = st.sampled_from([1, 100, 400, 1_000, 100_000])
traffic = st.tuples(st.just("traffic"), st.tuples(ticks, st.sampled_from([1, 4, 10, 1000]), sizes))
HEALTHY = [
    *(traffic,) * 5,
    st.tuples(st.just("publish"), ticks),
    st.tuples(st.just("cut"), st.sampled_from([1, 300, 1_000, 3_000])),
    st.tuples(st.just("cut"), st.sampled_from([300, 1_000, 3_000])),
    st.tuples(st.just("lag"), st.tuples(ticks, st.booleans())),
    st.tuples(st.just("lag"), st.tuples(ticks, st.booleans())),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("subscribe"), st.tuples(some, names, st.sampled_from([None, "vip", "basic"]))),
    st.tuples(st.just("unsubscribe"), st.tuples(some, some)),
]
BROKEN = [
    *HEALTHY,
    *(st.tuples(st.just(how), st.integers(0, 3)) for how in ("swap", "drop", "double")),
    *(st.tuples(st.just("corrupt"), ticks),) * 2,
]
PROVE = bool(os.environ.get("MARKETFEED_PROVE"))
EXAMPLES = 1000 if PROVE else 100


class Run:
    """One client, one engine, and the wire between them."""

    def __init__(self, seed, encoding):
        self.rng = random.Random(seed)
        self.model = Model()
        self.core = Core(
            Settings("engine", "/v1/stream", encoding=encoding, wait=True), lambda low, high: low
        )
        self.witness = Witness()
        self.s = 0.0
        self.strange = []  # gaps that it has not
        self.leaving = {}  # id of an unsubscribe: names per channel that are left after it
        self.wire = b""
        self.session: Any = None
        self.connect()

    @property
    def now(self):
        return Now(self.s, NOW_NS + int(self.s * 1e9))

    def connect(self):
        self.core.attempt(self.now)
        self.core.opened(self.now)
        self.wire, self.session = b"", Session(self.model, self.rng)
        self.exchange()

    def exchange(self):
        """Let the engine take what the client sends, and send its frames."""
        data = self.core.data_to_send()
        if data:
            self.session.receive(data)
        self.wire += self.session.take()

    def act(self, action, detail):
        getattr(self, action)(detail)
        if not self.core.connected:
            assert self.core.finished is None, self.core.finished
            self.s = self.core.deadline_s
            self.connect()

    def publish(self, ticks):
        for channel, symbol in ticks:
            self.model.publish(channel, symbol)

    def traffic(self, detail):
        ticks, most, size = detail
        self.publish(ticks)
        self.session.flush(most)
        self.exchange()
        self.deliver(size)

    def lag(self, detail):
        """Let the session lag while ticks come, and send some of them; then perhaps cut it."""
        ticks, cut = detail
        self.deliver(1 << 20)
        self.session.lag()
        self.publish(ticks)
        self.session.flush(self.rng.choice([1, 2, 3, 1000]))
        self.exchange()
        if cut:
            self.cut(self.rng.choice([300, 3000]))

    def deliver(self, most):
        """Deliver up to ``most`` bytes, in pieces."""
        data, self.wire = self.wire[:most], self.wire[most:]
        while data and self.core.connected:
            size = self.rng.randint(1, max(len(data), 1)) if self.rng.random() < 0.5 else len(data)
            self.take(self.core.receive_data(data[:size], self.now))
            data = data[size:]
            self.exchange()

    def cut(self, most):
        self.deliver(self.rng.randint(0, most))
        if self.core.connected:
            self.take(self.core.receive_data(b"", self.now))

    def restart(self, _):
        self.model.restart()
        self.cut(2000)

    def subscribe(self, detail):
        quotes, trades, tier = detail
        self.core.subscribe(self.now, quotes=list(quotes), trades=list(trades), tier=tier)
        self.exchange()

    def unsubscribe(self, detail):
        quotes, trades = detail
        answered = all(one.stage >= Stage.ANSWERED for one in self.core.subscriptions.requests.values())
        if answered and self.core.state.name == "connected":  # callers wait for the answer
            number = self.core.unsubscribe(self.now, quotes, trades, [])
            requests = self.core.subscriptions.requests.values()
            self.leaving[number] = [
                [name for request in requests for name in (request.quotes, request.trades)[channel]]
                for channel in (0, 1)
            ]
            self.exchange()

    # A proxy that loses, doubles and reorders messages of ticks.

    def frames(self, place):
        """Send everything up to now; return the places of the next messages of ticks."""
        self.session.flush()
        return [i for i, ticks in enumerate(self.session.ticks_only) if ticks][place:]

    def swap(self, place):
        places = self.frames(place)
        if len(places) > 1:
            frames, (i, j) = self.session.frames, places[:2]
            frames[i], frames[j] = frames[j], frames[i]
        self.exchange()

    def drop(self, place):
        for i in self.frames(place)[:1]:
            del self.session.frames[i]
        self.exchange()

    def double(self, place):
        for i in self.frames(place)[:1]:
            self.session.frames.insert(i, self.session.frames[i])
        self.exchange()

    def corrupt(self, ticks):
        """Break the last tick of the longest message, after those before it; the client drops it."""
        self.publish(ticks)
        frames = self.session.frames
        for i in sorted(self.frames(0), key=lambda i: len(frames[i]))[-1:]:
            frames[i] = corrupted(frames[i])
        self.exchange()
        self.deliver(1 << 20)

    # What the client tells.

    def take(self, events):
        for event in events:
            if isinstance(event, Answered):
                assert event.error is None
                if event.id in self.leaving:  # by the loss of the connection, perhaps
                    self.left(event.id)
            elif isinstance(event, Batch):
                for message in event.in_order():
                    told = json.loads(msgspec.json.encode(message))
                    if told["T"] == "subscription" and told.get("id") in self.leaving:
                        self.left(told["id"])
                    sent = {(symbol, channel, n) for symbol, channel, _, n in self.session.gaps}
                    if told["T"] == "gap" and (told["S"], told["channel"], told["n"]) not in sent:
                        self.strange.append(told)
                    self.witness.see(told)

    def left(self, number):
        """Forget the symbols that an `unsubscribe` left, which later requests may have added again."""
        kept = self.leaving.pop(number)
        for channel in (0, 1):
            for symbol in SYMBOLS:
                if not any(matches(name, symbol) for name in kept[channel]):
                    self.witness.forget(("qt"[channel], symbol))

    def finish(self):
        """Let everything arrive; the client has the newest tick of each symbol that it subscribed to."""
        for _ in range(200):
            self.session.flush()
            self.exchange()
            self.act("deliver", 1 << 20)
            if not self.wire and self.core.subscriptions.synced and not self.session.frames:
                break
            self.s += 1.0
            self.take(self.core.tick(self.now))
        assert self.core.subscriptions.synced
        wanted = [(request.quotes, request.trades) for request in self.core.subscriptions.requests.values()]
        for (channel, symbol), ticks in self.model.ticks.items():
            named = [name for request in wanted for name in request[channel]]
            if any(matches(name, symbol) for name in named):
                assert self.witness.last.get(("qt"[channel], symbol)) == len(ticks)
                newest = self.core.intake.newest.of(symbol, ("quotes", "trades")[channel])
                assert newest is not None
                assert newest.n == len(ticks)


def ran(seed, encoding, first, script, ordered=True):
    run = Run(seed, encoding)
    run.witness.ordered = ordered
    run.act("deliver", 1 << 20)
    run.act("subscribe", (*first, "vip"))
    for action, detail in script:
        run.act(action, detail)
    return run


def over(steps):
    """Return the decorator of a property of feeds to which any of ``steps`` happen."""
    script = st.lists(st.one_of(steps), min_size=10, max_size=60)
    drawn = given(seed=st.integers(0, 2**32), first=st.tuples(some, names), script=script)
    chosen = settings(max_examples=EXAMPLES, derandomize=not PROVE)
    return lambda test: pytest.mark.slow(
        pytest.mark.parametrize("encoding", ["json", "binary"])(chosen(drawn(test)))
    )


@over(HEALTHY)
def test_every_tick_comes_once_or_is_told_to_be_missing(encoding, seed, first, script):
    run = ran(seed, encoding, first, script)
    run.finish()
    assert run.strange == []
    assert run.core.statistics().silently_lost == 0


@over(BROKEN)
def test_what_a_broken_proxy_loses_doubles_or_reorders_is_told(encoding, seed, first, script):
    run = ran(seed, encoding, first, script, ordered=False)
    # What is lost at the end of a stream shows with the next tick.
    run.act("publish", [(channel, symbol) for symbol in SYMBOLS for channel in (0, 1)])
    run.finish()
