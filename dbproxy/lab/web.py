"""The web server behind the Proxy's port, as far as a database connection can meet it."""

from __future__ import annotations

from typing import Final

import trio

MAX_HEAD_SIZE: Final = 64 * 1024
END_OF_HEAD: Final = b"\r\n\r\n"
NOT_FOUND: Final = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def serve_not_found(stream: trio.abc.Stream) -> None:
    """Answers one HTTP/1.1 request, whatever it asks for, with 404."""
    head = b""
    while END_OF_HEAD not in head and len(head) < MAX_HEAD_SIZE:
        data = await stream.receive_some()
        if not data:
            return
        head += data
    await stream.send_all(NOT_FOUND)
