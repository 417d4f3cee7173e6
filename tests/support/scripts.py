"""A server that plays one script per connection, for clients of the stream."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import trio_websocket

from marketfeed.client.messages import ARRAY

if TYPE_CHECKING:
    import trio

CONNECTED = {"T": "success", "msg": "connected", "protocol": 1, "epoch": "e1", "session": "s1"}
ID = "the id of the last request"


class Script:
    """Plays ``scripts``, one per connection, each after the first message of a session.

    A list is a frame of messages to send, text a frame as it is, bytes a binary one, "?" a request to read,
    and an integer ends the connection with this code. The value ID is the id of the last request. With
    ``epochs``, the sessions have these.
    """

    def __init__(self, scripts: tuple[Any, ...], epochs: tuple[str, ...] = ()) -> None:
        self.requests: list[dict[str, Any]] = []  # without their ids
        self.url = ""
        self._scripts, self._epochs = list(scripts), list(epochs)
        self._id: Any = None

    async def start(self, nursery: trio.Nursery) -> Script:
        """Listen, in ``nursery``."""
        serve = partial(trio_websocket.serve_websocket, self._handle, "127.0.0.1", 0, None)
        server = await nursery.start(serve)
        self.url = f"ws://127.0.0.1:{server.port}/v1/stream"
        return self

    async def _handle(self, request: trio_websocket.WebSocketRequest) -> None:
        ws = await request.accept()
        epoch = self._epochs.pop(0) if self._epochs else CONNECTED["epoch"]
        await ws.send_message(json.dumps([{**CONNECTED, "epoch": epoch}]))
        for step in self._scripts.pop(0):
            if step == "?":
                asked = json.loads(await ws.get_message())
                self._id = asked.pop("id", None)
                self.requests.append(asked)
            elif isinstance(step, int):
                await ws.aclose(step, "so")
            elif isinstance(step, list):
                await ws.send_message(json.dumps([self._with_id(message) for message in step]))
            else:
                await ws.send_message(step)

    def _with_id(self, message: dict[str, Any]) -> dict[str, Any]:
        return {key: self._id if value == ID else value for key, value in message.items()}


def as_received(message: dict[str, Any]) -> Any:
    """Return a message as the client has it: a struct."""
    (one,) = ARRAY.decode(msgspec.json.encode([message]))
    return one
