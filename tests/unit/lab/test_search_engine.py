"""The lab's stand-in for a search engine."""

import json

import trio

from dbproxy.lab.search_engine import SearchEngine

ENGINE = SearchEngine({"/": {"name": "lab"}, "/large": {"text": "x" * 100_000}})


async def answers(*requests: bytes) -> list[tuple[bytes, object]]:
    """The status line of each answer, and its document."""
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery, far:
        nursery.start_soon(ENGINE.serve, near)
        await far.send_all(b"".join(requests))
        await far.send_eof()
        rest = b"".join([bytes(data) async for data in far])
    found = []
    while rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        found.append((head.split(b"\r\n")[0], json.loads(rest[:size] or b"null")))
        rest = rest[size:]
    return found


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def test_documents_come_by_path_one_after_another() -> None:
    assert await answers(get("/"), get("/large?pretty"), get("/")) == [
        (b"HTTP/1.1 200 OK", {"name": "lab"}),
        (b"HTTP/1.1 200 OK", {"text": "x" * 100_000}),
        (b"HTTP/1.1 200 OK", {"name": "lab"}),
    ]


async def test_what_is_not_there_is_an_error_with_a_reason() -> None:
    ((status, document),) = await answers(get("/none"))
    assert status == b"HTTP/1.1 404 Not Found"
    assert isinstance(document, dict)
    assert document["error"]["reason"] == "no /none"


async def test_what_is_not_http_is_told_so() -> None:
    ((status, _),) = await answers(b"\0\1\2\3\r\n\r\n")
    assert status == b"HTTP/1.1 400 Bad Request"
