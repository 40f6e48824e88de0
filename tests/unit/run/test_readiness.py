"""Waiting until a connection works: a server that is there, rejects, comes back, hangs."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
from identities import Cluster, make_authority
from lab_client import until
from loopback import TLSStream, free_port, open_server, tls_handler, wait_for_end
from proxy_bench import ONLY_ECHOES, echo
from tls_peers import make_credentials, server_context

from dbproxy.errors import Code, IdentityError, UpstreamError
from dbproxy.events import Event, UpstreamAwaited
from dbproxy.proxy import DatabaseProxy, Prepared, serving
from dbproxy.run.readiness import wait_until_ready
from dbproxy.settings import Settings

from .conftest import MakeSettings

PATIENCE = 15.0
pytestmark = pytest.mark.usefixtures("no_descriptor_may_be_left")


@asynccontextmanager
async def prepared_for(settings: Settings) -> AsyncIterator[Prepared]:
    with trio.fail_after(PATIENCE):
        async with serving(DatabaseProxy(settings)) as prepared:
            yield prepared


def ignore(_event: Event) -> None:
    pass


async def test_a_server_that_is_content_is_good(settings_at_a_server: MakeSettings) -> None:
    said: list[bytes] = []

    async def listen(stream: TLSStream) -> None:
        with suppress(trio.BrokenResourceError):
            said.append(bytes(await stream.receive_some()))

    async with settings_at_a_server(listen) as settings, prepared_for(settings) as prepared:
        await wait_until_ready(prepared, 5.0, ignore)
    assert set(said) <= {b""}, "a session may have begun"


async def test_a_server_that_greets_is_good(settings_at_a_server: MakeSettings) -> None:
    async def greet(stream: TLSStream) -> None:
        await stream.send_all(b"hello")
        await wait_for_end(stream)

    async with settings_at_a_server(greet) as settings, prepared_for(settings) as prepared:
        await wait_until_ready(prepared, 5.0, ignore)


def rejecting(cluster: Cluster) -> ssl.SSLContext:
    """Takes no certificate but those of another authority."""
    credentials = make_credentials(cluster.host, "localhost", "127.0.0.1")
    return server_context(
        credentials, alpn=["teleport-postgres"], client_authority=make_authority("another")
    )


async def test_a_rejected_certificate_is_told(
    settings_at_a_server: MakeSettings, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbproxy.upstream.acceptance.REJECTION_TIME", 5.0)
    at_server = settings_at_a_server(echo, rejecting(cluster))
    async with at_server as settings, prepared_for(settings) as prepared:
        with pytest.raises(UpstreamError) as caught:
            await wait_until_ready(prepared, 0.0, ignore)
    assert caught.value.code is Code.CERTIFICATE_REJECTED


async def test_a_newer_certificate_is_waited_for_and_the_wait_has_an_end(
    settings_at_a_server: MakeSettings, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbproxy.upstream.acceptance.REJECTION_TIME", 5.0)
    events: list[Event] = []
    at_server = settings_at_a_server(echo, rejecting(cluster))
    async with at_server as settings, prepared_for(settings) as prepared:
        with pytest.raises(UpstreamError) as caught:
            await wait_until_ready(prepared, 0.5, events.append)
    assert caught.value.code is Code.CERTIFICATE_REJECTED
    (awaited,) = events
    assert isinstance(awaited, UpstreamAwaited)
    assert awaited.code is Code.CERTIFICATE_REJECTED
    assert 0 < awaited.remaining <= 0.5


async def test_a_server_that_comes_back_in_time_is_good(
    destination: Path, upstream_context: ssl.SSLContext
) -> None:
    port = free_port()
    events: list[Event] = []
    values: dict[str, Any] = {"destination_dir": destination, "tunnel": True, **ONLY_ECHOES}
    settings = Settings(proxy=f"127.0.0.1:{port}", **values)

    async def come_back(*, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        await until(lambda: bool(events), PATIENCE)
        handler = tls_handler(upstream_context, echo)
        await trio.serve_tcp(handler, port, host="127.0.0.1", task_status=task_status)

    async with prepared_for(settings) as prepared, trio.open_nursery() as nursery:
        nursery.start_soon(nursery.start, come_back)
        await wait_until_ready(prepared, PATIENCE, events.append)
        nursery.cancel_scope.cancel()
    assert [event.name for event in events] == ["waiting-for-upstream"]


async def test_a_server_that_says_nothing_is_not_waited_for_longer_than_allowed(
    destination: Path,
) -> None:
    async with open_server(wait_for_end) as port:
        values: dict[str, Any] = {"destination_dir": destination, "tunnel": True, **ONLY_ECHOES}
        settings = Settings(proxy=f"127.0.0.1:{port}", **values)
        async with prepared_for(settings) as prepared:
            with pytest.raises(UpstreamError, match=r"no connection .* within 0\.2 s"):
                await wait_until_ready(prepared, 0.2, ignore)


async def test_what_stays_wrong_is_not_tried_again(settings_at_a_server: MakeSettings) -> None:
    stranger = make_credentials(make_authority("stranger"), "localhost", "127.0.0.1")
    untrusted = server_context(stranger, alpn=["teleport-postgres"])
    events: list[Event] = []
    async with settings_at_a_server(echo, untrusted) as settings, prepared_for(settings) as ready:
        with pytest.raises(UpstreamError) as caught:
            await wait_until_ready(ready, PATIENCE, events.append)
    assert caught.value.code is Code.UPSTREAM_UNTRUSTED
    assert events == []


async def test_an_identity_that_is_not_valid_is_told(
    settings_at_a_server: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with settings_at_a_server() as settings, prepared_for(settings) as prepared:
        later = datetime(2999, 1, 1, tzinfo=UTC)

        class Later:
            @staticmethod
            def now(_zone: object) -> object:
                return later

        monkeypatch.setattr("dbproxy.run.readiness.datetime", Later)
        with pytest.raises(IdentityError) as caught:
            await wait_until_ready(prepared, PATIENCE, ignore)
    assert caught.value.code is Code.CERTIFICATE_EXPIRED


async def test_cancelling_leaves_no_socket(settings_at_a_server: MakeSettings) -> None:
    async with settings_at_a_server() as settings, prepared_for(settings) as prepared:
        for steps in range(12):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait_until_ready, prepared, 5.0, ignore)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
