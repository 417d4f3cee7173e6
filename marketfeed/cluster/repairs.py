"""Requests of a mirror for missing ticks or names, and the answers of a node that has them.

    request   "<epoch> <first> <last>"    the ticks with these g
              "<epoch> names <from>"      the names from this id on
    answer    frames of the log or of names, marked as repair, then one line of text:
              "end <first> <last>"        all frames are sent: of the ticks asked for, those up to last
              "gone <oldest>"             the first tick is not in the log any more; it begins at oldest

ASCII, fields separated by one space. A frame begins with its version, so no frame begins like a text.
``last`` is below ``first`` if the node has not got the first tick yet. An answer has at most 16 MB of frames;
the mirror asks again for the rest.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from marketfeed.cluster.frames import MAX_EPOCH_BYTES, MAX_G, as_repair, symbols_frames
from marketfeed.core.symbols import MAX_SYMBOLS
from marketfeed.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from marketfeed.cluster.frame_log import FrameLog
    from marketfeed.core.symbols import SymbolTable

_NUMBER: Final = rb"(0|[1-9][0-9]{0,18})"
_REQUEST: Final = re.compile(rb"([0-9a-zA-Z]{1,%d}) (?:names|%s) %s" % (MAX_EPOCH_BYTES, _NUMBER, _NUMBER))
_END: Final = re.compile(rb"end %s %s" % (_NUMBER, _NUMBER))
_GONE: Final = re.compile(rb"gone %s" % _NUMBER)


class TicksRequest(NamedTuple):
    """A request for the ticks ``first_g`` to ``last_g`` of an epoch."""

    epoch: str
    first_g: int
    last_g: int

    def encode(self) -> bytes:
        """Return the request as text."""
        return f"{self.epoch} {self.first_g} {self.last_g}".encode("ascii")


class NamesRequest(NamedTuple):
    """A request for the names of an epoch from id ``start`` on."""

    epoch: str
    start: int

    def encode(self) -> bytes:
        """Return the request as text."""
        return f"{self.epoch} names {self.start}".encode("ascii")


class End(NamedTuple):
    """The last part of an answer: of the ticks from ``first_g`` on, those up to ``last_g`` have been sent."""

    first_g: int
    last_g: int


class Gone(NamedTuple):
    """An answer: the log begins at ``oldest_g``, after the first tick asked for; 0: it is empty."""

    oldest_g: int


def parse_request(data: bytes) -> TicksRequest | NamesRequest:
    """Parse a request; raises FrameError."""
    match = _REQUEST.fullmatch(data)
    if match is None:
        raise FrameError(f"not a request for ticks or names: {bytes(data[:60])!r}")
    epoch, last = match[1].decode("ascii"), int(match[3])
    if match[2] is None:
        if last > MAX_SYMBOLS:
            raise FrameError(f"request for names from id {last} on; at most {MAX_SYMBOLS} exist")
        return NamesRequest(epoch, last)
    first = int(match[2])
    if not 0 < first <= last <= MAX_G:
        raise FrameError(f"request for an invalid range: {first} to {last}")
    return TicksRequest(epoch, first, last)


def parse_outcome(data: bytes) -> End | Gone:
    """Parse the last part of an answer; raises FrameError."""
    if (match := _END.fullmatch(data)) is not None:
        return End(int(match[1]), int(match[2]))
    if (match := _GONE.fullmatch(data)) is not None:
        return Gone(int(match[1]))
    raise FrameError(f"not the end of an answer: {bytes(data[:60])!r}")


class Answerer:
    """Answers requests from the log and the names of this node, the origin or a mirror of its epoch."""

    def __init__(
        self, log: FrameLog, symbols: SymbolTable, *, term: int, epoch: str, max_payload: int
    ) -> None:
        self.term, self.epoch = term, epoch
        self._log, self._symbols, self._max_payload = log, symbols, max_payload

    def answer(self, data: bytes) -> Iterator[bytes]:
        """Return the parts of the answer to a request, one message each; none for another epoch.

        Raises FrameError for an invalid request. Parts are copied as they are taken.
        """
        request = parse_request(data)
        if request.epoch != self.epoch:
            return iter(())
        if isinstance(request, NamesRequest):
            return self._names(request.start)
        return self._ticks(request)

    def _names(self, start: int) -> Iterator[bytes]:
        for frame in symbols_frames(
            self._symbols.names(start), start, self.term, self.epoch, self._max_payload
        ):
            yield as_repair(frame, self.term)

    def _ticks(self, request: TicksRequest) -> Iterator[bytes]:
        found = self._log.between(request.first_g, request.last_g)
        if found is None:
            return iter((f"gone {self._log.oldest_g}".encode("ascii"),))
        end = f"end {request.first_g} {found.last_g}".encode("ascii")
        return chain((as_repair(frame, self.term) for frame in found.frames), (end,))
