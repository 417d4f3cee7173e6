"""Removal of quotes from quoted fields (RFC 4180, ``"a ""b"", c"``), with an unambiguous separator."""

from __future__ import annotations

from typing import Final

# Control characters, tried in this order as separators. If a text holds all of them, the first is
# replaced by a space.
_SEPARATORS: Final = bytes([31, 30, 29, 28, *range(1, 9), 11, 12, *range(14, 28), 127])
_QUOTE: Final = b'"'


def unquoted(text: bytes, delimiter: bytes) -> tuple[bytes, bytes, frozenset[int]]:
    """Return ``text`` without quotes, the new field separator, and the numbers of lines with unclosed quotes.

    Line numbers do not change. In a line with an unclosed quote every
    delimiter separates fields. Text after a closing quote belongs to the
    field, and a quote within an unquoted field is an ordinary character.
    """
    separator = next((bytes([c]) for c in _SEPARATORS if c not in text), None)
    if separator is None:
        separator = bytes(_SEPARATORS[:1])
        text = text.replace(separator, b" ")
    lines, unclosed = text.split(b"\n"), []
    for number, line in enumerate(lines):
        if _QUOTE not in line:
            lines[number] = line.replace(delimiter, separator)
            continue
        body = line[:-1] if line.endswith(b"\r") else line
        plain = _plain(body, delimiter, separator)
        if plain is None:
            fields = _fields(body, delimiter)
            plain = separator.join(fields or body.split(delimiter))
            if fields is None:
                unclosed.append(number)
        lines[number] = plain
    return b"\n".join(lines), separator, frozenset(unclosed)


def _plain(line: bytes, delimiter: bytes, separator: bytes) -> bytes | None:
    """Unquote a line whose quotes enclose whole fields or are doubled within one; None for other lines."""
    pieces = line.split(_QUOTE)
    last = len(pieces) - 1
    if last % 2:
        return None
    found = []
    for at, piece in enumerate(pieces):
        if at % 2:  # within quotes
            found.append(piece)
        elif not piece:
            if 0 < at < last:
                found.append(_QUOTE)
        elif (at == 0 or piece.startswith(delimiter)) and (at == last or piece.endswith(delimiter)):
            found.append(piece.replace(delimiter, separator))
        else:
            return None
    return b"".join(found)


def _fields(line: bytes, delimiter: bytes) -> list[bytes] | None:
    """Return the fields of any line, None for an unclosed quote."""
    fields, at = [], 0
    while True:
        pieces = []
        if line.startswith(_QUOTE, at):
            at += 1
            while True:
                end = line.find(_QUOTE, at)
                if end < 0:
                    return None
                pieces.append(line[at:end])
                at = end + 1
                if not line.startswith(_QUOTE, at):
                    break
                pieces.append(_QUOTE)
                at += 1
        end = line.find(delimiter, at)
        pieces.append(line[at:] if end < 0 else line[at:end])
        fields.append(b"".join(pieces))
        if end < 0:
            return fields
        at = end + 1
