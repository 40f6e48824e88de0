"""A worker in this process, with the test as its supervisor."""

import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding
from identities import Cluster, write_destination
from lab_client import until
from loopback import open_server, tls_handler, wait_for_end
from proxy_bench import ONLY_ECHOES, PATIENCE, SSL_REQUEST, STARTUP, echo

from dbproxy.downstream import LocalAuthority
from dbproxy.errors import Code
from dbproxy.events import (
    ConnectionClosed,
    DrainingStarted,
    Event,
    IdentityLoaded,
    InsecureChoice,
    Listening,
    Stopped,
    SupervisorLost,
)
from dbproxy.settings import Settings
from dbproxy.workers import messages
from dbproxy.workers.channel import Channel
from dbproxy.workers.handover import Handover
from dbproxy.workers.messages import (
    Begin,
    Draining,
    Message,
    Mistaken,
    Ready,
    Reload,
    Shown,
    Stop,
    StopNow,
)
from dbproxy.workers.worker import Worker

pytestmark = pytest.mark.usefixtures("no_descriptor_may_be_left")

E = TypeVar("E", bound=Event)


@dataclass
class Bench:
    """The supervisor's side, and the worker's log."""

    channel: Channel
    port: int
    log: list[Event] = field(default_factory=list)
    said: list[Message] = field(default_factory=list)

    def logged(self, kind: type[E]) -> list[E]:
        return [event for event in self.log if isinstance(event, kind)]

    async def collect(self) -> None:
        """Note what the worker says, until it is gone."""
        while received := await self.channel.receive():
            self.said += received

    async def hears(self, message: Message) -> None:
        await until(lambda: message in self.said, PATIENCE)

    async def connect_and_greet(self) -> trio.SocketStream:
        client = await trio.open_tcp_stream("127.0.0.1", self.port)
        await client.send_all(STARTUP)
        assert await client.receive_some() == STARTUP
        return client


@asynccontextmanager
async def running(
    destination: Path,
    upstream: ssl.SSLContext,
    *,
    first: Message | None = None,
    **settings: Any,
) -> AsyncIterator[Bench]:
    """Run a worker for the length of the block; it must end by itself after it."""
    ours, theirs = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, trio.fail_after(PATIENCE):
        async with open_server(tls_handler(upstream, echo)) as port:
            given: dict[str, Any] = {
                "tunnel": True,
                "proxy": f"127.0.0.1:{port}",
                "connect_grace": 0.0,
                "workers": 2,
                **ONLY_ECHOES,
                **settings,
            }
            handover = Handover(
                version="0",
                worker=1,
                listener=listener.dup().detach(),
                channel=theirs.detach(),
                log_lock=None,
            )
            bench = Bench(Channel(ours), listener.getsockname()[1])
            worker = Worker(
                Settings(destination_dir=destination, **given), handover, bench.log.append
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.collect)
                nursery.start_soon(worker.run)
                bench.channel.send(first or Begin())
                yield bench
    bench.channel.close()


async def test_it_serves_what_it_has_inherited_and_tells_only_what_is_its_own(
    destination: Path, upstream_context: ssl.SSLContext
) -> None:
    async with running(destination, upstream_context) as bench:
        await bench.hears(Ready())
        client = await bench.connect_and_greet()
        await client.aclose()
        await until(lambda: bool(bench.logged(ConnectionClosed)))
        bench.channel.send(Stop())
    assert bench.said == [Ready(), Draining(0), messages.Stopped(0)]
    assert bench.logged(IdentityLoaded)
    for kind in Listening, InsecureChoice, DrainingStarted, Stopped:
        assert bench.logged(kind) == []


async def test_stopping_drains_and_the_numbers_are_reported(
    destination: Path, upstream_context: ssl.SSLContext
) -> None:
    async with running(destination, upstream_context, drain_timeout=0.05) as bench:
        await bench.hears(Ready())
        client = await bench.connect_and_greet()
        bench.channel.send(Stop())
        bench.channel.send(Stop())
        await bench.hears(Draining(1))
        await wait_for_end(client)
        await client.aclose()
    assert bench.said[-1] == messages.Stopped(1)


async def test_at_once_means_at_once(destination: Path, upstream_context: ssl.SSLContext) -> None:
    async with running(destination, upstream_context, drain_timeout=1000.0) as bench:
        await bench.hears(Ready())
        client = await bench.connect_and_greet()
        bench.channel.send(Stop())
        bench.channel.send(StopNow())
        await wait_for_end(client)
        await client.aclose()
    assert bench.said[-1] == messages.Stopped(1)


async def test_with_debug_the_log_has_its_own_end_too(
    destination: Path, upstream_context: ssl.SSLContext
) -> None:
    async with running(destination, upstream_context, debug=True) as bench:
        await bench.hears(Ready())
        bench.channel.send(Stop())
    assert bench.log[-1] == Stopped(ended_early=0)
    assert bench.said[-1] == messages.Stopped(0)


async def test_told_to_reload_it_reads_the_identity_again(
    destination: Path, cluster: Cluster, upstream_context: ssl.SSLContext
) -> None:
    async with running(destination, upstream_context) as bench:
        await bench.hears(Ready())
        write_destination(destination, cluster)
        bench.channel.send(Reload())
        await until(lambda: len(bench.logged(IdentityLoaded)) == 2, PATIENCE)
        bench.channel.send(Stop())


async def test_what_the_operator_can_put_right_is_said_to_the_supervisor(
    destination: Path, upstream_context: ssl.SSLContext
) -> None:
    (destination / "key").unlink()
    async with running(destination, upstream_context) as bench:
        pass
    (mistaken,) = bench.said
    assert isinstance(mistaken, Mistaken)
    assert mistaken.error().code is Code.IDENTITY_MISSING
    assert str(destination / "key") in mistaken.message
    assert bench.log == []


async def test_told_to_stop_while_it_waits_for_an_identity_it_ends_without_a_word(
    destination: Path, upstream_context: ssl.SSLContext
) -> None:
    (destination / "key").unlink()
    async with running(destination, upstream_context, wait_for_identity=1000.0) as bench:
        await until(lambda: bool(bench.log))
        bench.channel.send(Reload())  # which it does anyway
        bench.channel.send(Stop())
    assert bench.said == []


@pytest.mark.parametrize("command", [Stop(), StopNow()])
async def test_told_to_stop_as_the_first_thing_it_ends(
    destination: Path, upstream_context: ssl.SSLContext, command: Message
) -> None:
    async with running(destination, upstream_context, first=command) as bench:
        pass
    assert bench.said == []


async def test_when_the_supervisor_is_gone_it_drains_and_tells_so_itself(
    destination: Path, upstream_context: ssl.SSLContext
) -> None:
    async with running(destination, upstream_context, drain_timeout=1000.0) as bench:
        await bench.hears(Ready())
        client = await bench.connect_and_greet()
        bench.channel._end.shutdown(socket.SHUT_WR)  # as seen from there, it is gone
        await until(lambda: bool(bench.logged(DrainingStarted)), PATIENCE)
        await client.send_all(b"still served")
        assert await client.receive_some() == b"still served"
        await client.aclose()
    assert len(bench.logged(SupervisorLost)) == 1
    assert bench.logged(DrainingStarted)[0].open_connections == 1
    assert bench.log[-1] == Stopped(ended_early=0)


async def test_when_the_supervisor_is_gone_before_the_first_word_it_ends(
    destination: Path, upstream_context: ssl.SSLContext
) -> None:
    async with running(destination, upstream_context, first=Reload()) as bench:
        bench.channel._end.shutdown(socket.SHUT_WR)
    assert bench.said == []
    assert [type(event) for event in bench.log] == [SupervisorLost]


async def test_sigterm_to_it_alone_drains_it_and_is_in_its_own_log(
    destination: Path, upstream_context: ssl.SSLContext
) -> None:
    async with running(destination, upstream_context) as bench:
        await bench.hears(Ready())
        os.kill(os.getpid(), signal.SIGTERM)
    assert bench.said[-1] == messages.Stopped(0)
    assert bench.log[-1] == Stopped(ended_early=0)


async def test_cancelled_it_leaves_nothing_open(
    destination: Path, upstream_context: ssl.SSLContext
) -> None:
    with trio.CancelScope() as scope:
        async with running(destination, upstream_context) as bench:
            await bench.hears(Ready())
            client = await bench.connect_and_greet()
            scope.cancel()
    assert scope.cancelled_caught
    await trio.aclose_forcefully(client)
    bench.channel.close()


async def test_every_worker_shows_the_certificate_that_the_supervisor_has_made(
    destination: Path, upstream_context: ssl.SSLContext, tmp_path: Path
) -> None:
    shown = LocalAuthority.open(tmp_path / "state").issue_server_certificate()
    (tmp_path / "state" / "dbproxy-ca.key").unlink()  # a worker alone would make another one
    context = ssl.create_default_context(cafile=shown.ca_file)
    options: dict[str, Any] = {"tunnel": False, "terminate": True, "first": Shown.of(shown)}
    async with running(destination, upstream_context, **options) as bench:
        await bench.hears(Ready())
        client = await trio.open_tcp_stream("127.0.0.1", bench.port)
        await client.send_all(SSL_REQUEST)
        assert await client.receive_some(1) == b"S"
        tls = trio.SSLStream(client, context, server_hostname="localhost")
        await tls.do_handshake()
        der = tls.getpeercert(binary_form=True)
        await trio.aclose_forcefully(tls)
        bench.channel.send(StopNow())
    assert der is not None
    assert der == shown.certificate.public_bytes(Encoding.DER)
