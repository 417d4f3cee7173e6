"""The publisher of marketfeed.client at a real engine: cut connections, an engine that ends and returns."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from marketfeed import TRADE
from marketfeed.client import Cut, publisher, push_link
from tests.support.ports import free_port
from tests.support.process import engine, open_session, subscribe
from tests.support.publishers import address_of

if TYPE_CHECKING:
    from pathlib import Path

PROVE = bool(os.environ.get("MARKETFEED_PROVE"))
CUTS = 200 if PROVE else 20
LIVES = 10 if PROVE else 4
FEED = '[[feeds]]\nname = "publishers"\ntype = "push"\nlisten = "127.0.0.1:{port}"\n'
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST, which discards unsent bytes
NAMES = [f"S{i}" for i in range(20)]
LAST = 2**40  # the id of the last trade of all
ROOM = ("--set", "engine.ring_depth=65536", "--set", "engine.max_symbols=64")


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    monkeypatch.setattr(push_link, "MAX_RETRY_S", push_link.FIRST_RETRY_S)


class Numbers:
    """Trades with the ids 1, 2, 3 …; a session that lags gets all of them."""

    def __init__(self, out) -> None:
        self._out, self._ids, self.count = out, out.announce(NAMES), 0
        self._random = random.Random(1)

    def publish(self) -> None:
        """Publish some trades, and wait until they are sent."""
        records = np.zeros(self._random.choice((1, 10, 1000)), TRADE)
        records["symbol"] = self._ids[np.arange(len(records)) % len(NAMES)]
        records["trade_id"] = np.arange(self.count + 1, self.count + 1 + len(records))
        records["size"], records["side"] = 1, ord("b")
        self.count += len(records)
        self._out.trades(records)
        self._out.drain(60)


class Subscriber(threading.Thread):
    """Gathers the ids of one life of the engine, until its end or that of all trades."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.ids: list[int] = []
        self._ws = open_session(url)
        self._session = self._ws.__enter__()
        subscribe(self._session, trades=["*"], tier="vip")
        self.start()

    def run(self) -> None:
        try:
            while LAST not in self.ids[-1:]:
                for message in json.loads(self._session.recv(timeout=60)):
                    assert message["T"] != "gap"
                    if message["T"] == "t":
                        self.ids.append(message["i"])
        except OSError:
            pass  # the engine was killed
        except Exception as error:
            if "Closed" not in type(error).__name__:
                raise
        finally:
            self._session.close()


def test_every_trade_arrives_once_or_is_counted_however_often_the_connection_is_cut(tmp_path: Path):
    cuts: list[Cut] = []
    with (
        engine(FEED.format(port=0), tmp_path, *ROOM) as running,
        publisher(address_of(running, "publishers"), on_cut=cuts.append) as out,
    ):
        out.wait_connected(60)
        numbers, subscriber = Numbers(out), Subscriber(running.url)
        rng = random.Random(2)
        for cut in range(1, CUTS + 1):
            for _ in range(rng.randrange(20)):
                numbers.publish()
            sock = out._link._sock
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                numbers.publish()
                sock.shutdown(socket.SHUT_RD)
                while len(cuts) < cut:
                    numbers.publish()
            out.wait_connected(60)
        out.trade(NAMES[0], price=1, size=1, trade_id=LAST)
        subscriber.join()
        assert running.stop() == 0
    ids = subscriber.ids
    assert ids == sorted(set(ids))
    said = out.statistics()
    assert said.trades == said.sent == numbers.count + 1
    lost = said.trades - len(ids)
    print(f"{said.cuts} cuts, {said.trades} trades, {lost} lost, {said.in_doubt} in doubt")
    assert 0 <= lost <= said.in_doubt
    assert said.cuts == len(cuts) >= CUTS
    assert sum(cut.in_doubt for cut in cuts) == said.in_doubt


def test_it_carries_on_with_an_engine_that_ended_and_announces_its_symbols_again(tmp_path: Path):
    port = free_port()
    feed = FEED.format(port=port)
    lives: list[Subscriber] = []
    with publisher(f"127.0.0.1:{port}") as out:
        numbers = Numbers(out)
        for life in range(LIVES):
            with engine(feed, tmp_path, *ROOM) as running:
                address_of(running, "publishers")
                lives.append(Subscriber(running.url))
                out.wait_connected(60)
                while not lives[-1].ids:
                    numbers.publish()
                if life == LIVES - 1:
                    out.trade(NAMES[0], price=1, size=1, trade_id=LAST)
                    lives[-1].join()
                elif life % 2:
                    assert running.stop() == 0
                else:
                    running.stop(signal.SIGKILL)
            lives[-1].join()
            while out.state == "connected":
                time.sleep(0.01)
    ids = [number for subscriber in lives for number in subscriber.ids]
    assert ids == sorted(set(ids))
    assert all(subscriber.ids for subscriber in lives)
    assert ids[-1] == LAST
    said = out.statistics()
    assert said.trades == said.sent == numbers.count + 1
    assert said.cuts >= LIVES - 1
