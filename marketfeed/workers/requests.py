"""Request correlation: match the responses of a channel to the requests that wait for them, by number.

The peer responds in any order, late, or not at all. A response that nobody waits for is dropped.
"""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

R = TypeVar("R")


class Request(Generic[R]):
    """One request; ``number`` is what its message and the response carry."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.response: R | None = None  # None until it arrives, and for ever if the peer ends first
        self._ended = trio.Event()

    async def wait(self) -> None:
        """Wait for the response, or for the end of the peer."""
        await self._ended.wait()

    def end(self, response: R | None) -> None:
        """Store ``response`` and wake the waiting task."""
        self.response = response
        self._ended.set()


class Requests(Generic[R]):
    """The open requests of one end of a channel, whose responses are of type ``R``."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[int, Request[R]] = {}

    def __len__(self) -> int:
        """Return how many requests are open."""
        return len(self._open)

    @contextmanager
    def open(self) -> Iterator[Request[R]]:
        """Open a request with a number of its own until the block ends.

        The caller sends the message and bounds the wait: ``trio.move_on_after`` around ``wait()``.
        """
        request: Request[R] = Request(next(self._numbers))
        self._open[request.number] = request
        try:
            yield request
        finally:
            del self._open[request.number]

    def respond(self, number: int, response: R) -> bool:
        """Pass ``response`` to request ``number``; return False if that is no longer open."""
        request = self._open.get(number)
        if request is None:
            return False
        request.end(response)
        return True

    def end(self) -> None:
        """End all open requests without a response, because the peer has ended."""
        for request in self._open.values():
            request.end(request.response)
