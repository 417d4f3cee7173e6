"""Counts in words, for people."""

from __future__ import annotations


def amount(times: int, kind: str) -> str:
    """Return so many of ``kind``, a plural in s, in words: ``1,200 trades``, ``1 trade``."""
    return f"{times:,} {kind if times != 1 else kind.removesuffix('s')}"
