"""Requests to the cluster's bucket over any connection, once the settings of the bucket have been checked.

The check runs after each connect until it succeeds, behind a circuit breaker. A bucket that was found good
stays in use while a later check cannot be made, such as during an election of JetStream: the holder of a
lease must not lose it by that.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, TypeVar

import nats.errors

from marketfeed.cluster.bucket import BucketGoneError, BucketSettingsError, prepare
from marketfeed.cluster.link_state import Problem
from marketfeed.cluster.nats_errors import explained
from marketfeed.core.breaker import Breaker
from marketfeed.core.units import S
from marketfeed.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats.js import JetStreamContext

    from marketfeed.cluster.connection import Connection

T = TypeVar("T")

CHECK_S: Final = 5.0  # of one attempt
FIRST_WAIT_NS: Final = S // 4
MOST_WAIT_NS: Final = 8 * S


class BucketRequests:
    """The bucket ``name``, which is made with ``replicas`` if there is none."""

    def __init__(self, name: str, replicas: int, tell: Callable[[Problem], None]) -> None:
        self._name, self._replicas, self._tell = name, replicas, tell
        self.breaker = Breaker(1, FIRST_WAIT_NS, MOST_WAIT_NS)  # of checks; it holds back no request
        self._good = asyncio.Event()
        self._wrong: BucketSettingsError | None = None
        self._problem = ""
        self._check: asyncio.Task[None] | None = None

    def connected(self, connection: Connection) -> None:
        """Begin to check the bucket over ``connection``, in place of an earlier one."""
        self.disconnected()
        self._check = asyncio.create_task(self._checked(connection))

    def disconnected(self) -> None:
        """End the check."""
        if self._check is not None:
            self._check.cancel()

    async def run(
        self,
        connection: Connection,
        operation: Callable[[JetStreamContext, str], Awaitable[T]],
        timeout_s: float,
    ) -> T:
        """Run ``operation`` with JetStream and the bucket's name, after the check. Raises ClusterError.

        Waits without a limit for the check; a request of nats-py ends after ``timeout_s``.
        """
        if self._wrong is not None:
            raise self._wrong
        await self._good.wait()
        try:
            return await operation(connection.jetstream(timeout_s), self._name)
        except BucketGoneError:
            if self._check is None or self._check.done():
                self.connected(connection)  # which makes it again
            raise
        except nats.errors.TimeoutError:
            raise
        except nats.errors.Error as error:
            raise ClusterError(explained(error)) from None

    @property
    def problem(self) -> str:
        """Why the bucket could not be checked; "" if it is good, or the check is going on."""
        return self._problem

    async def _checked(self, connection: Connection) -> None:
        while True:
            call = self.breaker.admit(time.monotonic_ns())
            if call is None:
                await asyncio.sleep(self.breaker.wait_ns(time.monotonic_ns()) / S)
                continue
            try:
                async with asyncio.timeout(CHECK_S):
                    await prepare(connection.jetstream(CHECK_S), self._name, self._replicas)
            except BucketSettingsError as error:
                self._wrong, problem = error, str(error)
                self._good.clear()
            except (nats.errors.Error, TimeoutError, OSError) as error:
                problem = f"the bucket {self._name} in NATS cannot be checked: {explained(error)}"
            except BaseException:  # such as the end of the connection
                self.breaker.release(call)
                raise
            else:
                self.breaker.succeeded(call)
                self._wrong = None
                self._good.set()
                self._told("")
                return
            self._told(problem)
            self.breaker.failed(call, time.monotonic_ns())

    def _told(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._tell(Problem(True, problem))
