"""Who is at the other end."""

import os
from pathlib import Path

import pytest
import trio

from dbproxy.downstream import TCPAddress, UnixAddress, describe_address, open_listener
from dbproxy.downstream.peer import describe_peer


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (("127.0.0.1", 5432), "127.0.0.1:5432"),
        (("::1", 5432, 0, 0), "[::1]:5432"),
        ("/run/socket", "unix:///run/socket"),
        (b"/run/s\xfcket", "unix:///run/s\ufffdket"),
    ],
)
def test_addresses_are_written_as_people_write_them(name: object, words: str) -> None:
    assert describe_address(name) == words


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_client_on_tcp_is_its_address(host: str) -> None:
    async with await open_listener(TCPAddress(host, 0)) as listener:
        port = listener.socket.getsockname()[1]
        async with (
            await trio.open_tcp_stream(host, port) as client,
            await listener.accept() as accepted,
        ):
            name = client.socket.getsockname()
            assert describe_peer(accepted.socket) == describe_address(name)


async def test_a_client_on_a_unix_socket_is_its_process(tmp_path: Path) -> None:
    async with (
        await open_listener(UnixAddress(tmp_path / "socket")) as listener,
        await trio.open_unix_socket(tmp_path / "socket"),
        await listener.accept() as accepted,
    ):
        assert describe_peer(accepted.socket) == f"unix pid={os.getpid()} uid={os.getuid()}"
