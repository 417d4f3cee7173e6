"""Counts with their nouns, for messages."""

from __future__ import annotations


def amount(times: int, kind: str) -> str:
    """Return a count with ``kind``, a plural in s: ``1,200 trades``, ``1 trade``."""
    return f"{times:,} {kind if times != 1 else kind.removesuffix('s')}"
