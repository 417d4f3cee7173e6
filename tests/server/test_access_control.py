"""Access control of an engine: what it reads, keeps and passes on. The session server is a fake."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
import trio.testing

from marketfeed.access.desk import Holder
from marketfeed.access.secrets import new_key
from marketfeed.config.schema import AuthConfig, Config, Loaded, TenantConfig, TierConfig
from marketfeed.core.breaker import BreakerState, BreakerStatistics
from marketfeed.errors import AccessError, ConfigError, RevocationError, StartError
from marketfeed.server import access_control
from marketfeed.server.access_control import REPLACED, AccessControl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from marketfeed.access.material import Material

SECRET = "a secret of tests, 32 bytes or more"
ID, HASH, KEY = new_key()
ADDRESS = "https://login.example.com/keys"


class Server:
    """Records what it is passed."""

    def __init__(self) -> None:
        self.passed: list[Material] = []
        self.auths: list[AuthConfig] = []
        self.ended: list[tuple[str, int]] = []

    def renew_access(self, auth, material):
        self.auths.append(auth)
        self.passed.append(material)

    async def revoke(self, auth, material, revocation):
        assert revocation in material.revocations
        self.renew_access(auth, material)
        return 3

    def end_session(self, session, code):
        self.ended.append((session, code))


FETCHES = BreakerStatistics(BreakerState.OPEN, succeeded=2, failed=1, refused=3, opened=1)


class FakeKeySet:
    """A set of keys that a test fetches."""

    def __init__(self, config: AuthConfig, changed: Callable[[bytes], None]) -> None:
        self.address, self.changed = config.jwks, changed
        self.problem: str | None = "not fetched yet"
        self.running = False
        self.refreshed = 0

    def statistics(self) -> BreakerStatistics:
        return FETCHES

    async def run(self) -> None:
        self.running = True
        try:
            await trio.sleep_forever()
        finally:
            self.running = False

    async def refresh(self) -> None:
        self.refreshed += 1


class Bench:
    def __init__(self, folder: Path, **auth: Any) -> None:
        self.folder = folder
        self.now_ns = 10**18
        self.environ = {"MARKETFEED_JWT_KEY": SECRET} if auth.get("mode", "jwt") == "jwt" else {}
        if "jwks" in auth:
            self.environ = {}
        self.auth = AuthConfig(
            path=str(folder / "access.db"), **({"mode": "jwt", "algorithm": "HS256"} | auth)
        )
        self.control = AccessControl(self.loaded(), lambda: self.now_ns, self.environ)
        self.server = Server()
        server: Any = self.server
        self.control.server = server

    def loaded(self, **auth: Any) -> Loaded:
        config = Config(auth=msgspec.structs.replace(self.auth, **auth), tiers={"vip": TierConfig()})
        return Loaded(config, "c.toml", self.folder)

    @contextmanager
    def open(self) -> Iterator[Server]:
        with self.control.open():
            yield self.server


@pytest.fixture
def keys_file(tmp_path):
    path = tmp_path / "keys.json"
    entry = {"id": ID, "hash": HASH, "created_s": 1, "claims": {"sub": "ann", "tier": "vip"}}

    def write(*ids):
        path.write_text(json.dumps({"keys": [entry | {"id": one} for one in ids]}))
        path.chmod(0o600)
        return str(path)

    write(ID)
    return write


async def test_what_was_kept_is_passed_on_before_anything_starts(tmp_path):
    bench = Bench(tmp_path)
    with bench.open() as server:
        assert server.passed == [bench.control.material]
        first, ended = await bench.control.revoke("sub", "ann", "left")
        assert ended == 3
        assert server.passed[-1].revocations == (first,)
        assert server.passed[-1].key == SECRET.encode()
    bench = Bench(tmp_path)
    with bench.open() as server:
        assert server.passed[0].revocations == (first,) == bench.control.revocations()
        assert await bench.control.take_back("sub", "ann")
        assert server.passed[-1].revocations == ()
        passed = len(server.passed)
        assert not await bench.control.take_back("sub", "ann")
        assert len(server.passed) == passed


async def test_a_revocation_that_cannot_be_kept_is_passed_to_nobody(tmp_path):
    bench = Bench(tmp_path)
    with bench.open() as server:
        connection: Any = bench.control._kept._store._connection
        connection.pragma("query_only", 1)
        with pytest.raises(RevocationError):
            await bench.control.revoke("sub", "ann", "")
        assert len(server.passed) == 1
        assert list(bench.control.troubles()) == ["revocations"]


async def test_a_file_that_cannot_be_used_prevents_the_start(tmp_path):
    bench = Bench(tmp_path)
    (tmp_path / "access.db").write_bytes(b"no database " * 100)
    with pytest.raises(StartError, match=r"^auth\.path: .*access\.db is no file of access"), bench.open():
        pass


async def test_the_access_of_this_process_has_the_keys(tmp_path, keys_file):
    bench = Bench(tmp_path, mode="keys", algorithm=None, keys_file=keys_file(ID))
    assert (await bench.control.access().verify(KEY)).claims.sub == "ann"
    assert KEY[-43:] not in repr(bench.control.material)


def test_all_mistakes_are_told_at_once(tmp_path):
    (tmp_path / "access.db").mkdir()
    with pytest.raises(ConfigError) as caught:
        Bench(tmp_path, key_file=str(tmp_path / "none"))
    assert [line.partition(": ")[0] for line in caught.value.mistakes] == ["auth.key_file", "auth.path"]


def test_a_key_of_another_algorithm_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"^auth\.key_file: "):
        Bench(tmp_path, algorithm="ES256")


def test_a_set_of_keys_without_one_for_the_algorithm_is_told(tmp_path):
    (tmp_path / "set.json").write_text('{"keys":[]}')
    with pytest.raises(ConfigError, match=r"^auth\.jwks: "):
        Bench(tmp_path, algorithm="ES256", jwks=str(tmp_path / "set.json"))


# Reload.


async def test_a_reload_reads_keys_and_tenants_again(tmp_path, keys_file):
    path = keys_file(ID)
    bench = Bench(tmp_path, mode="keys", algorithm=None, keys_file=path)
    with bench.open() as server:
        assert not bench.control.changed_by(bench.control.planned(bench.loaded()))
        keys_file("0" * 12)
        tenants = {"desk": TenantConfig(max_sessions=1)}
        planned = bench.control.planned(bench.loaded(tenants=tenants, ticket_prefixes=[24, 56]))
        assert bench.control.changed_by(planned)
        assert len(server.passed) == 1
        before = bench.control.apply(planned)
        assert [entry.id for entry in server.passed[-1].keys] == ["0" * 12]
        assert server.auths[-1].tenants == tenants
        assert await bench.control.desk.enter("a", Holder("ann", "desk")) is None
        assert await bench.control.desk.enter("b", Holder("bob", "desk")) == "max_sessions of the tenant: 1"
        bench.control.apply(before)
        assert [entry.id for entry in server.passed[-1].keys] == [ID]
        assert await bench.control.desk.enter("b", Holder("bob", "desk")) is None


async def test_a_reload_with_a_mistake_changes_nothing(tmp_path, keys_file):
    path = keys_file(ID)
    bench = Bench(tmp_path, mode="keys", algorithm=None, keys_file=path)
    with bench.open() as server:
        (tmp_path / "keys.json").write_text("{")
        with pytest.raises(ConfigError, match=r"auth\.keys_file: "):
            bench.control.planned(bench.loaded())
        assert len(server.passed) == 1


async def test_revocations_stay_over_a_reload(tmp_path):
    bench = Bench(tmp_path)
    with bench.open() as server:
        found, _ = await bench.control.revoke("sub", "ann", "")
        bench.environ["MARKETFEED_JWT_KEY"] = SECRET + "!"
        bench.control.apply(bench.control.planned(bench.loaded(max_ttl_s=100.0)))
        assert (server.passed[-1].key, server.passed[-1].revocations) == (SECRET.encode() + b"!", (found,))
        later, _ = await bench.control.revoke("sub", "bob", "")
        assert later.until_s == later.at_s + 160


# Sets of keys at an address.


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(access_control, "KeySet", FakeKeySet)
    return Bench(tmp_path, algorithm="ES256", jwks=ADDRESS, audience="a", issuer="i")


def key_set_of(bench) -> Any:
    return bench.control._in_force.key_set


SET = json.dumps(
    {
        "keys": [
            {
                "kty": "EC",
                "crv": "P-256",
                "kid": "1",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            }
        ]
    }
).encode()  # RFC 7515, appendix A.3


async def test_a_fetched_set_is_passed_on_and_stays_over_a_reload(fetched):
    with fetched.open() as server:
        key_set_of(fetched).changed(SET)
        assert server.passed[-1].jwks == SET
        planned = fetched.control.planned(fetched.loaded(tenants={"desk": TenantConfig()}))
        key_set_of(fetched).changed(other := SET.replace(b'"1"', b'"2"'))
        fetched.control.apply(planned)
        assert server.passed[-1].jwks == other
        assert fetched.control.changed_by(planned)


async def test_another_address_is_fetched_anew(fetched, nursery):
    nursery.start_soon(fetched.control.run)
    await trio.testing.wait_all_tasks_blocked()
    with fetched.open() as server:
        first = key_set_of(fetched)
        first.changed(SET)
        assert first.running
        fetched.control.apply(fetched.control.planned(fetched.loaded(audience="b")))
        assert key_set_of(fetched) is first
        fetched.control.apply(fetched.control.planned(fetched.loaded(jwks=ADDRESS + "/2")))
        await trio.testing.wait_all_tasks_blocked()
        assert (first.running, key_set_of(fetched).running) == (False, True)
        assert server.passed[-1].jwks == b""


async def test_an_unknown_key_has_the_set_fetched(fetched):
    assert not await fetched.control.desk.refresh_keys()
    key_set_of(fetched).problem = None
    assert await fetched.control.desk.refresh_keys()
    key_set_of(fetched).problem = "not fetched yet"
    assert key_set_of(fetched).refreshed == 2
    assert fetched.control.fetches() == FETCHES
    assert fetched.control.troubles() == {"jwks": "not fetched yet"}


async def test_without_an_address_there_is_nothing_to_fetch(tmp_path, nursery, autojump_clock):
    bench = Bench(tmp_path)
    nursery.start_soon(bench.control.run)
    assert await bench.control.desk.refresh_keys()
    assert bench.control.fetches() is None
    assert bench.control.troubles() == {}


# Tickets.


async def test_a_ticket_that_opens_a_session_again_ends_the_one_before(tmp_path):
    bench = Bench(tmp_path)
    desk, holder = bench.control.desk, Holder("ann", "", 1)
    ticket = await desk.issue("a token", None, "10.0.0.1")
    assert (await desk.redeem(ticket, "10.0.0.1", "s1", use="open")).before == ""
    assert await desk.enter("s1", holder) is None
    assert (await desk.redeem(ticket, "10.0.0.1", "s2", use="reopen")).before == "s1"
    assert bench.server.ended == [("s1", REPLACED)]
    assert await desk.enter("s2", holder) is None  # the one before is not counted any more
    desk.leave("s1")
    assert len(desk) == 1
    desk.leave("s2")
    await desk.redeem(ticket, "10.0.0.1", "s3", use="reopen")
    assert len(bench.server.ended) == 1  # s2 had ended
    with pytest.raises(AccessError):
        await desk.redeem("junk", "10.0.0.1", "s4", use="reopen")
