"""Consumers of alerts that survive what an engine or a connection does: they repeat whatever failed.

    python -m tests.support.alert_consumers PORT NAME PATTERNS FILE

polls as consumer NAME until it is killed, and keeps its history in FILE.
"""

from __future__ import annotations

import http.client
import json
import random
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.support.alert_histories import Answered, History, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RETRY_S: Final = 0.02
POLL_S: Final = 0.5
FAILURES: Final = (OSError, http.client.HTTPException)


class Api:
    """An HTTP connection to the engine, opened again when needed."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Return status and body; raises one of FAILURES, after which the next request connects again."""
        try:
            data = None if body is None else json.dumps(body)
            self._connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            response = self._connection.getresponse()
            answer = response.read()
        except FAILURES:
            self._connection.close()
            raise
        return response.status, json.loads(answer) if answer else None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Task(threading.Thread):
    """Calls ``step`` until stopped; when it fails because the engine does, again after RETRY_S."""

    def __init__(self, step: Callable[[], None], failures: tuple[type[Exception], ...] = FAILURES) -> None:
        super().__init__(daemon=True)
        self.stopping = threading.Event()
        self._step, self._failures = step, failures
        self._error: BaseException | None = None

    def run(self) -> None:
        """Run until stopped."""
        try:
            while not self.stopping.is_set():
                try:
                    self._step()
                except self._failures:
                    self.stopping.wait(RETRY_S)
        except BaseException as error:
            self._error = error

    def stop(self) -> None:
        """Stop after the present step; raises what the step raised."""
        self.stopping.set()
        self.join()
        self.check()

    def check(self) -> None:
        """Raise what the step raised."""
        if self._error is not None:
            raise self._error


class Polling:
    """A consumer that polls, and acknowledges up to ``at_once`` alerts per request.

    A share ``ignored`` of the deliveries is not acknowledged, and comes again.
    """

    def __init__(
        self, port: int, name: str, patterns: Sequence[str], history: History, *, ignored: float = 0.0,
        at_once: int = 1000,
    ) -> None:  # fmt: skip
        self.name, self.history, self._at_once = name, history, at_once
        self._api = Api(port)
        self._target = f"/v1/alerts?consumer={name}&alerts={','.join(patterns)}&timeout_s={POLL_S}"
        self._random, self._ignored = random.Random(name), ignored

    def step(self) -> None:
        """Poll once, and acknowledge."""
        since = self.history.now()
        status, answer = self._api.request("GET", f"{self._target}&limit={self._random.randint(1, 100)}")
        if status == 200:
            ids = [alert["id"] for alert in answer["alerts"]]
            self.history.add(Seen(id_, since) for id_ in ids)
            taken = [id_ for id_ in ids if self._random.random() >= self._ignored]
            for start in range(0, len(taken), self._at_once):
                self._acknowledge(taken[start : start + self._at_once])
        elif status != 204:
            raise http.client.HTTPException(f"{status}: {answer}")

    def close(self) -> None:
        """End the connection."""
        self._api.close()

    def _acknowledge(self, ids: list[str]) -> None:
        body = {"consumer": self.name, "alerts": ids}
        status, answer = self._api.request("POST", "/v1/alerts/ack", body)
        if status != 200:
            raise http.client.HTTPException(f"{status}: {answer}")
        assert sorted(answer["alerts"] + answer["unknown"]) == sorted(ids)
        self.history.add(Answered(id_) for id_ in ids)  # those unknown: an answer before was lost


def main(port: str, name: str, patterns: str, path: str) -> None:
    """Poll until killed."""
    # A few at a time: killed, it has sent some of the acknowledgements of a poll and not the others.
    polling = Polling(int(port), name, patterns.split(","), History(Path(path)), at_once=5)
    task = Task(polling.step)
    task.run()
    task.check()


if __name__ == "__main__":
    main(*sys.argv[1:])
