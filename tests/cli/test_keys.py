"""`marketfeed keys` over a keys file."""

from __future__ import annotations

import json
import stat
import time

import pytest

from marketfeed.access.keys_file import load_keys
from marketfeed.access.material import Material
from marketfeed.access.revocations import Revocation
from marketfeed.access.secrets import entry_of
from marketfeed.access.verifier import Verifier
from marketfeed.config.schema import load
from marketfeed.errors import AccessError
from tests.support.in_process import runner

CONFIG = """
[auth]
mode = "keys"
keys_file = "keys.json"
[auth.tenants.acme]
symbols = ["BTC*"]
"""
RELOAD = "after SIGHUP"


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return runner(capsys)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


@pytest.fixture
def configured(tmp_path):
    (tmp_path / "config.toml").write_text(CONFIG)


def added(run, *more):
    """Add a key; return it."""
    done = run("keys", "add", "--sub", "ann", "--keys-file", "keys.json", *more)
    assert done.status == 0
    return done.out.strip()


def test_a_key_is_alone_on_stdout_and_opens_a_session(run, path, configured):
    done = run(
        "keys", "add", "--sub", "ann", "--tenant", "acme", "--symbols", "BTC*,AAPL", "--tier", "premium"
    )
    assert done.status == 0
    (key,) = done.out.splitlines()
    (entry,) = load_keys(path)
    assert entry_of(key, {entry.id: entry}) is entry
    assert f"added key {entry.id} of ann to {path}; it is not shown again" in done.err
    assert RELOAD in done.err
    assert "warning" not in done.err
    assert key not in done.err
    assert key[-43:] not in path.read_text()
    grant = Verifier(load(None).config, Material(keys=load_keys(path))).verify(key, 0.0)
    assert grant.entitlement.narrow(0, ["*"]) == ["BTC*"]


def test_a_folder_that_does_not_exist_is_created_for_its_owner_alone(run, tmp_path):
    path = tmp_path / "var" / "keys.json"
    assert run("keys", "revoke", "0123456789ab", "--keys-file", path).status == 2
    assert not path.parent.exists()
    assert run("keys", "add", "--sub", "ann", "--keys-file", path).status == 0
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    (tmp_path / "file").touch()
    done = run("keys", "add", "--sub", "ann", "--keys-file", "file/keys.json")
    assert (done.status, done.err) == (2, "marketfeed: --keys-file: file: File exists\n")


def test_a_key_that_follows_a_revocation_of_its_holder_is_good(run, path, configured):
    before = added(run, "--tenant", "acme")
    revoked = Revocation("sub", "ann", time.time())
    after = added(run, "--tenant", "acme")
    verifier = Verifier(load(None).config, Material(keys=load_keys(path), revocations=(revoked,)))
    with pytest.raises(AccessError, match="revoked"):
        verifier.verify(before, 0.0)
    assert verifier.verify(after, 0.0).claims.sub == "ann"


def test_every_claim_has_an_option(run, path):
    added(
        run, "--tenant", "acme", "--tier", "vip", "--symbols", "BTC*, AAPL", "--symbols", "MSFT",
        "--channels", "quotes,alerts", "--consumers", "risk,desk-*", "--publish", "*", "--max-sessions", "2",
        "--max-symbols", "0", "--comment", "desk 3, ann's",
    )  # fmt: skip
    (entry,) = load_keys(path)
    assert entry.comment == "desk 3, ann's"
    assert entry.claims == {
        "sub": "ann", "tenant": "acme", "tier": "vip", "symbols": ["BTC*", "AAPL", "MSFT"],
        "channels": ["quotes", "alerts"], "consumers": ["risk", "desk-*"], "publish": ["*"],
        "max_sessions": 2, "max_symbols": 0,
    }  # fmt: skip


def test_what_is_not_given_is_left_to_the_defaults(run, path):
    added(run)
    assert load_keys(path)[0].claims == {"sub": "ann"}


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--symbols", "A B", "symbols: not a symbol"),
        ("--channels", "everything", "--channels: one of quotes, trades, alerts, not 'everything'"),
        ("--consumers", "a b", "consumers: not a consumer"),
        ("--max-sessions", "-1", "--max-sessions: Expected `int` >= 0"),
        ("--sub", "a\nb", "sub: characters that cannot be printed"),
        ("--sub", "", "sub"),
        ("--comment", "a\x1b[2J", "--comment: must be printable"),
    ],
)
def test_an_invalid_claim_is_refused_and_nothing_written(run, path, option, value, why):
    done = run("keys", "add", "--sub", "ann", "--keys-file", path, option, value)
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("marketfeed: ")
    assert why in line
    assert not path.exists()


def test_all_mistakes_are_told_at_once_with_guesses(run, path):
    done = run(
        "keys", "add", "--sub", "ann", "--keys-file", path, "--channels", "quote,trades,alert", "--symbols",
        "A B,AAPL,*C", "--max-symbols", "-1",
    )  # fmt: skip
    assert (done.status, done.out) == (2, "")
    assert done.err.splitlines() == [
        "marketfeed: --symbols: not a symbol or prefix*: 'A B'",
        "marketfeed: --symbols: not a symbol or prefix*: '*C'",
        "marketfeed: --channels: one of quotes, trades, alerts, not 'quote'; did you mean quotes?",
        "marketfeed: --channels: one of quotes, trades, alerts, not 'alert'; did you mean alerts?",
        "marketfeed: --max-symbols: Expected `int` >= 0",
    ]
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--tier", "premum", "--tenant", "acme", "--symbols", "*"], "did you mean premium?"),
        (["--tenant", "amce", "--symbols", "*"], "tenants are acme; did you mean acme?"),
        (["--tier", "gold", "--tenant", "acme", "--symbols", "*"], "no such tier: 'gold'"),
        (["--tenant", "other", "--symbols", "*"], "no such tenant: 'other'"),
        (["--tenant", "acme"], "it shows no symbol"),
        (["--tenant", "acme", "--symbols", "AAPL"], "it shows no symbol"),
    ],
)
def test_claims_that_the_configuration_does_not_know_are_warned_of(run, path, configured, options, why):
    done = run("keys", "add", "--sub", "ann", *options)
    assert done.status == 0
    assert why in next(line for line in done.err.splitlines() if "warning: " in line)
    assert len(load_keys(path)) == 1


def test_another_mode_is_warned_of(run, tmp_path, path):
    (tmp_path / "other.toml").write_text("")
    done = run("keys", "add", "--sub", "ann", "--symbols", "*", "--keys-file", path, "--config", "other.toml")
    assert done.status == 0
    assert 'auth.mode is "none": set it to "keys"' in done.err


def test_without_a_file_there_is_nothing_to_change(run):
    for arguments in (["add", "--sub", "ann"], ["list"], ["revoke", "0123456789ab"]):
        done = run("keys", *arguments)
        assert (done.status, done.out) == (2, "")
        assert done.err.startswith("marketfeed: auth.keys_file: missing; ")


def test_a_file_that_cannot_be_used_is_one_line(run, path):
    path.write_text("{")
    for arguments in (["add", "--sub", "ann"], ["list"], ["revoke", "0123456789ab"]):
        done = run("keys", *arguments, "--keys-file", path)
        assert (done.status, done.out) == (2, "")
        assert done.err.startswith(f"marketfeed: --keys-file: {path} is not JSON: ")
        assert done.err.count("\n") == 1
    assert path.read_text() == "{"


def test_a_list_has_no_secret_and_no_hash(run, path):
    keys = [added(run, "--symbols", "BTC*,AAPL", "--comment", "one"), added(run, "--tier", "vip")]
    plain, lines = (
        run("keys", "list", "--keys-file", path),
        run("keys", "list", "--json", "--keys-file", path),
    )
    entries = load_keys(path)
    for done in (plain, lines):
        assert done.status == 0
        for key, entry in zip(keys, entries, strict=True):
            assert entry.id in done.out
            assert entry.hash not in done.out
            assert key[-43:] not in done.out
    head, first, second = plain.out.splitlines()
    assert head.split() == ["id", "sub", "tenant", "tier", "symbols", "channels", "created", "comment"]
    assert first.split()[1:7] == ["ann", "-", "-", "BTC*", "AAPL", "-"]
    assert second.split()[1:6] == ["ann", "-", "vip", "-", "-"]
    rows = [json.loads(line) for line in lines.out.splitlines()]
    assert rows[0] == {
        "id": entries[0].id,
        "created_s": entries[0].created_s,
        "claims": {"sub": "ann", "symbols": ["BTC*", "AAPL"]},
        "comment": "one",
    }


def test_an_empty_list_says_so(run, path):
    path.write_text('{"keys": []}')
    path.chmod(0o600)
    assert run("keys", "list", "--keys-file", path).out == "no keys\n"
    assert run("keys", "list", "--json", "--keys-file", path).out == ""


def test_a_key_is_revoked_by_its_id_or_itself(run, path):
    first, second, third = added(run), added(run), added(run)
    for given in (first[4:16], second):
        done = run("keys", "revoke", given, "--keys-file", path)
        assert done.status == 0
        assert done.out.startswith("revoked ")
        assert RELOAD in done.err
    assert [entry.id for entry in load_keys(path)] == [third[4:16]]


def test_all_keys_of_a_holder_are_revoked(run, path):
    added(run)
    added(run)
    kept = added(run, "--sub", "bob")
    done = run("keys", "revoke", "--sub", "ann", "--keys-file", path)
    assert len(done.out.splitlines()) == 2
    assert [entry.id for entry in load_keys(path)] == [kept[4:16]]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "one of them is required"),
        (["0123456789ab", "--sub", "ann"], "not both"),
        (["0123456789ab"], "has no key with the id 0123456789ab"),
        (["--sub", "eve"], "has no key of eve"),
        (["mfk_0123456789ab_secret"], "must be the 12 hexadecimal digits"),
    ],
)
def test_what_cannot_be_revoked_is_a_mistake(run, path, arguments, why):
    added(run)
    done = run("keys", "revoke", *arguments, "--keys-file", path)
    assert (done.status, done.out) == (2, "")
    assert why in done.err
    assert "secret" not in done.err
    assert len(load_keys(path)) == 1


@pytest.mark.parametrize("command", ["add", "list", "revoke"])
def test_help_shows_examples(run, command):
    done = run("keys", command, "--help")
    assert f"marketfeed keys {command}" in done.out
    assert "Examples:" in done.out
