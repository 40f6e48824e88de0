"""The lab's TDS messages."""

import struct

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from tds_messages import LOGIN7, OFF, TABULAR, login, login_payload, packet, prelogin

from dbproxy.lab.errors import LabError
from dbproxy.lab.sqlserver import serve_sql_server
from dbproxy.lab.sqlserver_handler import agree_on_no_encryption
from dbproxy.lab.tdswire import (
    RequestBuffer,
    attention_acknowledged,
    login_names,
    message,
    nothing,
    one_value,
    prelogin_answer,
)


def batch(sql: str) -> bytes:
    return packet(1, struct.pack("<I", 4) + sql.encode("utf-16-le"))


@given(st.integers(1, 400), st.integers(1, 5))
def test_requests_are_read_wherever_they_are_cut(size: int, pieces: int) -> None:
    stream = prelogin(OFF) + login(pieces=pieces) + b"rest"
    buffer, kinds, payloads = RequestBuffer(), [], []
    for start in range(0, len(stream), size):
        buffer.feed(stream[start : start + size])
        while (request := buffer.pop()) is not None:
            kinds.append(request.kind)
            payloads.append(request.payload)
    assert kinds == [0x12, LOGIN7]
    assert payloads[1] == login_payload()
    assert buffer.pop_rest() == b"rest"


def test_an_impossible_length_is_refused() -> None:
    buffer = RequestBuffer()
    buffer.feed(struct.pack(">BBH4x", 1, 1, 3))
    with pytest.raises(LabError):
        buffer.pop()


def test_names_are_found() -> None:
    assert login_names(login_payload("ann", "db")) == ("ann", "db")
    with pytest.raises(LabError):
        login_names(b"short")


@pytest.mark.parametrize("size", [1, 4088, 4089, 9000])
def test_long_results_are_several_packets(size: int) -> None:
    buffer = RequestBuffer()
    buffer.feed(message(bytes(size)))
    request = buffer.pop()
    assert request is not None
    assert (request.kind, request.payload) == (TABULAR, bytes(size))
    assert buffer.pop_rest() == b""


async def test_a_client_is_logged_in_and_echoed() -> None:
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery, far:
        nursery.start_soon(serve_sql_server, near)
        await far.send_all(login())
        assert "example".encode("utf-16-le") in await far.receive_some()
        await far.send_all(batch("SELECT 1"))
        assert await far.receive_some() == one_value("SELECT 1")
        await far.send_all(batch("SELECT REPLICATE('x', 3)"))
        assert await far.receive_some() == one_value("xxx")
        await far.send_all(batch("SET ANSI_NULLS ON"))
        assert await far.receive_some() == nothing()
        await far.send_all(packet(6, b""))
        assert await far.receive_some() == attention_acknowledged()


async def test_the_proxy_agrees_on_no_encryption() -> None:
    near, far = trio.testing.memory_stream_pair()
    await far.send_all(prelogin(OFF) + b"login")
    assert await agree_on_no_encryption(near) == b"login"
    assert await far.receive_some() == prelogin_answer()


@pytest.mark.parametrize("sent", [login(), b""])
async def test_who_does_not_begin_with_prelogin_is_refused(sent: bytes) -> None:
    near, far = trio.testing.memory_stream_pair()
    await far.send_all(sent)
    await far.send_eof()
    with pytest.raises(LabError):
        await agree_on_no_encryption(near)
