"""Static files: the fixed list, whole, with tags that save sending them again."""

from __future__ import annotations

from importlib import resources

import pytest

from marketfeed.errors import RequestError
from marketfeed.gateway.files import DOCUMENTS, FILES, file_routes
from marketfeed.gateway.http import Request, Response
from tests.support.live import serving


def request(path: str, **more) -> Request:
    return Request(path=path, **more)


def getter(path):
    """Return what answers GETs of ``path`` with these headers."""

    async def get(headers=()):
        answer = await file_routes()[path]["GET"](request(path, headers=list(headers)))
        assert isinstance(answer, Response)
        return answer

    return get


@pytest.mark.parametrize("path", sorted(FILES))
async def test_each_file_comes_whole_and_not_again_to_who_has_it(path):
    name, content_type = FILES[path]
    get = getter(path)
    answer = await get()
    held = (resources.files("marketfeed") / "web" / name).read_bytes()
    assert (answer.status, answer.body, answer.content_type) == (200, held, content_type)
    headers = dict(answer.headers)
    assert headers["Cache-Control"] == "no-cache"
    tag = headers["ETag"]
    again = await get([(b"if-none-match", b'"other", W/' + tag.encode())])
    assert (again.status, again.body, dict(again.headers)["ETag"]) == (304, b"", tag)
    other = await get([(b"if-none-match", b'"other"')])
    assert (other.status, other.body) == (200, held)


@pytest.mark.parametrize("path", sorted(DOCUMENTS))
async def test_each_document_is_served_as_built_and_not_again_to_who_has_it(path):
    get = getter(path)
    answer = await get()
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert answer.body is DOCUMENTS[path]()  # built once
    headers = dict(answer.headers)
    assert headers["Cache-Control"] == "no-cache"
    again = await get([(b"if-none-match", headers["ETag"].encode())])
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("path", sorted(DOCUMENTS))
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("", 200),
        ("Origin: http://good.example\r\n", 200),
        ("Origin: http://evil.example\r\n", 403),
    ],
)
async def test_a_document_is_for_pages_of_allowed_origins(path, headers, status):
    async with serving() as live:
        stream = await live.raw(path, upgrade=False, headers=f"Connection: close\r\n{headers}")
        answer = b""
        while data := await stream.receive_some():
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert (b"Access-Control-Allow-Origin: http://good.example" in head) == ("good" in headers)
    assert (body == DOCUMENTS[path]()) == (status == 200)


async def test_head_tells_the_size_of_a_document():
    async with serving() as live:
        stream = await live.connect()
        await stream.send_all(b"HEAD /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := await stream.receive_some():
            answer += data
    assert f"Content-Length: {len(DOCUMENTS['/openapi.json']())}\r\n".encode() in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_a_file_takes_no_parameters():
    with pytest.raises(RequestError):
        await file_routes()["/robots.txt"]["GET"](request("/robots.txt", query={"file": ["/etc/passwd"]}))
