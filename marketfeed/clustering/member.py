"""An engine as a node of a cluster: the tasks that connect its lease, tee and mirror with NATS.

    link ──► receive ──► mirror ──► rings ──► Engine.wake
                 ├────► requests of other nodes ──► answers
                 └────► statuses ──► table of nodes
    tick: lease, mirror, beats, state of the source, own status
    pump ──► rings, tee ──► sink: does the lease hold? ──► link

No frame leaves unless the lease holds at that moment: a process that was stopped for longer than its lease
sends nothing, whichever of its tasks runs first. Times are of CLOCK_BOOTTIME, as cluster/lease.py requires.
"""

from __future__ import annotations

import secrets
import string
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Final

import structlog
import trio

from marketfeed.cluster import actions
from marketfeed.cluster.follower import Limits, MirrorCounts
from marketfeed.cluster.lease import Lease
from marketfeed.cluster.lease_actions import Become, Lost, StopFeeds
from marketfeed.cluster.lease_value import SUFFIX_CHARACTERS
from marketfeed.cluster.link_settings import node_name
from marketfeed.cluster.nodes import Nodes
from marketfeed.cluster.state import Sizes
from marketfeed.cluster.tee import MAX_PAYLOAD
from marketfeed.clustering.course import Course, Follow, Halt, Lead
from marketfeed.clustering.keeper import Keeper
from marketfeed.clustering.own_folder import own_folder
from marketfeed.clustering.part import Terms
from marketfeed.clustering.pulse import Pulse
from marketfeed.clustering.receiver import Receiver
from marketfeed.clustering.subjects import Subjects, Topic
from marketfeed.clustering.view import View
from marketfeed.core.units import MS, S
from marketfeed.errors import ClusterError
from marketfeed.gateway.rate_limited_log import RateLimitedLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from marketfeed.cluster.link import Link
    from marketfeed.clustering.part import Part
    from marketfeed.config.cluster import ClusterConfig
    from marketfeed.engine import Engine

HANDOVER_S: Final = 3.0  # for the successor's claim
POLL_S: Final = 0.02
_LETTERS: Final = string.digits + string.ascii_lowercase

log = structlog.get_logger()


def boot_ns() -> int:
    """Return the time since the machine was started, with that for which it was suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Member:
    """The node of ``engine``. Its tasks run within the engine's nursery of sources."""

    def __init__(
        self,
        engine: Engine,
        config: ClusterConfig,
        connect: Callable[[], AbstractAsyncContextManager[Link]],
        now_ns: Callable[[], int] = boot_ns,
        folder: Path | None = None,
    ) -> None:
        """``connect`` opens the link. ``folder`` is kept by the node from one process to the next."""
        self.config, self.node, self.incarnation = config, node_name(config), secrets.token_hex(8)
        self.lease = Lease(
            self.node, self.incarnation, lease_ns=int(config.lease_s * S), suffix=_suffix,
            candidate=config.role != "gateway",
        )  # fmt: skip
        self.refused = ""  # why this node cannot mirror the shard
        self.draining = False
        self.frames = 0  # of all kinds, sent as the origin
        self.fenced = 0  # frames that did not leave, because the lease did not hold
        self.wrote = False  # since the readers of the rings were woken
        self.link: Link | None = None
        self.engine = engine
        self.now_ns = now_ns
        self.counts = MirrorCounts()  # of all mirrors
        terms = Terms(
            config.log_bytes, int(config.linger_ms * MS), self._limits(), self._max_payload, self._send,
            self._opened, now_ns, self.counts,
        )  # fmt: skip
        rings = engine.config.engine
        sizes = Sizes(rings.max_symbols, rings.ring_depth)
        self.course = Course(engine, sizes, terms, self._start_mirror)
        self.pulse, self.receiver = Pulse(self), Receiver(self)
        self.nodes = Nodes(self.pulse.status())
        self.view = View(self)
        self.subjects = Subjects(config.name, config.shard, self.node)
        self._connect, self._folder = connect, folder
        self.keeper: Keeper
        self.generation = 0  # of mirrors: answers to an earlier one are dropped
        self._open_frame = trio.Event()
        self._lost = trio.Event()  # the lease, in the end
        self._log = RateLimitedLog()

    def _limits(self) -> Limits:
        config = self.config
        return Limits(
            stale_ns=int(config.stale_s * S), repair_ns=int(config.repair_s * S), held_bytes=config.held_bytes
        )

    @property
    def part(self) -> Part | None:
        """Return the present part."""
        return self.course.part

    @property
    def holds(self) -> bool:
        """Return whether this node is the origin now."""
        return self.lease.holds(self.now_ns())

    async def run(self, nursery: trio.Nursery) -> None:
        """Be a node until cancelled; ``nursery`` is for its tasks, and cancelled with it."""
        path = None if self._folder is None else self._folder / f"cluster.{self.node}"
        async with self._connect() as link:
            with nullcontext("") if path is None else own_folder(path) as self.lease.folder:
                await self._run(link, nursery)

    async def _run(self, link: Link, nursery: trio.Nursery) -> None:
        self.link = link
        key = f"origin.{self.config.shard}"
        self.keeper = Keeper(self.lease, key, link, nursery, self.now_ns, self._on_lease)
        for subject in (*self.subjects.received, self.subjects.frames):
            link.subscribe(subject)
        for task in (self.receiver.run, self.pulse.run, self._flush_on):
            nursery.start_soon(task)
        await self.course.run()

    # What is sent.

    def _send(self, frame: bytes) -> None:
        """Send a frame of the origin, if this node is it at this moment."""
        if not self.lease.holds(self.now_ns()):
            self.fenced += 1
            return
        self.frames += 1
        self.publish(self.subjects.frames, frame)

    def publish(self, subject: str, payload: bytes, urgent: bool = False) -> bool:
        """Queue a message; return False if there is no room, or the NATS server accepts less."""
        assert self.link is not None, "whoever publishes runs within run()"
        try:
            return self.link.publish(subject, payload, urgent=urgent)
        except ClusterError as error:  # another server accepts less than the one before
            self._log.warning("message not sent", reason=str(error))
            return False

    def _max_payload(self) -> int:
        most = 0 if self.link is None else self.link.max_payload
        return min(most or MAX_PAYLOAD, MAX_PAYLOAD)

    def _opened(self) -> None:
        part = self.part
        if part is not None and part.tee is not None and part.tee.due_ns is not None:
            self._open_frame.set()

    async def _flush_on(self) -> None:
        """Seal what waits for more ticks when its time is up."""
        while True:
            await self._open_frame.wait()
            self._open_frame = trio.Event()
            while (
                tee := None if self.part is None else self.part.tee
            ) is not None and tee.due_ns is not None:
                await trio.sleep(max(0, tee.due_ns - self.now_ns()) / S)
                tee.flush(self.now_ns())

    # What lease and mirror ask for.

    def _on_lease(self, change: Become | Lost | StopFeeds) -> None:
        log.info("lease", change=type(change).__name__, **change._asdict())
        match change:
            case Become(term, epoch):
                self.course.wish(Lead(term, epoch))
            case Lost():
                self._lost.set()
                self.course.wish(Halt())
                self.pulse.tell_source()
            case StopFeeds():
                self.course.wish(Halt(self._hand_over))
        self.pulse.tell_nodes()

    def act(self, todo: Iterable[actions.Action]) -> None:
        """Do what the mirror has returned."""
        for action in todo:
            match action:
                case actions.Wrote():
                    self.wrote = True
                case actions.Ask(node, request):
                    self._ask(Topic.REQUEST, node, self.generation, request.encode())
                case actions.AskSync(node, number):
                    self._ask(Topic.SYNC, node, number, b"")
                case actions.Ready():
                    self.course.wake()
                case actions.Rebuild(term, epoch):
                    part = self.part
                    anew = part is not None and (part.term, part.epoch) == (term, epoch)
                    self.follow(term, epoch, anew)
                case actions.OtherEpoch(term, epoch):
                    self.keeper.do(self.lease.look(self.now_ns()))
                    self.keeper.do(self.lease.saw(term, epoch, self.now_ns()))
                case actions.HandedOver():
                    self.pulse.look_on()
                case _:
                    self._note(action)

    def _note(self, action: actions.Action) -> None:
        match action:
            case actions.Adopted(after, head, reason):
                log.warning("ticks lost, a state was adopted", after=after, head=head, reason=reason)
            case actions.Refused(reason):
                self.refused = reason
                log.error("this node cannot mirror the shard", reason=reason)
            case actions.BadFrame(reason):
                self._log.warning("frame dropped", reason=reason)
            case _:
                self.pulse.tell_source()  # stale, or live again

    def _ask(self, topic: Topic, node: str | None, number: int, payload: bytes) -> None:
        target = node or self.origin()
        if target and target != self.node:
            self.publish(self.subjects.to(topic, target, number), payload, urgent=True)

    def origin(self) -> str:
        """Return the node that is the origin of the present part, as far as is known; else ""."""
        part, holder = self.part, self.lease.holder
        if part is None:
            return ""
        if holder is not None and holder.term == part.term:
            return holder.node
        live = (node.status for node in self.nodes.live(self.now_ns()))
        return next((one.node for one in live if one.origin and one.term == part.term), "")

    def follow(self, term: int, epoch: str, anew: bool = False) -> None:
        """Mirror the origin with this term from now on."""
        self.course.wish(Follow(term, epoch, anew))

    def _start_mirror(self, part: Part, goes_on: bool) -> None:
        mirror, now_ns = part.mirror, self.now_ns()
        assert mirror is not None, "the course has made it"
        self.generation += 1
        self.refused = ""
        self.pulse.set_sources()
        self.keeper.do(self.lease.saw(part.term, part.epoch, now_ns))
        self.act(mirror.go_on(now_ns) if goes_on else mirror.start(now_ns))

    # The end.

    async def leave(self) -> None:
        """Hand the lease over, if this node holds it; at most for HANDOVER_S.

        If no other node can take it, the next process of this node can, without waiting for its end.
        """
        self.draining = True
        if self.link is None:
            return
        self.pulse.tell_nodes()
        if not self.holds:
            return
        successor = self.pulse.successor() or self.node
        with trio.move_on_after(HANDOVER_S):
            self._lost = trio.Event()
            self.keeper.do(self.lease.hand_over(successor))
            await self._lost.wait()
            # Until then this node answers requests for the last ticks.
            while (holder := self.lease.holder) is None or holder.node != successor:
                self.keeper.do(self.lease.look(self.now_ns()))
                await trio.sleep(POLL_S)

    async def _hand_over(self, head: int) -> None:
        part = self.part
        assert self.link is not None
        if part is None or part.tee is None:
            return
        part.tee.handover(head)
        with suppress(ClusterError):  # the successor asks for what it lacks
            await self.link.flush()
        self.keeper.do(self.lease.sealed(head, self.now_ns()))


def _suffix() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(SUFFIX_CHARACTERS))
