"""Text files as whole lines of UTF-8."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Final, NamedTuple

from marketfeed.feeds.replay.recording import SHOWN_CHARS, DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINE_BYTES: Final = 1 << 20
# Byte order marks; a mark precedes its prefixes.
_MARKS: Final = (
    (codecs.BOM_UTF8, ""),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LONGEST_MARK: Final = 4


class TextLines(NamedTuple):
    """Part of a text. ``too_long``: the start of one line longer than MAX_LINE_BYTES."""

    text: bytes  # whole lines; the last line of the file may lack its newline
    too_long: bool = False


def whole_lines(blocks: Iterator[bytes], chunk_bytes: int) -> Iterator[TextLines]:
    """Yield whole lines in chunks of about ``chunk_bytes``, some of them empty.

    If the text is damaged, raises DamagedError after the last complete line.
    """
    rest, skipping = b"", False
    blocks = as_utf8(blocks)
    while True:
        try:
            block = next(blocks, None)
        except DamagedError as error:
            # A truncated line could still parse.
            rest = rest[: rest.rfind(b"\n") + 1]
            if rest:
                yield TextLines(rest)
            raise error
        if block is None:
            break
        if skipping:
            after = block.find(b"\n") + 1
            if not after:
                yield TextLines(b"")
                continue
            block, skipping = block[after:], False
        text = rest + block
        end = text.rfind(b"\n") + 1
        if end < chunk_bytes and len(text) < MAX_LINE_BYTES:
            rest = text
        elif end:
            yield TextLines(text[:end])
            rest = text[end:]
        else:
            yield TextLines(text[:SHOWN_CHARS], too_long=True)
            rest, skipping = b"", True
    if rest:
        yield TextLines(rest)


def as_utf8(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield UTF-8 text without byte order mark, from UTF-8, or UTF-16 and UTF-32 with a mark.

    Passes on the DamagedError of ``blocks``, and converts OSError to it.
    """
    try:
        head = b""
        try:
            for block in blocks:
                head += block
                if len(head) >= _LONGEST_MARK:
                    break
        except DamagedError:
            if head:
                yield head
            raise
        mark, encoding = next((m for m in _MARKS if head.startswith(m[0])), (b"", ""))
        head = head[len(mark) :]
        if not encoding:
            if head:
                yield head
            yield from blocks
            return
        decoder = codecs.getincrementaldecoder(encoding)("replace")
        yield decoder.decode(head).encode()
        for block in blocks:
            yield decoder.decode(block).encode("utf-8", "replace")
        yield decoder.decode(b"", final=True).encode()
    except OSError as error:
        raise DamagedError(error.strerror or str(error)) from None
