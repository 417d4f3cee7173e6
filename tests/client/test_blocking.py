"""The thread of a blocking feed, where it is interrupted."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from marketfeed.client.blocking import _end


class Thread(threading.Thread):
    joined = False

    def join(self, timeout: float | None = None) -> None:
        self.joined = True


def test_an_interrupted_connect_does_not_wait_for_the_thread():
    started: Future[Any] = Future()
    thread = Thread()
    _end(started, thread)
    assert started.cancelled()
    assert not thread.joined
