"""Static files: the fixed list, whole, compressed where accepted, with tags that save sending them again."""

from __future__ import annotations

import gzip
import hashlib
import re
from importlib import resources
from pathlib import Path

import pytest

from marketfeed.errors import RequestError
from marketfeed.gateway.files import (
    DOCUMENTS,
    FILES,
    INFLATE,
    NODES,
    PAGE_FILE,
    POLICY,
    SDK,
    SDK_VERSION,
    TYPES,
    accepts_gzip,
    files,
)
from marketfeed.gateway.hosts import Hosts
from marketfeed.gateway.http import Request, Response
from tests.support.access import Control
from tests.support.live import serving

WEB = Path(str(resources.files("marketfeed"))) / "web"
PAGE_FILES = sorted(path for path, label in files().labels.items() if label == PAGE_FILE)
STYLE = next(path for path in PAGE_FILES if path.endswith(".css"))
NAME = STYLE.rpartition("/")[2]
HELD = {path: (WEB / name).read_bytes() for path, name in FILES.items()}
HELD |= {path: (WEB / path[1:]).read_bytes() for path in PAGE_FILES}
HELD |= dict.fromkeys((SDK, files().sdk), (WEB / "marketfeed.js").read_bytes())
HELD[INFLATE] = (WEB / "marketfeed-inflate.js").read_bytes()
HELD[NODES] = (WEB / "marketfeed-nodes.js").read_bytes()
HELD |= {path: build() for path, build in DOCUMENTS.items()}


def getter(path):
    """Return what answers GETs of ``path`` with these headers."""

    async def get(*headers, query=None):
        request = Request(path=path, query=query or {}, headers=list(headers))
        answer = await files().routes[path]["GET"](request)
        assert isinstance(answer, Response)
        return answer

    return get


async def fetch(live, target, headers="", method="GET"):
    """Return status, headers by lower-case name, and body of a request over a socket."""
    stream = await live.connect()
    head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{live.port}\r\nConnection: close\r\n{headers}\r\n"
    await stream.send_all(head.encode())
    answer = b""
    while data := await stream.receive_some():
        answer += data
    top, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = top.decode("latin-1").split("\r\n")
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        assert name == "Vary" or name.lower() not in found, line
        found[name.lower()] = f"{found[name.lower()]}, {value}" if name.lower() in found else value
    return int(status.split()[1]), found, body


def test_every_file_of_the_page_is_served():
    below = (WEB / "page").rglob("*")
    present = {f"/page/{path.relative_to(WEB / 'page')}" for path in below if path.is_file()}
    assert present == set(PAGE_FILES)
    assert set(files().routes) == set(HELD)


@pytest.mark.parametrize("path", sorted(HELD))
async def test_each_file_comes_whole_and_not_again_to_who_has_it(path):
    get = getter(path)
    answer = await get()
    assert (answer.status, answer.body) == (200, HELD[path])
    headers = dict(answer.headers)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Vary"] == "Accept-Encoding"
    forever = "public, max-age=31536000, immutable"
    assert headers["Cache-Control"] == (forever if path == files().sdk else "no-cache")
    tag = headers["ETag"]
    again = await get((b"if-none-match", b'"other", W/' + tag.encode()))
    assert (again.status, again.body, dict(again.headers)) == (304, b"", headers)
    for held, status in ((b'"other"', 200), (tag.strip('"').encode(), 200), (b"*", 304)):
        assert (await get((b"if-none-match", held))).status == status


@pytest.mark.parametrize("path", sorted(HELD))
async def test_gzip_is_for_who_accepts_it_and_has_a_tag_of_its_own(path):
    get = getter(path)
    plain, packed = await get(), await get((b"accept-encoding", b"br, gzip, deflate"))
    if packed.body == plain.body:  # an image, or a few bytes
        assert len(gzip.compress(plain.body)) >= len(plain.body)
        assert packed.headers == plain.headers
        return
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body)
    headers = dict(packed.headers)
    assert headers["Content-Encoding"] == "gzip"
    assert headers["ETag"] != dict(plain.headers)["ETag"]
    again = await get((b"accept-encoding", b"gzip"), (b"if-none-match", headers["ETag"].encode()))
    assert (again.status, again.body, dict(again.headers)["ETag"]) == (304, b"", headers["ETag"])
    assert "Content-Encoding" not in dict(again.headers)
    other = await get((b"if-none-match", headers["ETag"].encode()))
    assert (other.status, other.body) == (200, plain.body)


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("gzip; q = 0.5", True),
        ("*", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("*;q=0", False),
        ("identity;q=0", False),
        ("identity, gzip;q=0.5", False),
        ("identity;q=0.5, gzip", True),
        ("gzip;q=nan", False),
        ("gzip;q=", False),
        ("gzip;q=x", False),
        ("gzip;level=9", True),
        (",,;,gzip", True),
        ("gzipped, not-gzip", False),
    ],
)
def test_accept_encoding_is_weighed(header, accepted):
    assert accepts_gzip(header) is accepted


async def test_the_page_may_load_and_do_nothing_foreign():
    answer = await getter("/")()
    assert answer.content_type == "text/html; charset=utf-8"
    headers = dict(answer.headers)
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    directives = dict(part.strip().split(" ", 1) for part in POLICY.split(";"))
    assert directives.pop("default-src") == directives.pop("frame-ancestors") == "'none'"
    assert directives.pop("base-uri") == directives.pop("form-action") == "'none'"
    assert set(directives.pop("img-src").split()) == {"'self'", "data:"}
    assert set(directives.values()) == {"'self'"}  # without unsafe-inline, and without any other host


async def test_the_page_obeys_its_own_policy():
    for path in ("/", *PAGE_FILES):
        if path.endswith((".html", "/")):
            text = HELD[path].decode()
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:", text)
            assert not re.search(r"""\b(?:src|href)=["']?(?:https?:)?//""", text)


async def test_the_browser_client_has_a_path_of_its_content():
    hash_ = hashlib.sha256(HELD[SDK]).hexdigest()[:16]
    assert files().sdk == SDK_VERSION.format(hash=hash_) == f"/marketfeed-{hash_}.js"
    async with serving() as live:
        assert (await fetch(live, files().sdk))[0] == 200
        assert (await fetch(live, f"/marketfeed-{'0' * 16}.js"))[0] == 404


@pytest.mark.parametrize("origin", ["", "Origin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\n"])
async def test_pages_of_any_origin_may_load_the_browser_client(origin):
    async with serving() as live:
        for path in (SDK, files().sdk, INFLATE):
            status, headers, body = await fetch(live, path, origin)
            assert (status, body) == (200, HELD[path])
            assert headers["access-control-allow-origin"] == "*"
            assert headers["cross-origin-resource-policy"] == "cross-origin"
            assert headers["content-type"] == TYPES[".js"]


@pytest.mark.parametrize("path", [*DOCUMENTS, STYLE, "/v1/engine"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("", 200),
        ("Origin: http://good.example\r\n", 200),
        ("Origin: http://evil.example\r\n", 403),
        ("Origin: null\r\n", 403),
    ],
)
async def test_everything_else_is_for_pages_of_allowed_origins(path, headers, status):
    async with serving() as live:
        got, found, body = await fetch(live, path, headers)
    assert got == status
    allowed = "http://good.example" if "good" in headers else None
    assert found.get("access-control-allow-origin") == allowed
    if path in HELD:
        assert (body == HELD[path]) == (status == 200)


async def test_head_tells_the_size_without_the_content():
    async with serving() as live:
        for path in ("/", "/openapi.json", SDK):
            for headers in ("", "Accept-Encoding: gzip\r\n"):
                _, whole, body = await fetch(live, path, headers)
                status, head, nothing = await fetch(live, path, headers, "HEAD")
                assert (status, nothing) == (200, b"")
                assert head == whole
                assert int(head["content-length"]) == len(body)


async def test_only_the_page_itself_ignores_parameters():
    assert (await getter("/")(query={"utm_source": ["chat"], "symbol": ["AAPL", "MSFT"]})).status == 200
    for path in HELD.keys() - {"/"}:
        with pytest.raises(RequestError):
            await getter(path)(query={"file": ["/etc/passwd"]})


async def test_requests_for_files_are_counted_by_kind_and_do_not_use_up_the_rate():
    async with serving() as live:
        for _ in range(60):
            status, _, _ = await fetch(live, PAGE_FILES[0])
            assert status == 200
        assert (await fetch(live, files().sdk))[0] == 200
        assert (await fetch(live, "/v1/engine"))[0] == 200
    assert live.counters.requests == {
        (PAGE_FILE, 200): 60,
        (SDK_VERSION, 200): 1,
        ("/v1/engine", 200): 1,
    }


@pytest.mark.parametrize(
    "target",
    [
        "/page/../index.html",
        "/page/..%2findex.html",
        "/page/%2e%2e/robots.txt",
        "/page/..%5crobots.txt",
        f"/page/%{ord(NAME[0]):x}{NAME[1:]}",
        f"{STYLE}%00.js",
        f"{STYLE}/",
        f"/page/./{NAME}",
        f"/page//{NAME}",
        f"/{STYLE}",
        f"/PAGE/{NAME}",
        "/page/",
        "/page",
        "/page/.hidden",
        "/index.html",
        "/web/index.html",
        "/marketfeed.js/../robots.txt",
        "/marketfeed-*.js",
        "/marketfeed-.js",
        "/marketfeed-{hash}.js",
        "/page/{file}",
        "/page/file:///etc/passwd",
        "/" + "../" * 40 + "etc/passwd",
    ],
)
async def test_no_other_path_leads_to_a_file(target):
    async with serving() as live:
        status, _, body = await fetch(live, target)
    assert status in (400, 404)  # { and } are no characters of a URL
    assert body.startswith(b'{"error"')
    assert b"/etc" not in body
    assert str(WEB).encode() not in body


@pytest.mark.parametrize(
    "headers",
    [
        "Range: bytes=0-3\r\n",
        'Range: bytes=-1\r\nIf-Range: "x"\r\n',
        "Range: bytes=0-0,2-3,5-9\r\n",
        "Accept-Encoding: identity;q=0\r\n",
        "Accept-Encoding: br\r\nAccept-Encoding: deflate\r\n",
        "Accept: image/png\r\n",
        "If-Modified-Since: Sat, 01 Jan 2050 00:00:00 GMT\r\n",
        "If-Unmodified-Since: Sat, 01 Jan 2000 00:00:00 GMT\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\n",
        "X-Forwarded-Host: evil.example\r\nX-Original-URL: /robots.txt\r\n",
    ],
)
async def test_headers_that_are_not_supported_change_nothing(headers):
    async with serving() as live:
        status, found, body = await fetch(live, SDK, headers)
    assert (status, body) == (200, HELD[SDK])
    assert "content-range" not in found


async def test_a_name_that_an_attacker_resolves_to_the_engine_gets_nothing():
    async with serving(hosts=Hosts(["feed.example.com"])) as live:
        for path in ("/", SDK, INFLATE, files().sdk, STYLE, "/v1/engine"):
            for host in ("evil.example", "localhost.evil.example", "feed.example.com.evil.example"):
                status, found, _ = await fetch(live, f"http://{host}{path}")
                assert status == 421
                assert "access-control-allow-origin" not in found or path in (SDK, INFLATE, files().sdk)
            assert (await fetch(live, f"http://feed.example.com{path}"))[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get"])
async def test_a_file_is_read_only(method):
    async with serving() as live:
        status, found, _ = await fetch(live, "/", method=method)
    assert (status, found.get("allow")) == (405, "GET, HEAD")


async def test_files_need_no_token_and_take_none_in_the_url():
    control = Control()
    async with serving(access=control.access) as live:
        for path in HELD:
            assert (await fetch(live, path))[0] == 200
            assert (await fetch(live, path, "Authorization: Bearer nonsense\r\n"))[0] == 200
        status, _, body = await fetch(live, f"/?token={control.token(['*'])}")
        assert (status, b"does not belong in a URL" in body) == (400, True)


async def test_a_page_of_another_site_may_link_to_the_page_and_read_nothing():
    linked = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n"
    async with serving() as live:
        status, headers, _ = await fetch(live, "/", linked)
        assert (status, "access-control-allow-origin" in headers) == (200, False)
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert (await fetch(live, "/v1/engine", linked))[0] == 403
        preflight = "Origin: http://evil.example\r\nAccess-Control-Request-Method: GET\r\n"
        assert (await fetch(live, "/v1/engine", preflight, "OPTIONS"))[0] == 403
        status, headers, _ = await fetch(live, SDK, preflight, "OPTIONS")
        assert (status, headers["access-control-allow-origin"]) == (204, "*")
