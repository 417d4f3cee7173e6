"""``marketfeed revoke`` while no engine runs: it changes the file, or says why it does not."""

from __future__ import annotations

import json

import jwt
import pytest
from typer.testing import CliRunner

from marketfeed.access.revocation_store import RevocationStore
from marketfeed.cli import app
from marketfeed.cli import revoke_place as places
from marketfeed.file_lock import FileLock

CONFIG = '[auth]\nmode = "{}"\nkeys_file = "keys.json"\nalgorithm = "HS256"\n[admin]\nport = {}\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG.format("keys", 1))
    store = RevocationStore(tmp_path / "var" / "access.db")
    store.open(0.0)
    store.close()
    return tmp_path


def revoke(*arguments):
    """Run the command; return its status, output and errors."""
    done = CliRunner().invoke(app, ["revoke", *arguments])
    return done.exit_code, done.stdout, done.stderr


def rows():
    return [json.loads(line) for line in revoke("--list", "--json")[1].splitlines()]


def test_a_revocation_is_in_force_from_the_next_start(folder):
    status, out, err = revoke("--sub", "ann", "--comment", "left")
    assert (status, err) == (0, "")
    assert out == "revoked sub ann for ever; no engine runs: in force from its next start\n"
    (row,) = rows()
    assert {**row, "at": 0} == {"kind": "sub", "value": "ann", "at": 0, "until": None, "comment": "left"}
    store = RevocationStore(folder / "var" / "access.db")
    assert [one.value for one in store.open(0.0)] == ["ann"]
    store.close()


def test_tokens_are_revoked_until_they_have_expired(folder):
    (folder / "config.toml").write_text(CONFIG.format("jwt", 1))
    status, out, _ = revoke("--tenant", "desk-3", "--json")
    told = json.loads(out)
    assert (status, told["revoked"], told["sessions"]) == (0, {"tenant": "desk-3"}, 0)
    (row,) = rows()
    assert row["until"] - row["at"] == 2_592_060 * 10**6
    assert revoke("--token", "01J")[1].startswith("revoked token 01J until 20")


def test_revocations_are_listed(folder):
    assert revoke("--list") == (0, "no revocations\n", "")
    revoke("--sub", "ann", "--comment", "left\n the desk")
    head, line = revoke("--list")[1].splitlines()
    assert head.split() == ["kind", "value", "revoked", "until", "comment"]
    assert line.startswith("sub   ann    20")
    assert line.endswith("Z  -      left the desk")


def test_a_revocation_is_taken_back(folder):
    revoke("--sub", "ann")
    revoke("--sub", "bob")
    assert revoke("--sub", "ann", "--undo") == (0, "revoked no longer: sub ann\n", "")
    assert [row["value"] for row in rows()] == ["bob"]
    assert revoke("--sub", "bob", "--undo", "--json") == (0, '{"undone":{"sub":"bob"}}\n', "")
    assert revoke("--sub", "bob", "--undo") == (2, "", "marketfeed: no revocation of the sub 'bob'\n")


KEY = f"mfk_5f1e0c9a7b21_{'s' * 43}"


def signed(**payload):
    return jwt.encode({"sub": "ann", **payload}, "a secret of tests, 32 bytes or more", "HS256")


@pytest.mark.parametrize(("whole", "id_"), [(KEY, "5f1e0c9a7b21"), (signed(jti="01JDQ3"), "01JDQ3")])
def test_a_whole_key_or_token_is_revoked_by_its_id(folder, whole, id_):
    status, out, err = revoke("--token", whole)
    assert (status, err) == (0, "")
    assert out.startswith(f"revoked token {id_} for ever; ")
    assert [row["value"] for row in rows()] == [id_]
    assert whole[-20:].encode() not in (folder / "var" / "access.db").read_bytes()
    assert revoke("--token", whole, "--undo") == (0, f"revoked no longer: token {id_}\n", "")


@pytest.mark.parametrize(
    ("option", "given", "why"),
    [
        (
            "--token",
            signed(),
            "the token has no jti: revoke all that was issued to its sub (revoke --sub NAME)",
        ),
        ("--token", KEY[:-1], "it looks like a part of a key or token: give all of it, or its id"),
        ("--token", "a" * 257, "1 to 256 printable characters"),
        ("--sub", KEY, "it looks like a key or token: revoke it as a token"),
    ],
)
def test_a_secret_that_is_no_id_is_refused_and_not_repeated(folder, option, given, why):
    status, out, err = revoke(option, given)
    assert (status, out) == (2, "")
    assert err.removeprefix("marketfeed: ").removeprefix("--") == f"{option[2:]}: {why}\n"
    assert rows() == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "one of --sub, --tenant and --token is required, and no two; or --list"),
        (("--undo",), "one of --sub, --tenant and --token is required, and no two; or --list"),
        (
            ("--sub", "a", "--tenant", "b"),
            "one of --sub, --tenant and --token is required, and no two; or --list",
        ),
        (("--list", "--sub", "a"), "--list: takes no --sub, --tenant, --token, --comment or --undo"),
        (("--undo", "--sub", "a", "--comment", "b"), "--undo: takes no --comment"),
        (("--sub", ""), "sub: 1 to 256 printable characters"),
        (("--sub", "a\x07"), "sub: 1 to 256 printable characters"),
        (("--sub", "a\udcff"), "an argument is not UTF-8 text"),
        (("--sub", "a", "--url", "admin"), "--url admin: must be http://HOST:PORT, or https://…"),
    ],
)
def test_mistakes_are_told(folder, arguments, why):
    assert revoke(*arguments) == (2, "", f"marketfeed: {why}\n")


def test_without_access_control_there_is_nothing_to_revoke(folder):
    (folder / "config.toml").write_text("")
    status, _, err = revoke("--sub", "ann")
    assert status == 2
    assert err.startswith("marketfeed: there is no access control: auth.mode is none; for an engine at")


def test_a_file_that_no_engine_has_made_is_not_created(folder):
    """The command may be in the wrong folder, and what it wrote there would be in force nowhere."""
    path = folder / "var" / "access.db"
    path.unlink()
    status, _, err = revoke("--sub", "ann")
    assert status == 2
    assert err.startswith(f"marketfeed: there is no {path}: an engine with access control creates it; for")
    assert not path.exists()


def test_a_damaged_file_is_told(folder):
    (folder / "var" / "access.db").write_bytes(b"no database " * 100)
    status, _, err = revoke("--sub", "ann")
    assert status == 2
    assert "access.db is no file of access" in err


def test_an_engine_that_holds_the_file_has_to_answer(folder, monkeypatch):
    monkeypatch.setattr(places, "BUSY_S", 0.0)
    lock = FileLock(folder / "var" / "access.db")
    status, _, err = revoke("--sub", "ann")
    lock.release()
    assert status == 2
    assert err.startswith("marketfeed: cannot reach the engine at http://127.0.0.1:1: connection refused")
    assert rows() == []
