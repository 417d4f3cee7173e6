"""The tap: the engine's live rings in another process of the same machine, without a copy and without asking.

    engine ──► rings in a memfd ──► read-only mapping ──► Tap: views, latest, read, follow
       └─────► an eventfd of its own, rung once a batch ──► wait

The engine listens on a Unix socket (``[engine] tap``). Who connects is sent one
message, a :class:`Hello`, with two descriptors: the rings and a doorbell. From
then on the two share memory alone: no read is seen by the engine, a reader
that sleeps or dies costs it nothing, and the rings' seals let nobody but the
engine write. The connection stays open, silent; its end is the engine's.

Everything here is synchronous: for scripts, notebooks and threads. An event
loop can watch ``fileno()`` instead of ``wait``. Cost: perf/tap.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple, Self

import msgspec
import numpy as np

from marketfeed.core.records import CHANNELS, NO_QUOTES, NO_TRADES, QUOTES, TRADES, Records, stamps_of
from marketfeed.core.rings import Indices, Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.errors import EngineGoneError, TapError

VERSION: Final = 1
MAX_HELLO_BYTES: Final = 4096
STEP_TICKS: Final = 1 << 17  # about what one step of a follower copies, 8 MB, however far behind it is
CONNECT_S: Final = 5.0  # for the engine to answer

Channel = Literal["quotes", "trades"]
Names = str | Iterable[str]


class Hello(msgspec.Struct, frozen=True):
    """The engine's only message, in JSON; with it come the descriptors of the rings and of the doorbell.

    With ``refused``, the reason in words, nothing comes.
    """

    version: int
    refused: str | None = None
    epoch: str = ""
    max_symbols: int = 0
    ring_depth: int = 0
    block_bytes: int = 0


class Gap(NamedTuple):
    """Ticks that the engine had overwritten before they were read."""

    channel: Channel
    symbol: str
    lost: int
    n: int  # of the next tick of this symbol that is not lost


class Step(NamedTuple):
    """What is new since the step before. The records are copies, each kind in order of ``g``."""

    quotes: Records  # (q,) QUOTE
    trades: Records  # (t,) TRADE
    gaps: list[Gap]
    head: int  # everything up to this ``g`` has been looked at

    def __bool__(self) -> bool:
        """Tell whether anything is in it."""
        return bool(len(self.quotes) or len(self.trades) or self.gaps)


class Tap:
    """The rings of a running engine, read-only. :func:`tap` makes them.

    Any thread may call anything. ``rings`` is the reader that the engine itself
    uses, for work in whole columns; ids of symbols index its arrays.
    """

    def __init__(self, rings: Rings, door: socket.socket, bell: int) -> None:
        """Take over the connection ``door`` and the descriptor ``bell``."""
        self.rings = rings
        self._door = door
        self._bell = os.fdopen(bell, "rb", 0)  # an object, so that a forgotten tap closes it
        self._symbols = SymbolTable(rings.max_symbols, rings.names)
        self._learning = threading.Lock()
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._poll.register(door, select.POLLIN)
        self._turn = threading.Condition()
        self._led = False  # whether a thread is at the doorbell on behalf of all that wait
        self._gone = self._closed = False
        self._waited_g = rings.head()

    # Names.

    @property
    def epoch(self) -> str:
        """The life of the rings: another engine, or the same one started again, has another."""
        epoch: str = self.rings.epoch
        return epoch

    def names(self) -> list[str]:
        """Return the names of all symbols so far, by id; new ones are seen without asking."""
        return self._learned().names()

    def name(self, symbol: int) -> str:
        """Return the name of an id, such as a record's ``symbol``; raises IndexError if it is none."""
        return self._learned().name(symbol)

    def id(self, name: str) -> int | None:
        """Return the id of ``name``, None while no feed has sent it."""
        return self._learned().find(name)

    def ids(self, names: Names = "*") -> Indices:
        """Return the ids that names and prefix patterns (``BTC*``) match now, shape ``(k,)``, each once."""
        table = self._learned()
        found = dict.fromkeys(number for name in _listed(names) for number in table.matching(name))
        return np.fromiter(found, np.int64, len(found))

    def _learned(self) -> SymbolTable:
        if len(self._symbols) != int(self.rings.names.count[0]):
            with self._learning:
                self._symbols.learn()
        return self._symbols

    # What is in the rings.

    @property
    def quotes(self) -> Records:
        """The slots of all quotes as they lie in memory, shape ``(max_symbols, ring_depth)``, QUOTE.

        Live and without a copy: tick ``n`` of a symbol is in slot ``(n - 1) % ring_depth``
        until the engine overwrites it, which may be while you look. :meth:`latest` and
        :meth:`read` copy, and check that what they copied is whole.
        """
        return self.rings.slots(QUOTES)

    @property
    def trades(self) -> Records:
        """The slots of all trades, as :attr:`quotes`; TRADE."""
        return self.rings.slots(TRADES)

    def head(self) -> int:
        """Return the highest ``g`` so far: one load from shared memory, cheap enough to spin on."""
        return self.rings.head()

    def latest(self, names: Names = "*", channel: Channel = "quotes") -> Records:
        """Return the newest tick of each symbol that ``names`` match and that has one, shape ``(m,)``."""
        head = self.rings.head()
        records, _ = self.rings.latest(_number(channel), self.ids(names), head)
        return records

    def read(self, name: str, channel: Channel = "quotes", last: int | None = None) -> Records:
        """Return the ticks of one symbol that the ring holds, oldest first; the ``last`` so many of them.

        Shape ``(m,)``; empty for a name that no feed has sent.
        """
        number, head, symbol = _number(channel), self.rings.head(), self.id(name)
        if symbol is None:
            return (NO_QUOTES, NO_TRADES)[number]
        symbols = np.array([symbol])
        upto = self.rings.position(number, symbols, head)
        after = self.rings.oldest(number, symbols) - 1
        if last is not None:
            after = np.maximum(after, upto - max(last, 0))
        return self.rings.read(number, symbols, after, upto, head).records

    def follow(
        self,
        names: Names = "*",
        channels: Iterable[Channel] = ("quotes", "trades"),
        *,
        held: bool = False,
        timeout_s: float | None = None,
        step_ticks: int = STEP_TICKS,
    ) -> Follower:
        """Return an iterator over all that is new for ``names``, patterns among them, from now on.

        With ``held``, what the rings still hold comes first. With ``timeout_s``, a step that
        is empty comes after so long without anything. One that is far behind gets about
        ``step_ticks`` a step.
        """
        numbers = frozenset(map(_number, channels))
        return Follower(self, _listed(names), numbers, held, timeout_s, max(step_ticks, 1))

    # Waiting.

    def wait(self, timeout_s: float | None = None, after: int | None = None) -> bool:
        """Wait until the head is past ``after``; return False if ``timeout_s`` passed first.

        ``after`` is by default the head at which the last ``wait`` returned, so that a loop
        misses nothing; threads each give their own. Raises EngineGoneError when the engine
        has ended and nothing more will come, and TapError once the tap is closed.
        """
        if after is None:
            after = self._waited_g
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._turn:
            if not (self._led or self._closed):
                self._bell.read(8)  # before the head: what rings from here on is not forgotten
            looked = False
            while (head := self.rings.head()) <= after:
                if self._closed:
                    raise TapError("the tap is closed")
                if self._gone:
                    raise EngineGoneError(
                        f"the engine of epoch {self.epoch} has ended; its rings stay readable"
                    )
                left_s = None if deadline_s is None else max(deadline_s - time.monotonic(), 0.0)
                if looked and left_s == 0.0:
                    return False
                looked = True
                if self._led:
                    self._turn.wait(left_s)
                else:
                    self._lead(left_s)
            self._waited_g = head
            return True

    def _lead(self, timeout_s: float | None) -> None:
        """Be at the doorbell, then call all threads that wait; the lock is given up meanwhile."""
        self._led = True
        self._turn.release()
        try:
            rung = self._poll.poll(None if timeout_s is None else timeout_s * 1000)
        finally:  # an interrupt from the keyboard is one way out
            self._turn.acquire()
            self._led = False
            self._turn.notify_all()
        for number, _ in () if self._closed else rung:
            if number == self._bell.fileno():
                self._bell.read(8)
            else:  # the engine says nothing there, but that it has ended
                self._gone = True

    def fileno(self) -> int:
        """Return the doorbell's descriptor, for event loops: readable when a batch came since ``wait``."""
        return self._bell.fileno()

    def close(self) -> None:
        """Give the connection and the doorbell back; arrays, and the rings, live as long as they are held."""
        with self._turn:
            self._closed = True
            # Shut down first: a thread that waits at it is woken by that, and by closing it is not.
            if self._door.fileno() >= 0:
                _shut_down(self._door)
            self._door.close()
            self._bell.close()
            self._turn.notify_all()

    def __enter__(self) -> Self:
        """Return the tap; it is closed at the end of the block."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Return what a notebook shows."""
        state = "closed" if self._closed else "engine gone" if self._gone else "live"
        return f"<Tap {state} epoch={self.epoch} symbols={len(self._learned())} head={self.head()}>"


class Follower(Iterator[Step]):
    """A position of its own in a tap's rings; :meth:`Tap.follow` makes them. For one thread."""

    def __init__(
        self,
        tap: Tap,
        names: tuple[str, ...],
        channels: frozenset[int],
        held: bool,
        timeout_s: float | None,
        step_ticks: int,
    ) -> None:
        self.timeout_s = timeout_s
        self._step_ticks = step_ticks
        self._tap, self._rings = tap, tap.rings
        self._plain = frozenset(name for name in names if not name.endswith("*"))
        self._prefixes = tuple(name[:-1] for name in names if name.endswith("*"))
        self._channels = sorted(channels)
        self._wanted = np.zeros(self._rings.max_symbols, bool)
        self._known = 0
        self.g = 0 if held else self._rings.head()
        self._seen = [np.zeros(self._rings.max_symbols, np.int64) for _ in CHANNELS]
        count = self._learn()
        symbols = np.arange(count)
        for channel in self._channels:
            if held:
                self._seen[channel][:count] = self._rings.oldest(channel, symbols) - 1
            else:
                self._seen[channel][:count] = self._rings.position(channel, symbols, self.g)

    def __next__(self) -> Step:
        """Return the next step that has something, or an empty one after ``timeout_s``."""
        deadline_s = None if self.timeout_s is None else time.monotonic() + self.timeout_s
        while not (step := self.take()):
            left_s = None if deadline_s is None else max(deadline_s - time.monotonic(), 0.0)
            if not self._tap.wait(left_s, after=self.g):
                break
        return step

    def take(self) -> Step:
        """Return what is new since the last step, which may be nothing; never waits."""
        # The head before the names: then every tick up to it has a name by now.
        head = self._rings.head()
        gaps: list[Gap] = []
        found: list[Records] = [NO_QUOTES, NO_TRADES]
        if head > self.g:
            count = self._learn()
            upto = [self._rings.published(channel, count) for channel in range(len(CHANNELS))]
            changed = [
                np.flatnonzero((ns != seen[:count]) & self._wanted[:count])
                for ns, seen in zip(upto, self._seen, strict=True)
            ]
            head = self._bound(changed, upto, head)
            for channel in self._channels:
                if len(changed[channel]):
                    found[channel] = self._read(channel, changed[channel], upto[channel], head, gaps)
            self.g = head
        return Step(found[QUOTES], found[TRADES], gaps, self.g)

    def _read(self, channel: int, symbols: Indices, upto: Indices, head: int, gaps: list[Gap]) -> Records:
        ticks = self._rings.read(channel, symbols, self._seen[channel][symbols], upto[symbols], head)
        self._seen[channel][symbols] = ticks.seen
        for i in np.flatnonzero(ticks.lost).tolist():
            next_n = int(ticks.seen[i] - ticks.counts[i]) + 1
            name = self._tap.name(int(symbols[i]))
            gaps.append(Gap(CHANNELS[channel], name, int(ticks.lost[i]), next_n))
        return ticks.records.take(stamps_of(ticks.records).argsort(kind="stable"))

    def _bound(self, changed: list[Indices], upto: list[Indices], head: int) -> int:
        """Return the head, or an earlier one to which it is not too much, with ``upto`` to match."""
        waiting, oldest = 0, head
        for channel in self._channels:
            symbols = changed[channel]
            first = np.maximum(self._seen[channel][symbols], self._rings.oldest(channel, symbols) - 1)
            waiting += int(np.maximum(upto[channel][symbols] - first, 0).sum())
        if waiting <= self._step_ticks:
            return head
        for channel in self._channels:
            if len(symbols := changed[channel]):
                slots = (self._rings.oldest(channel, symbols) - 1) & (self._rings.depth - 1)
                oldest = min(oldest, int(stamps_of(self._rings.slots(channel)[symbols, slots]).min()))
        start = max(self.g, oldest)
        head = start + max((head - start) * self._step_ticks // waiting, 1)
        for channel in self._channels:
            symbols = changed[channel]
            bound = self._rings.position(channel, symbols, head)
            upto[channel][symbols] = np.minimum(bound, upto[channel][symbols])
        return head

    def _learn(self) -> int:
        """Take in symbols that are new; return how many there are."""
        names = self._tap._learned().names(self._known)
        for number, name in enumerate(names, self._known):
            self._wanted[number] = name in self._plain or name.startswith(self._prefixes)
        self._known += len(names)
        return self._known


def tap(path: str | os.PathLike[str], *, timeout_s: float = CONNECT_S) -> Tap:
    """Connect to the engine whose configuration has ``path`` as its ``[engine] tap``.

    Raises TapError, in one line, if there is none, if it is another user's, or if it refuses.
    """
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fds: list[int] = []
    try:
        door.settimeout(timeout_s)
        door.connect(os.fspath(path))
        text, fds, _, _ = socket.recv_fds(door, MAX_HELLO_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        _check(text, fds)
        rings = Rings.attach(fds[0])
        rings.fd = -1  # the mapping has its own
        os.close(fds.pop(0))
        return Tap(rings, door, fds.pop())
    except (OSError, ValueError) as error:
        door.close()
        raise TapError(f"{os.fspath(path)}: {_why(error)}") from None
    finally:
        for fd in fds:
            os.close(fd)


def _check(text: bytes, fds: list[int]) -> None:
    try:
        hello = msgspec.json.decode(text, type=Hello)
    except msgspec.DecodeError:
        raise ValueError("whoever listens there is no engine") from None
    if hello.refused is not None:
        raise ValueError(f"the engine refuses: {hello.refused}")
    if hello.version != VERSION:
        raise ValueError(f"the engine speaks version {hello.version} of the tap, and this package {VERSION}")
    if len(fds) != 2:
        raise ValueError("the engine sent no rings")


def _why(error: OSError | ValueError) -> str:
    """Return in words why there is no tap."""
    match error:
        case FileNotFoundError():
            return "no engine has its tap there; the configuration says where: [engine] tap"
        case ConnectionRefusedError():
            return "the engine that had its tap there has ended"
        case PermissionError():
            return "another user's; a tap is open to the user that runs the engine"
        case TimeoutError():
            return "the engine does not answer"
        case OSError(errno=errno.EPROTOTYPE):
            return "a socket, but not a tap's"
        case OSError():
            return error.strerror or str(error)
    return str(error)


def _listed(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _number(channel: Channel) -> int:
    if channel not in CHANNELS:
        raise ValueError(f"a channel is one of {', '.join(CHANNELS)}, not {channel!r}")
    return CHANNELS.index(channel)


def _shut_down(door: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the engine did so first
        door.shutdown(socket.SHUT_RDWR)
