"""``/v1/engine`` of a real engine, with and without worker processes: the state of a feed as it is now."""

from __future__ import annotations

import json
import socket
import time

import numpy as np
import pytest

from marketfeed import QUOTE
from marketfeed.core.binary import quotes_frame, symbols_frame
from marketfeed.gateway.files import files
from tests.support.admin_client import get
from tests.support.process import engine
from tests.support.publishers import address_of, connect


def feed_of(running):
    status, headers, body = get(running.port, "/v1/engine")
    assert (status, headers["cache-control"]) == (200, "no-store")
    answer = json.loads(body)
    (feed,) = answer["feeds"]
    assert feed["since"] <= answer["now"]
    return feed


def until(running, state):
    """Wait until the feed has ``state``; return it."""
    while (feed := feed_of(running))["state"] != state:
        assert running.process.poll() is None
        time.sleep(0.02)
    return feed


@pytest.mark.parametrize("workers", [0, 2])
def test_the_state_of_a_feed_is_that_of_the_moment_in_every_process(tmp_path, workers):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = f'[[feeds]]\nname = "pub"\ntype = "push"\nlisten = "{address}"\n'
        with engine(config, tmp_path, "--set", f"engine.workers={workers}") as running:
            down = until(running, "down")
            assert down["reason"] == "it failed, and is run again after a delay"
            assert (down["feed"], address in json.dumps(down)) == ("pub", False)
            taken.close()
            starting = until(running, "starting")
            assert starting["since"] > down["since"]
            with connect(address_of(running, "pub")) as publisher:
                quote = np.zeros(1, QUOTE)
                quote["bid_px"], quote["ask_px"], quote["bid_sz"], quote["ask_sz"] = 10**9, 2 * 10**9, 1, 1
                publisher.sendall(symbols_frame({"AAPL": 0}, 0) + quotes_frame(quote, 0))
                live = until(running, "live")
                assert live["reason"] is None
                assert live["since"] >= starting["since"]
                # Each request may be served by another process.
                assert {feed_of(running)["since"] for _ in range(8)} == {live["since"]}


def test_the_page_and_its_parts_are_served_and_the_admin_port_is_shown(tmp_path):
    config = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 10\nrate = 100\n'
    with engine(config, tmp_path) as running:
        for path in files().routes:
            assert get(running.port, path)[0] == 200
        answer = json.loads(get(running.port, "/v1/engine")[2])
        assert answer["admin"] == f"http://127.0.0.1:{running.admin_port}"
        assert get(running.port, answer["sdk"])[2] == get(running.port, "/marketfeed.js")[2]
        assert get(running.port, "/page/../../engine.py")[0] == 404
