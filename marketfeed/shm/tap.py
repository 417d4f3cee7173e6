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

from marketfeed.core.reader import STEP_TICKS, Channel, RingReader
from marketfeed.core.records import CHANNELS, NO_QUOTES, NO_TRADES, QUOTES, TRADES, Records
from marketfeed.core.rings import Indices, Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.errors import EngineGoneError, TapError
from marketfeed.shm.follower import Follower

VERSION: Final = 1
MAX_HELLO_BYTES: Final = 4096
CONNECT_S: Final = 5.0  # for the engine to respond

Names = str | Iterable[str]


class Hello(msgspec.Struct, frozen=True):
    """The engine's only message, in JSON, with the descriptors of the rings and of the doorbell.

    If ``refused``, the reason in words, is set, there are no descriptors.
    """

    version: int
    refused: str | None = None
    epoch: str = ""
    max_symbols: int = 0
    ring_depth: int = 0
    block_bytes: int = 0


class Tap:
    """The rings of a running engine, read-only. :func:`tap` creates it.

    All methods are thread-safe. ``rings`` is the reader that the engine itself
    uses, for work on whole columns; symbol ids index its arrays.
    """

    def __init__(self, rings: Rings, door: socket.socket, bell: int) -> None:
        """Take over the connection ``door`` and the descriptor ``bell``."""
        self.rings = rings
        self._door = door
        self._bell = os.fdopen(bell, "rb", 0)  # an object: closed when it is collected
        self._symbols = SymbolTable(rings.max_symbols, rings.names)
        self._learning = threading.Lock()
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._poll.register(door, select.POLLIN)
        self._turn = threading.Condition()
        self._led = False  # whether one thread polls the doorbell on behalf of all waiting threads
        self._gone = self._closed = False
        self._waited_g = rings.head()

    # Names.

    @property
    def epoch(self) -> str:
        """Identifies this lifetime of the rings; each start of an engine has another epoch."""
        epoch: str = self.rings.epoch
        return epoch

    def names(self) -> list[str]:
        """Return the names of all symbols so far, by id."""
        return self.learned().names()

    def name(self, symbol: int) -> str:
        """Return the name of a symbol id, such as a record's ``symbol``; raises IndexError."""
        return self.learned().name(symbol)

    def id(self, name: str) -> int | None:
        """Return the id of ``name``; None until a feed has sent it."""
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
        """View of the slots of all quotes, shape ``(max_symbols, ring_depth)``, QUOTE.

        Not a copy: tick ``n`` of a symbol is in slot ``(n - 1) % ring_depth`` until the engine
        overwrites it, possibly during a read. :meth:`latest` and :meth:`read` copy, and
        check that the copies are consistent.
        """
        return self.rings.slots(QUOTES)

    @property
    def trades(self) -> Records:
        """View of the slots of all trades, TRADE; see :attr:`quotes`."""
        return self.rings.slots(TRADES)

    def head(self) -> int:
        """Return the highest ``g`` so far: one load from shared memory, cheap enough to spin on."""
        return self.rings.head()

    def latest(self, names: Names = "*", channel: Channel = "quotes") -> Records:
        """Return the newest tick of each symbol that matches ``names`` and has one, shape ``(m,)``."""
        head = self.rings.head()
        records, _ = self.rings.latest(_number(channel), self.ids(names), head)
        return records

    def read(self, name: str, channel: Channel = "quotes", last: int | None = None) -> Records:
        """Return the ticks of one symbol that the ring holds, oldest first; at most the ``last`` ones.

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
        """Return an iterator over all new ticks of ``names``, which may contain patterns.

        With ``held``, it begins with the ticks that the rings still hold. With ``timeout_s``, it
        yields an empty step after that time without ticks. A step has about ``step_ticks`` ticks at
        most.
        """
        numbers = frozenset(map(_number, channels))
        reader = RingReader(self.rings, self.learned, _listed(names), numbers, held, max(step_ticks, 1))
        return Follower(self, reader, timeout_s)

    # Waiting.

    def wait(self, timeout_s: float | None = None, after: int | None = None) -> bool:
        """Wait until the head is above ``after``; return False if ``timeout_s`` passed first.

        By default ``after`` is the head at which the last ``wait`` returned, so that a loop
        misses nothing; if several threads wait, each has to pass its own. Raises EngineGoneError
        when the engine has ended and its ticks were read, and TapError once the tap is closed.
        """
        if after is None:
            after = self._waited_g
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._turn:
            if not (self._led or self._closed):
                self._bell.read(8)  # before loading the head: later signals are not lost
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
        """Poll the doorbell without the lock, then wake all waiting threads."""
        self._led = True
        self._turn.release()
        try:
            rung = self._poll.poll(None if timeout_s is None else timeout_s * 1000)
        finally:  # also after KeyboardInterrupt
            self._turn.acquire()
            self._led = False
            self._turn.notify_all()
        for number, _ in () if self._closed else rung:
            if number == self._bell.fileno():
                self._bell.read(8)
            else:  # the connection: it is readable only when the engine has ended
                self._gone = True

    def fileno(self) -> int:
        """Return the doorbell's descriptor, for event loops: readable after a batch since ``wait``."""
        return self._bell.fileno()

    def close(self) -> None:
        """Close the connection and the doorbell; the rings and arrays stay valid while referenced."""
        with self._turn:
            self._closed = True
            # Shut down first: that wakes a thread in poll(), closing does not.
            if self._door.fileno() >= 0:
                _shut_down(self._door)
            self._door.close()
            self._bell.close()
            self._turn.notify_all()

    def __enter__(self) -> Self:
        """Return the tap; the end of the block closes it."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Return a summary, for notebooks."""
        state = "closed" if self._closed else "engine gone" if self._gone else "live"
        return f"<Tap {state} epoch={self.epoch} symbols={len(self.learned())} head={self.head()}>"


def tap(path: str | os.PathLike[str], *, timeout_s: float = CONNECT_S) -> Tap:
    """Connect to the engine whose ``[engine] tap`` is ``path``.

    Raises TapError, in one line, if no engine listens there, if it is another user's, or if it refuses.
    """
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fds: list[int] = []
    try:
        door.settimeout(timeout_s)
        door.connect(os.fspath(path))
        text, fds, _, _ = socket.recv_fds(door, MAX_HELLO_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        _check(text, fds)
        rings = Rings.attach(fds[0])
        rings.fd = -1  # the mapping does not need it
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
    """Return in words why the tap could not be opened."""
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
