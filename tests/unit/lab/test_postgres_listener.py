"""PostgreSQL from the first byte: a listener of its own, and the web port without TLS routing."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio
from lab_client import (
    SSL_REQUEST,
    Client,
    at_end,
    exactly,
    issue,
    query,
    read_until,
    startup,
    until,
)

from dbproxy.lab import (
    Action,
    Fault,
    FaultPlan,
    Lab,
    PostgresListener,
    Step,
    WebOptions,
    open_postgres_listener,
)
from dbproxy.lab.authority import KeyPair


@pytest.fixture
def client(lab: Lab, tmp_path: Path) -> Iterator[Client]:
    with closing(Client(lab, tmp_path)) as client:
        yield client


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[trio.SocketStream]:
    host, port = address.rsplit(":", 1)
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        yield stream


async def ask(client: Client, stream: trio.SocketStream, pair: KeyPair | None) -> bytes:
    """Start TLS as PostgreSQL does, and run a query."""
    await stream.send_all(SSL_REQUEST)
    assert await exactly(stream, 1) == b"S"
    tls = await client.start_inner_tls(stream, pair)
    await tls.send_all(startup(user="alice", database="example") + query("SELECT 6 * 7"))
    await read_until(tls, "Z")
    return dict(await read_until(tls, "Z"))["D"]


async def test_a_client_with_a_certificate_is_served(lab: Lab, client: Client) -> None:
    async with open_postgres_listener(lab) as listener:
        async with connect(listener.address) as stream:
            assert (await ask(client, stream, issue(lab))).endswith(b"42")
            assert (listener.accepted, listener.connections) == (1, 1)
        await until(lambda: listener.connections == 0)
    assert not lab.handshakes


async def test_a_client_without_one_is_not(lab: Lab, client: Client) -> None:
    async with open_postgres_listener(lab) as listener, connect(listener.address) as stream:
        with pytest.raises((ssl.SSLError, trio.BrokenResourceError)):
            await ask(client, stream, None)


@pytest.mark.parametrize("first", [startup(user="alice"), b"\x16\x03\x01\x00\x05hello"])
async def test_what_does_not_ask_for_tls_is_closed(first: bytes, lab: Lab) -> None:
    async with open_postgres_listener(lab) as listener, connect(listener.address) as stream:
        await stream.send_all(first)
        assert await at_end(stream)


async def test_a_fault_is_met_once(lab: Lab, client: Client) -> None:
    faults = FaultPlan(Fault(Step.ACCEPT, Action.CLOSE, first=1))
    async with open_postgres_listener(lab, faults=faults) as listener:
        async with connect(listener.address) as stream:
            assert await at_end(stream)
        async with connect(listener.address) as stream:
            assert (await ask(client, stream, issue(lab))).endswith(b"42")
        assert len(listener.faults.injected) == 1


async def test_leaving_the_listener_closes_what_is_open(lab: Lab) -> None:
    listener: PostgresListener
    async with open_postgres_listener(lab) as listener:
        host, port = listener.address.rsplit(":", 1)
        stream = await trio.open_tcp_stream(host, int(port))
        await until(lambda: listener.connections == 1)
    async with stream:
        assert await at_end(stream)
    assert listener.connections == 0


async def test_the_web_port_serves_it_while_tls_routing_is_off(lab: Lab, client: Client) -> None:
    async with connect(lab.address) as stream:
        await stream.send_all(SSL_REQUEST)
        assert await at_end(stream)
    lab.web = WebOptions(tls_routing=False)
    async with connect(lab.address) as stream:
        assert (await ask(client, stream, issue(lab))).endswith(b"42")
    async with client.connect(issue(lab)) as stream:  # TLS is served as before
        await stream.send_all(SSL_REQUEST)
        assert await exactly(stream, 1) == b"N"
