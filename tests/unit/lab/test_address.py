from __future__ import annotations

import os
import socket
from errno import ECONNREFUSED, EHOSTUNREACH

import pytest
import trio

from dbproxy.lab.address import TcpAddress, UnixAddress, open_address, parse_address, reason_of
from dbproxy.lab.errors import LabError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:5432", TcpAddress("127.0.0.1", 5432)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("[::1]:65535", TcpAddress("::1", 65535)),
        ("unix:///run/pg/.s.PGSQL.5432", UnixAddress("/run/pg/.s.PGSQL.5432")),
    ],
)
def test_the_forms_of_an_address(text: str, address: TcpAddress | UnixAddress) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "localhost", ":5432", "localhost:", "localhost:x", "localhost:65536", "h:-1", "unix://p"],
)
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(LabError, match="is not an address"):
        parse_address(text)


def test_a_tcp_address_is_written_as_it_is_read() -> None:
    for text in ("127.0.0.1:1", "[::1]:2"):
        assert str(parse_address(text)) == text


async def test_a_refused_connection_is_explained_in_the_systems_words() -> None:
    with pytest.raises(OSError, match="attempts") as caught:
        await open_address("127.0.0.1:1")
    assert reason_of(caught.value) == "Connection refused"


def test_of_many_reasons_each_is_told_once_and_without_any_the_error_speaks_itself() -> None:
    refused, away = OSError(ECONNREFUSED, "to 192.0.2.1"), OSError(EHOSTUNREACH, "to 192.0.2.2")
    error = OSError("all attempts failed")
    assert reason_of(refused) == "Connection refused"
    assert reason_of(error) == "all attempts failed"
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert reason_of(unknown) == "Name or service not known"
    error.__cause__ = ExceptionGroup("attempts", [refused, away, refused])
    assert reason_of(error) == f"Connection refused; {os.strerror(EHOSTUNREACH)}"


async def test_a_silent_network_runs_into_the_timeout(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async def never(_host: str, _port: int) -> trio.SocketStream:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", never)
    with pytest.raises(TimeoutError, match="within 60 s"):
        await open_address("192.0.2.1:5432")
