"""Revocations on the admin port: requests, their answers, and what is refused."""

from __future__ import annotations

from typing import Any

import jwt
import orjson
import pytest

from marketfeed.access.revocations import Revocation
from marketfeed.admin.access_metrics import access_metrics
from marketfeed.admin.access_operations import OFF, AccessOperations
from marketfeed.core.breaker import BreakerState, BreakerStatistics
from marketfeed.errors import RevocationError
from marketfeed.gateway.http import HttpServer, Rules
from tests.support.conformance import check_answer
from tests.support.http_peers import served

US = 10**6


class Access:
    """Revokes in memory, unless it is ``broken``."""

    def __init__(self) -> None:
        self.all: dict[tuple[str, str], Revocation] = {}
        self.broken = False

    def revocations(self):
        return tuple(self.all.values())

    async def revoke(self, kind, value, comment):
        self._check()
        until_s = None if kind == "token" else 200.5
        found = self.all[kind, value] = Revocation(kind, value, 100.25, until_s, comment)
        return found, 3

    async def take_back(self, kind, value):
        self._check()
        return self.all.pop((kind, value), None) is not None

    def _check(self):
        if self.broken:
            raise RevocationError("access.db: no room to write it: free space on its disk")


async def asked(access: Access | None, method: str, target: str, body: Any = None) -> tuple[int, Any]:
    """Make a request; return its status and JSON, checked."""
    data = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
    server = HttpServer(AccessOperations(access).routes, Rules(head_s=5.0, body_bytes=4096))
    async with served(server=server) as peer:
        length = f"Content-Length: {len(data)}\r\n" if data else ""
        await peer.stream.send_all(f"{method} {target} HTTP/1.1\r\nHost: a\r\n{length}\r\n".encode() + data)
        status, headers, answer = await peer.answer()
    check_answer(method, target, status, headers, answer)
    return status, orjson.loads(answer) if answer else None


@pytest.fixture
def access():
    return Access()


@pytest.mark.parametrize(("kind", "until"), [("sub", 200_500_000), ("tenant", 200_500_000), ("token", None)])
async def test_a_revocation_is_answered_listed_and_taken_back(access, autojump_clock, kind, until):
    told = await asked(access, "POST", "/v1/revoke", {kind: "x+y", "comment": "why"})
    assert told == (200, {"revoked": {kind: "x+y"}, "until": until, "sessions": 3})
    row = {"kind": kind, "value": "x+y", "at": 100_250_000, "until": until, "comment": "why"}
    assert await asked(access, "GET", "/v1/revocations") == (200, {"revocations": [row]})
    assert await asked(access, "DELETE", f"/v1/revoke?{kind}=x%2By") == (204, None)
    status, answer = await asked(access, "DELETE", f"/v1/revoke?{kind}=x%2By")
    assert (status, answer["error"]["msg"]) == (404, f"no revocation of the {kind} 'x+y'")
    assert await asked(access, "GET", "/v1/revocations") == (200, {"revocations": []})


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "exactly one of sub, tenant, token, not 0 of them"),
        ({"sub": None}, "exactly one of sub, tenant, token, not 0 of them"),
        ({"sub": "a", "tenant": "b"}, "exactly one of sub, tenant, token, not 2 of them"),
        ({"sub": ""}, "sub: 1 to 256 printable characters"),
        ({"token": "x" * 257}, "token: 1 to 256 printable characters"),
        ({"tenant": "a\nb"}, "tenant: 1 to 256 printable characters"),
        ({"sub": 7}, "the body: Expected `str | null`, got `int` - at `$.sub`"),
        ({"sub": "a", "comment": "\x1b[2J"}, "comment: control characters such as '\\x1b' are not allowed"),
        ({"sub": "a", "comment": "x" * 2001}, "comment: at most 2000 characters"),
        ({"user": "a"}, "the body: Object contains unknown field `user`"),
        ([], "the body: Expected `object`, got `array`"),
        (b"{", "the body is not JSON: Input data was truncated"),
        (b"[" * 4000, "the body: Expected `object`, got `array`"),
    ],
)
async def test_a_bad_body_is_refused(access, autojump_clock, body, why):
    status, answer = await asked(access, "POST", "/v1/revoke", body)
    assert (status, answer["error"]["msg"]) == (400, why)
    assert not access.all


@pytest.mark.parametrize(
    "query", ["", "?sub=a&token=b", "?sub=", "?sub=a&by=ann", "?user=a", "?sub=%0a", "?sub=a&sub=b"]
)
async def test_a_bad_query_is_refused(access, autojump_clock, query):
    await access.revoke("sub", "a", "")
    assert (await asked(access, "DELETE", f"/v1/revoke{query}"))[0] == 400
    assert (await asked(access, "GET", "/v1/revocations?limit=1"))[0] == 400
    assert (await asked(access, "POST", "/v1/revoke?sub=a", {"sub": "a"}))[0] == 400
    assert len(access.all) == 1


async def test_what_cannot_be_kept_is_answered_503(access, autojump_clock):
    await access.revoke("sub", "a", "")
    access.broken = True
    for told in (
        await asked(access, "POST", "/v1/revoke", {"sub": "b"}),
        await asked(access, "DELETE", "/v1/revoke?sub=a"),
    ):
        why = "nothing has changed: access.db: no room to write it: free space on its disk"
        assert told == (503, {"error": {"code": 503, "msg": why}})


async def test_without_access_control_there_is_nothing_to_revoke(autojump_clock):
    for method, path in (("POST", "/v1/revoke"), ("DELETE", "/v1/revoke"), ("GET", "/v1/revocations")):
        told = await asked(None, method, path, {} if method == "POST" else None)
        assert told == (503, {"error": {"code": 503, "msg": OFF}})


async def test_metrics():
    class Control(Access):
        class desk:
            tickets = 5

        def fetches(self):
            return BreakerStatistics(BreakerState.OPEN, succeeded=4, failed=1, refused=7, opened=1)

    control: Any = Control()
    await control.revoke("sub", "a", "")
    await control.revoke("sub", "b", "")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in access_metrics(control)
        for sample in metric.samples
    }
    assert found == {
        ("marketfeed_revocations", "sub"): 2,
        ("marketfeed_revocations", "tenant"): 0,
        ("marketfeed_revocations", "token"): 0,
        ("marketfeed_tickets",): 5,
        ("marketfeed_jwks_fetches_total", "ok"): 4,
        ("marketfeed_jwks_fetches_total", "failed"): 1,
    }


# Secrets.


KEY_ID, KEY_SECRET = "5f1e0c9a7b21", "s" * 43
KEY = f"mfk_{KEY_ID}_{KEY_SECRET}"


def signed(**payload: Any) -> str:
    return jwt.encode({"sub": "ann", **payload}, "a secret of tests, 32 bytes or more", "HS256")


@pytest.mark.parametrize(("whole", "id_"), [(KEY, KEY_ID), (signed(jti="01JDQ3"), "01JDQ3")])
async def test_a_whole_key_or_token_is_revoked_by_its_id(access, autojump_clock, whole, id_):
    told = await asked(access, "POST", "/v1/revoke", {"token": whole})
    assert told == (200, {"revoked": {"token": id_}, "until": None, "sessions": 3})
    assert list(access.all) == [("token", id_)]
    assert await asked(access, "DELETE", f"/v1/revoke?token={whole}") == (204, None)


@pytest.mark.parametrize(
    "body",
    [
        {"token": signed()},
        {"token": signed(jti=signed())},
        {"token": KEY[:-1]},
        {"sub": KEY},
        {"tenant": signed(jti="1")},
        {"sub": "ann", "comment": f"leaked: {KEY}"},
    ],
)
async def test_a_secret_is_neither_kept_nor_repeated(access, autojump_clock, body):
    status, answer = await asked(access, "POST", "/v1/revoke", body)
    assert (status, access.all) == (400, {})
    assert not any(part in str(answer) for part in (KEY_SECRET[:20], signed()[:20]))
