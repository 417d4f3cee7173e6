"""What a process of the virtual world runs: rings, and an origin or a mirror of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from marketfeed.cluster import actions
from marketfeed.cluster.follower import Limits
from marketfeed.cluster.frames import header_of
from marketfeed.cluster.mirror import Mirror
from marketfeed.cluster.repairs import Answerer
from marketfeed.cluster.state import state_of, state_parts
from marketfeed.cluster.tee import Tee, TeeWriter
from marketfeed.core.records import BUY, DTYPES, TRADES, Batch
from marketfeed.core.writer import RingWriter
from tests.cluster.virtual_rings import SIZES, SYMBOLS, CheckedWriter, Ledger, Life
from tests.cluster.virtual_world import MS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.cluster.virtual_machine import Machine

MAX_PAYLOAD: Final = 64 * 9  # eight ticks
BEAT_NS: Final = 250 * MS
STATUS_NS: Final = 1000 * MS
JOIN_NS: Final = 3000 * MS  # after which a process without a state may claim the lease


class VirtualEngine:
    """Origin or mirror, as the lease says."""

    def __init__(
        self,
        machine: Machine,
        ledger: Ledger,
        *,
        restores: bool,
        mirror: type[Mirror] = Mirror,
        writer: type[CheckedWriter] = CheckedWriter,
    ) -> None:
        self.machine, self.ledger = machine, ledger
        self._mirror_type, self._writer_type = mirror, writer
        self.life: Life | None = None
        self._restores = restores
        self._started_ns = machine.now_ns()
        self._beat_ns = self._status_ns = 0
        self._feeding = False
        self._source = ""  # of the newest frame that the mirror took
        self.quiet = False

    @property
    def term(self) -> int:
        """The highest term that this process has followed."""
        return self.life.term if self.life else 0

    def tick(self, now_ns: int) -> None:
        """Publish, follow, and tell the others."""
        lease, life = self.machine.lease, self.life
        holder = lease.holder
        if lease.holds(now_ns):
            self._publish(now_ns)
        elif holder is not None and holder.epoch and holder.node != self.machine.name:
            if life is None or (life.mirror is None and holder.term > life.term):
                self._follow(holder.term, holder.epoch, now_ns)
            elif life.mirror is not None and holder.term >= life.term:
                self._do(life.mirror.lease(holder.term, holder.epoch), now_ns)
        if self.life is not None and self.life.mirror is not None:
            self._do(self.life.mirror.tick(now_ns), now_ns)
        life = self.life
        joined = life is not None and life.ready
        lease.eligible = joined or now_ns - self._started_ns > JOIN_NS
        lease.position = (life.epoch, life.rings.head()) if life is not None and joined else ("", 0)
        if life is not None and now_ns >= self._status_ns:
            self._status_ns = now_ns + STATUS_NS
            self.machine.publish(("status", life.term, life.epoch))

    def receive(self, source: str, message: object, now_ns: int) -> None:
        """Take a message of another machine."""
        match message:
            case ("frame", bytes(data)):
                self._frame(source, data, now_ns)
            case ("status", int(term), str(epoch)):
                self.machine.carry_out(self.machine.lease.saw(term, epoch, now_ns))
            case ("ask", bytes(request)):
                self._answer(source, request)
            case ("sync", int(number)):
                self._answer_state(source, number)
            case ("parts", str(epoch), list(parts)):
                if self.life is not None and self.life.epoch == epoch and self.life.mirror is not None:
                    for part in parts:
                        self._do(self.life.mirror.answer(self._role_of(source), part, now_ns), now_ns)
            case ("state", str(epoch), int(number), list(parts)):
                for part in parts:
                    if self.life is not None and self.life.epoch == epoch and self.life.mirror is not None:
                        self._do(self.life.mirror.state_part(number, part, now_ns), now_ns)

    def become(self, term: int, epoch: str, now_ns: int) -> None:
        """Begin to publish: in the rings of the epoch, or in new ones with the newest ticks."""
        self._check_term(term, epoch)
        before = self.life
        if before is None or before.epoch != epoch:
            self.life = Life(epoch, term)
        elif before.mirror is not None:
            self.ledger.continued += 1
        life = self.life
        assert life is not None
        life.term, life.mirror, life.ready = term, None, True
        life.tee = Tee(
            life.symbols, life.log, self._sink, term=term, epoch=epoch, wall_ns=lambda: 0,
            next_g=life.rings.head() + 1, max_payload=MAX_PAYLOAD, linger_ns=0,
        )  # fmt: skip
        life.writer = TeeWriter(RingWriter(life.rings), life.tee, self.machine.now_ns)
        self._feeding = not self.quiet
        if before is not None and before is not life:
            self._seed(before, life)

    def lose(self, now_ns: int) -> None:
        """Publish no more; the rings stay until another origin is seen."""
        self._feeding = False
        if self.life is not None:
            self.life.tee = self.life.writer = None

    def stop_feeds(self, successor: str, now_ns: int) -> None:
        """Stop the feeds, announce the last tick, and let the lease go."""
        self._feeding = False
        life = self.life
        assert life is not None
        assert life.tee is not None
        life.tee.handover(life.rings.head())
        self.machine.carry_out(self.machine.lease.sealed(life.rings.head(), now_ns))

    def late(self) -> None:
        """Publish once more without a look at the lease, as a process that was stopped after it looked."""
        if self._feeding and self.life is not None and self.life.tee is not None:
            self._write(self._batch())

    def _publish(self, now_ns: int) -> None:
        life = self.life
        assert life is not None
        assert life.tee is not None
        if self._feeding and not self.quiet and self.machine.world.rng.random() < 0.5:
            self._write(self._batch())
        life.tee.flush(now_ns)
        if now_ns >= self._beat_ns:
            self._beat_ns = now_ns + BEAT_NS
            life.tee.beat(now_ns)

    def _batch(self) -> Batch:
        """Return a few random ticks, of a new symbol now and then."""
        assert self.life is not None
        rng, symbols = self.machine.world.rng, self.life.symbols
        if len(symbols) < SYMBOLS and (not len(symbols) or rng.random() < 0.1):
            symbols.intern(f"S{len(symbols)}")
        ticks = [(rng.randrange(2), rng.randrange(len(symbols))) for _ in range(rng.randint(1, 12))]
        parts = []
        for channel, dtype in enumerate(DTYPES):
            ids = [symbol for of, symbol in ticks if of == channel]
            records = np.zeros(len(ids), dtype)
            records["symbol"] = ids
            records["ts_recv"] = rng.getrandbits(62)
            parts.append(records)
        parts[TRADES]["side"] = BUY
        quotes, trades = parts
        return Batch(quotes, trades, np.array([channel for channel, _ in ticks], np.uint8))

    def _write(self, batch: Batch) -> None:
        assert self.life is not None
        assert self.life.writer is not None
        self.life.writer.write(batch)
        self.ledger.add(self.life.epoch, batch)

    def _seed(self, before: Life, life: Life) -> None:
        """Begin the new rings with the newest tick of each symbol."""
        for name in before.symbols.names():
            life.symbols.intern(name)
        head, ids = before.rings.head(), np.arange(len(before.symbols))
        quotes, trades = (before.rings.latest(channel, ids, head)[0] for channel in range(2))
        if len(quotes) + len(trades):
            self._write(Batch(quotes, trades))

    def _sink(self, frame: bytes) -> None:
        self.machine.publish(("frame", frame))

    def _frame(self, source: str, data: bytes, now_ns: int) -> None:
        header = header_of(data)
        life = self.life
        if life is not None and life.mirror is not None:
            if (header.term, header.epoch) == (life.term, life.epoch):
                self._source = source
            fenced = life.mirror.counts.fenced
            todo = life.mirror.feed(data, now_ns)
            taken = life.mirror.counts.fenced == fenced and not life.mirror.ended
            assert header.term >= life.term or not taken, f"{self.machine.name}: a frame of a lower term"
            self._do(todo, now_ns)
            return
        self.machine.carry_out(self.machine.lease.saw(header.term, header.epoch, now_ns))
        holds = self.machine.lease.holds(now_ns)
        if not holds and (life is None or header.term > life.term):
            self._follow(header.term, header.epoch, now_ns)

    def _follow(self, term: int, epoch: str, now_ns: int) -> None:
        """Mirror another origin: in the rings of its epoch, or in new ones."""
        self._check_term(term, epoch)
        if self.life is None or self.life.epoch != epoch:
            self.life = Life(epoch, term)
        life = self.life
        life.term, life.tee, life.writer = term, None, None
        life.mirror = self._mirror_type(
            self._writer_type(life.rings, self.ledger), life.symbols, SIZES, life.log,
            term=term, epoch=epoch, now_ns=now_ns, limits=Limits(),
        )  # fmt: skip
        others = [machine.name for machine in self.machine.others]
        self.machine.world.rng.shuffle(others)
        life.mirror.sources = (None, *others)
        self.machine.world.note(f"{self.machine.name}: follows {term} {epoch}")
        self.machine.carry_out(self.machine.lease.saw(term, epoch, now_ns))
        self._do(life.mirror.start(now_ns), now_ns)

    def _check_term(self, term: int, epoch: str) -> None:
        if self.life is None or self._restores:
            return
        assert term >= self.life.term, f"{self.machine.name} goes back from term {self.life.term} to {term}"
        same = term != self.life.term or epoch == self.life.epoch
        assert same, f"{self.machine.name} follows two epochs of term {term}: {self.life.epoch}, {epoch}"

    def _do(self, todo: Iterable[actions.Action], now_ns: int) -> None:
        life = self.life
        assert life is not None
        for action in todo:
            match action:
                case actions.Ask(node, request):
                    self._send(node, ("ask", request.encode()))
                case actions.AskSync(node, number):
                    self._send(node, ("sync", number))
                case actions.Ready():
                    life.ready = True
                case actions.Rebuild(term, epoch):
                    self._follow(term, epoch, now_ns)
                case actions.OtherEpoch(term, epoch):
                    self.machine.carry_out(self.machine.lease.look(now_ns))
                    self.machine.carry_out(self.machine.lease.saw(term, epoch, now_ns))
                case actions.HandedOver():
                    self.machine.carry_out(self.machine.lease.look(now_ns))
                case actions.Adopted():
                    self.ledger.adopted += 1
                    self.machine.world.note(f"{self.machine.name}: {action}")
                case actions.BadFrame() | actions.Refused():
                    self.machine.world.note(f"{self.machine.name}: {action}")
                case _:
                    pass  # a doorbell, stale and live

    def _send(self, node: str | None, message: object) -> None:
        """Send a request to a node, None: to the origin."""
        holder = self.machine.lease.holder
        name = node or self._source or (holder.node if holder else "")
        for other in self.machine.others:
            if other.name == name:
                self.machine.send(other, message)

    def _role_of(self, source: str) -> str | None:
        return None if source == self._source else source

    def _answer(self, source: str, request: bytes) -> None:
        life = self.life
        if life is None:
            return
        answerer = Answerer(life.log, life.symbols, term=life.term, epoch=life.epoch, max_payload=MAX_PAYLOAD)
        parts = list(answerer.answer(request))
        if parts:
            self._reply(source, ("parts", life.epoch, parts))

    def _answer_state(self, source: str, number: int) -> None:
        life = self.life
        if life is None or not life.ready:
            return
        state = state_of(life.rings, life.symbols)
        if state is not None:
            parts = state_parts(state, life.log, term=life.term, epoch=life.epoch, max_payload=MAX_PAYLOAD)
            self._reply(source, ("state", life.epoch, number, list(parts)))

    def _reply(self, source: str, message: object) -> None:
        for other in self.machine.others:
            if other.name == source:
                self.machine.send(other, message)
