"""A reading session in a thread, which measures its longest silence."""

from __future__ import annotations

import json
import threading
import time

from websockets.sync.client import connect


class Healthy(threading.Thread):
    """Subscribes to one busy symbol, and records the longest time between two frames."""

    def __init__(self, url: str, symbol: str) -> None:
        super().__init__(daemon=True)
        self.longest_s = 0.0
        self.ended: BaseException | None = None
        self._synced = threading.Event()
        self._stopping = False
        self._url, self._symbol = url, symbol
        self.start()
        assert self._synced.wait(20)

    def run(self) -> None:
        try:
            with connect(self._url, compression=None, max_size=None) as ws:
                ws.send(json.dumps({"action": "subscribe", "quotes": [self._symbol]}))
                while b'"synced"' not in ws.recv(timeout=20, decode=False):
                    pass
                ws.recv(timeout=20)
                self._synced.set()
                last_s = time.perf_counter()
                while not self._stopping:
                    ws.recv(timeout=30)
                    now_s = time.perf_counter()
                    self.longest_s = max(self.longest_s, now_s - last_s)
                    last_s = now_s
        except BaseException as error:
            self.ended = error

    def silence(self) -> float:
        """Return the longest time without a frame since the last call."""
        time.sleep(0.1)
        assert self.ended is None
        longest_s, self.longest_s = self.longest_s, 0.0
        return longest_s

    def stop(self) -> None:
        """Close the session."""
        self._stopping = True
        self.join(10)
