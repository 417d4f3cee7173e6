"""The value of a lease in the key-value bucket, its term, and the epoch that belongs to a term.

The **term** of a holder is fixed by the write that made it the holder: the revision of that write, or
``floor`` if that is higher. Each renewal raises the revision of the key, so renewals carry the term in the
value. Revisions of a bucket are unique and ascend, and so do terms. ``floor`` keeps them ascending after
the bucket has been restored from an older state: a claimant puts it above every term that it has seen.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from marketfeed.core.cursor import EPOCH
from marketfeed.errors import MarketfeedError

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
SUFFIX_CHARACTERS: Final = 6
EPOCH_BYTES: Final = 16  # of a frame's header
MAX_TERM: Final = 36 ** (EPOCH_BYTES - SUFFIX_CHARACTERS) - 1
VALUE_BYTES: Final = 1024

_Term = Annotated[int, msgspec.Meta(ge=0, le=MAX_TERM)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class LeaseValueError(MarketfeedError):
    """The value of a lease was not written by a node of this release; the text says what is wrong."""


class LeaseValue(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the holder of a lease writes, as JSON.

    ``term`` and ``epoch`` are empty in the write that claims the lease: its revision is not known before.
    ``epoch`` is set there if the claimant continues the epoch of its predecessor.
    """

    node: _Name
    incarnation: _Name  # of the process; a restarted one has another
    folder: Annotated[str, msgspec.Meta(max_length=64)] = ""  # of the node, by a random id kept in it
    epoch: Annotated[str, msgspec.Meta(max_length=EPOCH_BYTES)] = ""
    term: _Term = 0
    floor: _Term = 0  # the term is at least this
    next: Annotated[str, msgspec.Meta(max_length=64)] = ""  # handed over to this node
    head: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0  # the last g of the epoch, with ``next``

    def encode(self) -> bytes:
        """Return the value as JSON."""
        return msgspec.json.encode(self)

    def term_at(self, revision: int) -> int:
        """Return the term of the holder that wrote the value as revision ``revision``."""
        return self.term or max(revision, self.floor)


_DECODER: Final = msgspec.json.Decoder(LeaseValue)


def parse_value(data: bytes) -> LeaseValue:
    """Parse the value of a lease; raises LeaseValueError."""
    if len(data) > VALUE_BYTES:
        raise LeaseValueError(f"{len(data)} bytes, more than {VALUE_BYTES}")
    try:
        value = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LeaseValueError(f"{error}: {data[:80]!r}") from error
    if value.epoch and not EPOCH.fullmatch(value.epoch):
        raise LeaseValueError(f"not an epoch: {value.epoch!r}")
    return value


def epoch_of(term: int, suffix: str) -> str:
    """Return the epoch of ``term``: the term in base 36, and ``suffix``, 6 random letters or digits.

    At most 16 bytes. The suffix keeps epochs apart if one term is given twice, which takes a bucket that was
    restored from an older state. Raises ValueError for other terms and suffixes.
    """
    if not 0 < term <= MAX_TERM:
        raise ValueError(f"a term must be 1 to {MAX_TERM}, not {term}")
    digits = ""
    while term:
        term, digit = divmod(term, 36)
        digits = _DIGITS[digit] + digits
    epoch = digits + suffix
    if len(suffix) != SUFFIX_CHARACTERS or not EPOCH.fullmatch(epoch):
        raise ValueError(f"a suffix must be {SUFFIX_CHARACTERS} letters or digits, not {suffix!r}")
    return epoch
