"""Sessions on WebSockets that share a durable consumer, and connect again when they end."""

from __future__ import annotations

import itertools
import json
import random
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from websockets.exceptions import InvalidHandshake, WebSocketException

from tests.support.alert_histories import Answered, History, Seen
from tests.support.conformance import connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from websockets.sync.client import ClientConnection

RECEIVE_S: Final = 0.2
FAILURES: Final = (OSError, EOFError, WebSocketException, InvalidHandshake)
_connections = itertools.count(1)


class Streaming:
    """One session of a consumer. A share ``ignored`` of the deliveries is not acknowledged, and comes again.

    ``ordered``: nothing comes on a connection after the answer to its acknowledgement. Without it, the
    session is served by a worker, where a repeated delivery may cross the answer to a late acknowledgement.
    """

    def __init__(
        self, url: str, name: str, patterns: Sequence[str], history: History, *, ordered: bool,
        ignored: float = 0.0, seed: int = 0,
    ) -> None:  # fmt: skip
        self._url, self._ordered, self._history = url, ordered, history
        self._request = {"action": "subscribe", "alerts": list(patterns), "consumer": name, "start": "all"}
        self._random, self._ignored = random.Random(seed), ignored
        self._open = ExitStack()
        self._ws: ClientConnection | None = None
        self._connection = self._since = 0
        self._sent: dict[int, int] = {}  # position of the history when an acknowledgement was sent, by its id

    def step(self) -> None:
        """Connect if needed; take one frame, or none within RECEIVE_S. Raises one of FAILURES."""
        try:
            if self._ws is None:
                self._connect()
            self._take_frame()
        except FAILURES:
            self.close()
            raise

    def close(self) -> None:
        """End the session."""
        self._ws = None
        self._open.close()

    def _connect(self) -> None:
        self._since, self._sent = self._history.now(), {}
        self._connection = next(_connections) if self._ordered else 0
        self._ws = self._open.enter_context(connect(self._url, compression=None, close_timeout=1))
        self._ws.send(json.dumps(self._request))

    def _take_frame(self) -> None:
        assert self._ws is not None
        try:
            messages = json.loads(self._ws.recv(timeout=RECEIVE_S))
        except TimeoutError:
            return
        taken = []
        for message in messages:
            if message["T"] == "a":
                self._history.add([Seen(message["id"], self._since, self._connection)])
                if self._random.random() >= self._ignored:
                    taken.append(message["id"])
            elif message["T"] == "acked":
                self._answered(message)
            elif message["T"] in ("error", "closing"):
                raise WebSocketException(str(message))
        if taken:
            request = len(self._sent)
            self._sent[request] = self._history.now()
            self._ws.send(json.dumps({"action": "ack", "alerts": taken, "id": request}))

    def _answered(self, message: dict[str, Any]) -> None:
        ids = message["alerts"] + message.get("unknown", [])  # unknown: an answer before was lost
        self._history.add(Answered(id_, self._connection) for id_ in ids)
        self._since = self._sent[message["id"]]
