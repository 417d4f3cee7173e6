"""The keys file: what is read, what is refused, and that no change is lost or half made."""

from __future__ import annotations

import json
import os
import stat
import threading
from typing import Any

import pytest

from marketfeed.access.keys_file import add_key, load_keys, remove_keys
from marketfeed.access.material import KeyEntry
from marketfeed.access.secrets import new_key
from marketfeed.errors import ConfigError

ID, HASH = "0123456789ab", "0" * 64
GOOD: dict[str, Any] = {"id": ID, "hash": HASH, "created_s": 1_795_802_400, "claims": {"sub": "ann"}}


def entry(**claims: Any) -> KeyEntry:
    key_id, hashed, _ = new_key()
    return KeyEntry(key_id, hashed, 1, {"sub": "ann", **claims}, "a comment")


def refused(path, text: str | bytes, *why: str) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_keys(path)
    (line,) = caught.value.mistakes
    assert line.startswith(f"auth.keys_file: {path}")
    assert line.isprintable()
    assert all(one in line for one in why), line


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


def test_what_is_added_is_read_in_order(path):
    added = [entry(), entry(symbols=["BTC*"], max_sessions=2), entry(tenant="acme", channels=["alerts"])]
    for one in added:
        add_key(path, one)
    assert load_keys(path) == tuple(added)


def test_what_is_removed_is_returned(path):
    first, second, third = entry(), entry(sub="bob"), entry()
    for one in (first, second, third):
        add_key(path, one)
    assert remove_keys(path, lambda one: one.claims["sub"] == "ann") == (first, third)
    assert load_keys(path) == (second,)
    before = path.stat().st_ino
    assert remove_keys(path, lambda one: False) == ()
    assert path.stat().st_ino == before


def test_a_new_file_is_for_its_owner_alone(path):
    add_key(path, entry())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not [name for name in os.listdir(path.parent) if name not in ("keys.json", "keys.json.lock")]


def test_an_existing_file_keeps_its_mode_and_a_link_stays_one(path, tmp_path):
    add_key(path, entry())
    path.chmod(0o640)
    link = tmp_path / "link.json"
    link.symlink_to(path)
    add_key(link, entry())
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert len(load_keys(path)) == 2


def test_two_writers_at_once_lose_no_key(path):
    """Threads take the lock as processes do: each opens the file of the lock."""
    added = [[entry() for _ in range(20)] for _ in range(4)]

    def write(entries):
        for one in entries:
            add_key(path, one)

    threads = [threading.Thread(target=write, args=(entries,)) for entries in added]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.id for one in load_keys(path)} == {one.id for entries in added for one in entries}


def test_a_reader_meanwhile_sees_whole_files(path):
    add_key(path, entry())
    counts: list[int] = []
    done = threading.Event()

    def read():
        while not done.is_set():
            counts.append(len(load_keys(path)))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        add_key(path, entry())
    done.set()
    reader.join()
    assert counts == sorted(counts)


def test_a_file_that_is_not_valid_is_not_written(path):
    path.write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        add_key(path, entry())
    assert path.read_text() == "{"


def test_a_file_cut_at_any_byte_is_refused(path):
    add_key(path, entry(symbols=["BTC*"]))
    whole = path.read_bytes()
    for end in range(len(whole.rstrip())):
        refused(path, whole[:end], "is not JSON")


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"keys": {}}', '{"keys": null}', '{"keys": [], "more": 1}', "1", "null", '"keys"']
)
def test_another_document_is_refused(path, text):
    refused(path, text, 'must be {"keys": […]}')


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[" * 100_000, b"\x00", b'{"keys": [1e400]}', b'{"keys": ["\\ud800"]}']
)
def test_what_is_no_json_is_refused(path, data):
    refused(path, data, "is not JSON")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"id": "0123456789AB"}, "12 hexadecimal digits"),
        ({"id": "1"}, "12 hexadecimal digits"),
        ({"id": 5}, "key number 1: "),
        ({"id": "\n\x1b[2J"}, "12 hexadecimal digits"),
        ({"hash": "0" * 63}, "SHA-256"),
        ({"hash": "mfk_secret"}, "SHA-256"),
        ({"hash": None}, "hash"),
        ({"created_s": -1}, "created_s"),
        ({"created_s": 10**30}, "created_s"),
        ({"created_s": True}, "created_s"),
        ({"created_s": "1"}, "created_s"),
        ({"claims": []}, "claims"),
        ({"claims": {}}, "sub"),
        ({"claims": {"sub": "ann", "symbol": ["A"]}}, "unknown claim 'symbol'; there are sub, tenant"),
        ({"claims": {"sub": "ann", "symbols": "A"}}, "symbols"),
        ({"claims": {"sub": "ann", "symbols": ["A B"]}}, "symbols: not a symbol"),
        ({"claims": {"sub": "a\nb"}}, "sub: characters"),
        ({"comment": 1}, "comment"),
        ({"secret": "x"}, "unknown field `secret`"),
    ],
)
def test_a_wrong_entry_is_named(path, change, why):
    one = {**GOOD, **change}
    refused(path, json.dumps({"keys": [one]}), f"key {ID}: " if one["id"] == ID else "", why)


@pytest.mark.parametrize("one", [None, 1, "key", [], {}])
def test_an_entry_that_is_none_is_named_by_its_number(path, one):
    other = {**GOOD, "id": "ba9876543210"}
    refused(path, json.dumps({"keys": [GOOD, other, one]}), "key number 3: ")


def test_two_keys_with_one_id_are_refused(path):
    refused(path, json.dumps({"keys": [GOOD, GOOD]}), f"key {ID}: there are two with this id")


def test_a_file_that_others_may_write_is_refused(path):
    add_key(path, entry())
    for mode in (0o620, 0o602):
        path.chmod(mode)
        with pytest.raises(ConfigError, match=r"may be written by its group or by all users: chmod go-w "):
            load_keys(path)


def test_a_file_that_cannot_be_read_is_a_mistake(path, tmp_path):
    with pytest.raises(ConfigError, match=r"^auth.keys_file: .*keys.json does not exist: marketfeed keys"):
        load_keys(path)
    with pytest.raises(ConfigError, match="Is a directory"):
        load_keys(tmp_path)
    with pytest.raises(ConfigError, match="is no regular file"):
        load_keys(type(path)("/dev/zero"))
    with pytest.raises(ConfigError, match="does not exist"):
        load_keys(type(path)("a\x00b"))


def test_a_folder_that_cannot_be_created_is_a_mistake(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^--keys-file: .*file/none: Not a directory$"):
        add_key(tmp_path / "file" / "none" / "keys.json", entry(), "--keys-file")
    with pytest.raises(ConfigError, match="does not exist"):
        remove_keys(tmp_path / "keys.json", lambda one: True)
