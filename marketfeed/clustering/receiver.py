"""Messages of other nodes: frames and answers for the mirror, requests, and statuses."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from marketfeed.cluster.frames import header_of
from marketfeed.cluster.nodes import MAX_NODES
from marketfeed.cluster.status import StatusError
from marketfeed.clustering.subjects import Address, Topic
from marketfeed.errors import FrameError
from marketfeed.gateway.rate_limited_log import RateLimitedLog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marketfeed.cluster.queues import Message
    from marketfeed.clustering.member import Member

MOST_MESSAGES: Final = 32  # between two turns of other tasks


class Receiver:
    """Takes the messages of ``member``."""

    def __init__(self, member: Member) -> None:
        self.bad = 0  # messages that could not be read
        self.answered = 0  # requests for ticks, names and states
        self._member = member
        self._waiting: dict[str, int] = {}  # nodes that wait for a state, and the numbers of their requests
        self._log = RateLimitedLog()

    async def run(self) -> None:
        """Take what arrives, until the link ends."""
        member = self._member
        assert member.link is not None, "the member opens it before"
        with suppress(trio.ClosedResourceError):
            while True:
                for message in await member.link.receive(MOST_MESSAGES):
                    self._take(message)
                if member.wrote:
                    member.wrote = False
                    member.engine.wake()

    def _take(self, message: Message) -> None:
        address = self._member.subjects.parsed(message.subject)
        if address is None:
            self.bad += 1
            return
        try:
            self._take_from(address, message.payload)
        except (FrameError, StatusError) as error:
            self.bad += 1
            self._log.warning("message dropped", source=address.source, reason=str(error))

    def _take_from(self, address: Address, payload: bytes) -> None:
        """Take a message; raises FrameError and StatusError."""
        member = self._member
        now_ns, part = member.now_ns(), member.part
        mirror = None if part is None else part.mirror
        match address.topic:
            case Topic.FRAME if mirror is not None:
                member.act(mirror.feed(payload, now_ns))
            case Topic.FRAME:
                header = header_of(payload)
                member.keeper.do(member.lease.saw(header.term, header.epoch, now_ns))
            case Topic.REPAIR if mirror is not None and address.number == member.generation:
                node = None if address.source == member.origin() else address.source
                member.act(mirror.answer(node, payload, now_ns))
            case Topic.STATE if mirror is not None:
                member.act(mirror.state_part(address.number, payload, now_ns))
            case Topic.REQUEST if part is not None and address.source != member.node:
                self._answer(Topic.REPAIR, address, part.answer(payload))
            case Topic.SYNC if address.source != member.node:
                if len(self._waiting) < MAX_NODES:  # without a state they are kept
                    self._waiting[address.source] = address.number
                self.answer_waiting()
            case Topic.STATUS:
                status = member.nodes.take(payload, now_ns, time.time_ns())
                if status is not None and status.shard == member.config.shard:
                    member.keeper.do(member.lease.saw(status.term, status.epoch, now_ns))
            case _:
                pass  # an answer to an earlier request

    def _answer(self, topic: Topic, address: Address, parts: Iterable[bytes]) -> None:
        """Send the parts of an answer; those for which there is no room are lost.

        Repairs go before frames that wait. A state goes after them, so that a mirror which lacks ticks has
        received those that are on their way before it takes them for lost.
        """
        subject = self._member.subjects.to(topic, address.source, address.number)
        self.answered += 1
        for part in parts:
            if not self._member.publish(subject, part, urgent=topic is Topic.REPAIR):
                break

    def answer_waiting(self) -> None:
        """Send the state to the nodes that wait for it, once there is one."""
        part = self._member.part
        if not self._waiting or part is None or (parts := part.state()) is None:
            return
        answer = list(parts)
        waiting, self._waiting = self._waiting, {}
        for node, number in waiting.items():
            self._answer(Topic.STATE, Address(Topic.SYNC, node, number), answer)
