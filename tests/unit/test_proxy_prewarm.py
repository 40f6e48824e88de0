"""The whole proxy with upstream connections ready before clients come: its beginning and end."""

import ssl
from pathlib import Path

import pytest
import trio
from lab_client import until
from loopback import TLSStream, open_server
from proxy_bench import ONLY_ECHOES, STARTUP, echo, running

from dbproxy import DatabaseProxy, Settings
from dbproxy.events import ConnectionClosed, DrainingStarted, Event, Stopped, UpstreamReady

pytestmark = pytest.mark.usefixtures("no_descriptor_may_be_left")

READY = 3


class CountingEcho:
    """Echoes, and knows how many connections are open."""

    def __init__(self) -> None:
        self.open = 0

    async def __call__(self, stream: TLSStream) -> None:
        self.open += 1
        try:
            await echo(stream)
        finally:
            self.open -= 1


async def test_they_are_made_at_start_and_a_drain_closes_them_while_open_ones_go_on(
    destination: Path, upstream_context: ssl.SSLContext
) -> None:
    server = CountingEcho()
    async with running(
        destination, upstream_context, handler=server, prewarm=READY, drain_timeout=1000.0
    ) as bench:
        await until(lambda: len(bench.published(UpstreamReady)) == READY)
        client = await bench.connect_and_greet()
        await until(lambda: server.open == READY + 1)
        bench.proxy.stop()
        await until(lambda: server.open == 1)
        await client.send_all(b"still served")
        assert await client.receive_some() == b"still served"
        await client.aclose()
    (closed,) = bench.published(ConnectionClosed)
    assert closed.record.prewarmed
    assert bench.published(DrainingStarted)[0].open_connections == 1
    assert bench.events[-1] == Stopped(ended_early=0)


async def test_connections_that_wait_are_no_open_connections_of_clients(
    destination: Path, upstream_context: ssl.SSLContext
) -> None:
    async with running(destination, upstream_context, prewarm=READY, drain_timeout=1000.0) as bench:
        await until(lambda: len(bench.published(UpstreamReady)) == READY)
    assert bench.published(DrainingStarted)[0].open_connections == 0
    assert bench.published(ConnectionClosed) == []


async def test_cancelled_it_leaves_none_open_neither_ready_nor_being_made(
    destination: Path,
) -> None:
    """The server takes connections and says nothing."""
    accepted = 0

    async def say_nothing(stream: trio.SocketStream) -> None:
        nonlocal accepted
        accepted += 1
        while await stream.receive_some():
            pass

    events: list[Event] = []
    async with open_server(say_nothing) as port:
        settings = Settings(
            destination_dir=destination,
            tunnel=True,
            proxy=f"127.0.0.1:{port}",
            prewarm=READY,
            **ONLY_ECHOES,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(DatabaseProxy(settings, events.append).run)
            await until(lambda: accepted == READY)
            nursery.cancel_scope.cancel()


async def test_without_the_option_none_is_made(
    destination: Path, upstream_context: ssl.SSLContext
) -> None:
    server = CountingEcho()
    async with running(destination, upstream_context, handler=server) as bench:
        client = await bench.connect()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert server.open == 0
        await client.send_all(STARTUP)
        assert await client.receive_some() == STARTUP
        await client.aclose()
    assert bench.published(UpstreamReady) == []
    (closed,) = bench.published(ConnectionClosed)
    assert not closed.record.prewarmed
