"""Thousands of polls wait for one symbol; its next tick answers all, and clients that left cost nothing."""

from __future__ import annotations

import json
import os
import resource
import selectors
import socket

import numpy as np

from marketfeed import QUOTE
from marketfeed.core.binary import quotes_frame, symbols_frame
from tests.support.admin_client import get, samples
from tests.support.conformance import check_poll
from tests.support.process import engine
from tests.support.publishers import address_of, connect

POLLS = 10_000 if os.environ.get("MARKETFEED_PROVE") else 1_000
CONFIG = '[limits]\nrequests_per_s = 100000\n[[feeds]]\nname = "in"\ntype = "push"\nlisten = "127.0.0.1:0"\n'


def one_quote() -> bytes:
    quote = np.zeros(1, QUOTE)
    quote["bid_px"] = quote["bid_sz"] = 1
    return quotes_frame(quote, 0)


def test_one_tick_answers_every_poll_that_waits(tmp_path):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with engine(CONFIG, tmp_path) as running, connect(address_of(running, "in")) as publisher:

        def waiting() -> float:
            return samples(get(running.admin_port, "/metrics")[2])["marketfeed_waiting_polls",]

        poll = selectors.EpollSelector()
        clients = []
        for _ in range(POLLS):
            sock = socket.create_connection(("127.0.0.1", running.port), timeout=30)
            sock.sendall(b"GET /v1/poll?quotes=X&timeout_s=300 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            sock.setblocking(False)
            poll.register(sock, selectors.EVENT_READ, sock)
            clients.append(sock)
        while waiting() < POLLS:
            pass
        for sock in clients[: POLLS // 10]:
            poll.unregister(sock)
            sock.close()
        del clients[: POLLS // 10]
        while waiting() > len(clients):
            pass
        publisher.sendall(symbols_frame({"X": 0}, 0) + one_quote())
        answered = 0
        while answered < len(clients):
            for key, _ in poll.select(30):
                body = key.data.recv(65536).partition(b"\r\n\r\n")[2]
                # Had some waited for another flush, they would hold the second tick, too.
                answer = json.loads(body)
                check_poll(answer)
                assert [m["g"] for m in answer["messages"]] == [1]
                if not answered:
                    publisher.sendall(one_quote())
                answered += 1
                poll.unregister(key.fileobj)
        assert waiting() == 0
        for sock in clients:
            sock.close()
