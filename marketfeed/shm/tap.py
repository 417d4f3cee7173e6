"""The tap: read the engine's rings from another process of the same machine, through shared memory.

    engine ──► rings in a memfd ──► read-only mapping ──► Tap: views, latest, read, follow
       └─────► one eventfd per reader, signalled once a batch ──► wait

The engine listens on a Unix socket (``[engine] tap``). It sends each program that connects one message, a
:class:`Hello`, with two file descriptors: the rings and a doorbell. After that the two processes share only
memory. The engine does not see reads, a reader that sleeps or dies costs it nothing, and the seals of the
memfd allow writes by the engine only. The connection stays open without traffic; its end means that the
engine has ended.

Everything here is synchronous: for scripts, notebooks and threads. An event loop can watch ``fileno()``
instead of calling ``wait``. Cost: perf/tap.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Iterable
from typing import Final, Self

import msgspec
import numpy as np

from marketfeed.core.records import CHANNELS, NO_QUOTES, NO_TRADES, QUOTES, TRADES, Records
from marketfeed.core.rings import Indices, Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.errors import EngineGoneError, TapError
from marketfeed.shm.follower import STEP_TICKS, Channel, Follower

VERSION: Final = 1
MAX_HELLO_BYTES: Final = 4096
CONNECT_S: Final = 5.0  # for the engine to answer

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
        return self.learned().names()

    def name(self, symbol: int) -> str:
        """Return the name of an id, such as a record's ``symbol``; raises IndexError if it is none."""
        return self.learned().name(symbol)

    def id(self, name: str) -> int | None:
        """Return the id of ``name``, None while no feed has sent it."""
        return self.learned().find(name)

    def ids(self, names: Names = "*") -> Indices:
        """Return the ids that names and prefix patterns (``BTC*``) match now, shape ``(k,)``, each once."""
        table = self.learned()
        found = dict.fromkeys(number for name in _listed(names) for number in table.matching(name).tolist())
        return np.fromiter(found, np.int64, len(found))

    def learned(self) -> SymbolTable:
        """Return all names and ids so far; not to be changed."""
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
        return f"<Tap {state} epoch={self.epoch} symbols={len(self.learned())} head={self.head()}>"


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
