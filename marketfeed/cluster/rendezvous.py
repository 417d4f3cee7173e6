"""Rendezvous hashing: the same order of nodes for a key on every node, without agreement.

Each node has a weight for the key, and the order is by descending weight. If a node joins or leaves, only
the keys that it wins change their first node.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def rendezvous(key: str, names: Iterable[str]) -> list[str]:
    """Return ``names`` in the order of ``key``.

    The weight of a name is the BLAKE2b digest of 8 bytes of key, NUL and name in UTF-8; equal weights are in
    order of the names. Part of the protocol between nodes: another hash would give two nodes the same rank.
    """
    return sorted(names, key=lambda name: (-_weight(key, name), name))


def rank_of(key: str, name: str, names: Iterable[str]) -> int:
    """Return the place of ``name`` in the order of ``key``, from 0, whether or not ``names`` has it."""
    return rendezvous(key, {name, *names}).index(name)


def _weight(key: str, name: str) -> int:
    text = f"{key}\0{name}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
