"""What a node does at regular times: lease, mirror, beats, the state of its source, and its own status."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Literal

import trio

from marketfeed import __version__
from marketfeed.cluster.placing import able_urls
from marketfeed.cluster.rendezvous import rendezvous
from marketfeed.cluster.status import MAX_FEEDS, FeedStatus, NodeState, Role, Status
from marketfeed.core.units import MS, S

if TYPE_CHECKING:
    from marketfeed.cluster.nodes import Node
    from marketfeed.clustering.member import Member

TICK_S: Final = 0.05
STATUS_NS: Final = S
LOOK_NS: Final = 2 * S
# After which a node without a state may claim the lease, if no other one has a state: once their statuses
# would have been heard if nobody has held the lease, else after attempts to get the state.
FIRST_NS: Final = S + S // 2
JOIN_NS: Final = 3 * S


class Pulse:
    """The periodic work of ``member``."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._beat_ns = self._status_ns = 0
        self._look_until_ns = 0
        self._seq = 0  # of statuses
        self._started_ns = member.now_ns()
        self._told = ""  # state of the source, as sessions know it
        self._urls: tuple[str, ...] = ()

    @property
    def stale(self) -> bool:
        """Return whether the source of ticks is not heard."""
        return self._told == "stale"

    async def run(self) -> None:
        """Tick until cancelled."""
        period_s = min(TICK_S, self._member.config.beat_ms / 1000)
        while True:
            self._tick()
            await trio.sleep(period_s)

    def _tick(self) -> None:
        member, now_ns = self._member, self._member.now_ns()
        self.place()
        member.keeper.do(member.lease.tick(now_ns))
        if now_ns < self._look_until_ns and not member.holds:
            member.keeper.do(member.lease.look(now_ns))
        self._look_at_holder(now_ns)
        part = member.part
        if part is not None and part.mirror is not None:
            member.act(part.mirror.tick(now_ns))
        if now_ns >= self._beat_ns and part is not None and part.tee is not None and member.holds:
            self._beat_ns = now_ns + member.config.beat_ms * MS
            part.tee.beat(now_ns)
        member.receiver.answer_waiting()
        self.tell_source()
        if now_ns >= self._status_ns:
            self._status_ns = now_ns + STATUS_NS
            self.tell_nodes()

    def look_on(self) -> None:
        """Read the lease at each tick for a while: the origin has announced that it hands it over."""
        self.place()
        self._look_until_ns = self._member.now_ns() + LOOK_NS

    def place(self) -> None:
        """Tell the lease what the rings hold, and whether this node may claim it."""
        member, part = self._member, self._member.part
        ready = part is not None and part.served and part.ready
        lease = member.lease
        wait_ns = FIRST_NS if lease.holder is None else JOIN_NS
        first = member.now_ns() - self._started_ns > wait_ns and not any(map(_has_state, self._others()))
        lease.position = (part.epoch, part.head) if ready and part is not None else ("", 0)
        lease.eligible = not member.draining and not member.refused and (ready or first)

    def _look_at_holder(self, now_ns: int) -> None:
        """Follow whoever holds the lease."""
        member, holder = self._member, self._member.lease.holder
        if holder is None or not holder.epoch or member.lease.holds(now_ns):
            return
        if (holder.node, holder.incarnation) == (member.node, member.incarnation):
            return
        part = member.part
        if part is not None and part.mirror is not None:
            if holder.term >= part.term:
                member.act(part.mirror.lease(holder.term, holder.epoch))
        elif part is None or holder.term > part.term:
            member.follow(holder.term, holder.epoch)

    def _others(self) -> list[Node]:
        """Return the live nodes of the shard but this one."""
        member = self._member
        live = member.nodes.live(member.now_ns())
        return [node for node in live if node.status.shard == member.config.shard]

    def set_sources(self) -> None:
        """Have the mirror ask nodes of the same site first, the origin before others with its epoch."""
        part = self._member.part
        if part is not None and part.mirror is not None:
            have = [node.status for node in self._others() if _has_state(node)]
            origin, site = self._member.origin(), self._member.config.site
            same = {one.node: one.site == site for one in have if one.epoch == part.epoch}
            same.setdefault(origin, True)
            here = [name for name, near in same.items() if near and name != origin]
            away = [name for name, near in same.items() if not near and name != origin]
            part.mirror.sources = (None, *here, *away) if same[origin] else (*here, None, *away)

    def successor(self) -> str:
        """Return the node to hand the lease over to: of those that have the epoch, the first in line."""
        member, part = self._member, self._member.part
        able = [
            node.status
            for node in self._others()
            if part is not None
            and node.status.epoch == part.epoch
            and node.status.role is not Role.GATEWAY
            and node.status.state is NodeState.LIVE
        ]
        key = f"origin.{member.config.shard}"
        return next(iter(rendezvous(key, [status.node for status in able])), "")

    # What others are told.

    def tell_source(self) -> None:
        """Tell the sessions whether the source of ticks is heard, if that has changed."""
        if not self._member.course.joined.is_set():
            return
        state: Literal["stale", "live"] = "stale" if self._is_stale() else "live"
        if state != (self._told or "live"):
            self._member.engine.source_state(self._member.config.shard, state)
        self._told = state

    def _is_stale(self) -> bool:
        member, part = self._member, self._member.part
        if part is None or member.refused:
            return True
        if part.mirror is None:
            return not member.holds
        late = member.now_ns() - part.since_ns > member.config.stale_s * S
        # Until the part is served, sessions are on earlier rings: if these are stale, they stay so.
        return part.mirror.stale or (not part.served and (late or self.stale))

    def tell_nodes(self) -> None:
        """Publish the status of this node, and take note of the others'."""
        member, now_ns = self._member, self._member.now_ns()
        self._seq += 1
        own = self.status()
        member.publish(member.subjects.status, own.encode())
        member.lease.rank = member.nodes.rank(f"origin.{member.config.shard}", now_ns)
        self.set_sources()
        urls = tuple(able_urls(own, member.nodes, now_ns))
        if urls != self._urls:
            self._urls = urls
            member.engine.lives.elsewhere(urls)

    def status(self) -> Status:
        """Return the status of this node."""
        member, config, part = self._member, self._member.config, self._member.part
        engine = member.engine
        feeds = engine.lives.roster.supervisors[:MAX_FEEDS]
        return Status(
            cluster=config.name,
            node=member.node,
            incarnation=member.incarnation,
            seq=self._seq,
            role=Role(config.role),
            state=self.state(),
            shard=config.shard,
            origin=member.holds,
            site=config.site,
            url=config.url,
            release=__version__,
            epoch="" if part is None else part.epoch,
            term=0 if part is None else part.term,
            head=0 if part is None else part.head,
            sessions=len(engine.lives),
            capacity=config.capacity or engine.admission.limits.sessions,
            clock=time.time_ns(),
            feeds=[FeedStatus(one.intake.name[:64], one.state().value) for one in feeds],
        )

    def state(self) -> NodeState:
        """Return whether this node can serve sessions."""
        if self._member.draining:
            return NodeState.DRAINING
        if not self._member.course.joined.is_set():
            return NodeState.JOINING
        return NodeState.STALE if self.stale else NodeState.LIVE


def _has_state(node: Node) -> bool:
    return node.status.state in (NodeState.LIVE, NodeState.STALE)
