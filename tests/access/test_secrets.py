"""Keys of clients."""

from __future__ import annotations

import pytest

from marketfeed.access.material import KeyEntry
from marketfeed.access.secrets import entry_of, hash_of, new_key
from marketfeed.errors import AccessError


def made() -> tuple[str, KeyEntry]:
    key_id, hashed, key = new_key()
    return key, KeyEntry(key_id, hashed, 0, {"sub": "ann"})


def test_a_key_finds_its_entry_and_has_256_random_bits():
    key, entry = made()
    assert entry_of(key, {entry.id: entry}) is entry
    secret = key.removeprefix(f"mfk_{entry.id}_")
    assert len(secret) == 43  # base64url of 32 bytes
    assert hash_of(secret) == entry.hash
    assert secret not in repr(entry)


def test_no_two_keys_are_the_same():
    assert len({new_key() for _ in range(100)}) == 100


def test_another_secret_or_id_is_no_key():
    (key, entry), (other, _) = made(), made()
    for wrong in (other, f"mfk_{entry.id}_{other[-43:]}", key[:-1] + ("A" if key[-1] != "A" else "B")):
        with pytest.raises(AccessError, match=r"^no such key$"):
            entry_of(wrong, {entry.id: entry})


def test_an_unknown_id_with_the_hash_of_nothing_is_no_key():
    key, _ = made()
    with pytest.raises(AccessError, match="no such key"):
        entry_of(key, {})


@pytest.mark.parametrize(
    "text", ["", "mfk_", "Bearer x", "a.b.c", "mfk_ABCDEFABCDEF_" + "A" * 43, "\ud800", "é" * 60]
)
def test_other_text_is_refused_without_being_shown(text):
    with pytest.raises(AccessError, match=r"^not a key: a key begins with mfk_$"):
        entry_of(text, {})


def test_a_key_with_more_behind_it_is_none():
    key, entry = made()
    for wrong in (f"{key}\n", f" {key}", f"{key}A", key.upper()):
        with pytest.raises(AccessError, match="not a key"):
            entry_of(wrong, {entry.id: entry})
