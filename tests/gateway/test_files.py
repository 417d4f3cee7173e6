"""Static files: the fixed list, whole, with tags that save sending them again."""

from __future__ import annotations

from importlib import resources

import pytest

from marketfeed.errors import RequestError
from marketfeed.gateway.files import DOCUMENTS, FILES, file_routes
from marketfeed.gateway.http import Request


def request(path: str, **more) -> Request:
    return Request(path=path, **more)


@pytest.mark.parametrize("path", sorted(FILES))
async def test_each_file_comes_whole_and_not_again_to_who_has_it(path):
    name, content_type = FILES[path]
    get = file_routes()[path]["GET"]
    answer = await get(request(path))
    held = (resources.files("marketfeed") / "web" / name).read_bytes()
    assert (answer.status, answer.body, answer.content_type) == (200, held, content_type)
    headers = dict(answer.headers)
    assert headers["Cache-Control"] == "no-cache"
    tag = headers["ETag"]
    again = await get(request(path, headers=[(b"if-none-match", b'"other", W/' + tag.encode())]))
    assert (again.status, again.body, dict(again.headers)["ETag"]) == (304, b"", tag)
    other = await get(request(path, headers=[(b"if-none-match", b'"other"')]))
    assert (other.status, other.body) == (200, held)


@pytest.mark.parametrize("path", sorted(DOCUMENTS))
async def test_each_document_is_served_as_built_and_not_again_to_who_has_it(path):
    get = file_routes()[path]["GET"]
    answer = await get(request(path))
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert answer.body is DOCUMENTS[path]()  # built once
    headers = dict(answer.headers)
    assert headers["Cache-Control"] == "no-cache"
    again = await get(request(path, headers=[(b"if-none-match", headers["ETag"].encode())]))
    assert (again.status, again.body) == (304, b"")


async def test_a_file_takes_no_parameters():
    with pytest.raises(RequestError):
        await file_routes()["/robots.txt"]["GET"](request("/robots.txt", query={"file": ["/etc/passwd"]}))
