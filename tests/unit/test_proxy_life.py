"""The whole proxy in this process: draining, stopping, embedding, and failing to start."""

import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from identities import (
    Cluster,
    subject_attributes,
    write_destination,
)
from loopback import open_server, tls_handler, wait_for_end
from proxy_bench import ONLY_ECHOES, PATIENCE, STARTUP, echo, running

from dbproxy import (
    Code,
    ConfigError,
    DatabaseProxy,
    DBProxyError,
    IdentityError,
    ListenError,
    Settings,
    UsageError,
    open_database_proxy,
)
from dbproxy.downstream import UnixAddress, open_listener
from dbproxy.events import (
    ConnectionClosed,
    DrainingStarted,
    Event,
    Listening,
    Stopped,
)
from dbproxy.relay import RelayEngine

pytestmark = pytest.mark.usefixtures("no_descriptor_may_be_left")


class TestStopping:
    """Draining, and not."""

    async def test_with_nothing_open_it_ends_at_once(
        self, destination: Path, upstream_context: ssl.SSLContext
    ) -> None:
        async with running(destination, upstream_context, drain_timeout=1000.0) as bench:
            pass
        assert bench.published(DrainingStarted) == [
            DrainingStarted(open_connections=0, grace=1000.0)
        ]
        assert bench.events[-1] == Stopped(ended_early=0)

    async def test_no_further_client_is_accepted_while_open_ones_go_on(
        self, destination: Path, upstream_context: ssl.SSLContext
    ) -> None:
        async with running(destination, upstream_context, drain_timeout=1000.0) as bench:
            client = await bench.connect_and_greet()
            bench.proxy.stop()
            bench.proxy.stop()
            await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(OSError, match="all attempts to connect"):
                await bench.connect()
            await client.send_all(b"still served")
            assert await client.receive_some() == b"still served"
            await client.aclose()
        assert bench.published(DrainingStarted)[0].open_connections == 1
        assert bench.events[-1] == Stopped(ended_early=0)

    async def test_nobody_is_accepted_while_something_in_the_background_takes_its_time_to_end(
        self, destination: Path, upstream_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ends = trio.Event()

        async def watch_slowly(*_arguments: object, **_options: object) -> None:
            with trio.CancelScope(shield=True):
                await ends.wait()

        monkeypatch.setattr("dbproxy.proxy.watch", watch_slowly)
        async with running(destination, upstream_context, drain_timeout=1000.0) as bench:
            bench.proxy.stop()
            await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(OSError, match="all attempts to connect"):
                await bench.connect()
            assert bench.published(DrainingStarted)
            assert not bench.published(Stopped)
            ends.set()
        assert bench.events[-1] == Stopped(ended_early=0)

    async def test_who_arrives_is_looked_out_for_while_the_relay_waits_for_events_itself(
        self, destination: Path, upstream_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        doors: list[object] = []

        def note(_engine: RelayEngine, listener: trio.socket.SocketType) -> None:
            doors.append(listener.getsockname())

        monkeypatch.setattr(RelayEngine, "look_out_for_clients", note)
        async with running(destination, upstream_context) as bench:
            client = await bench.connect_and_greet()
            assert doors == [client.socket.getpeername()]
            await client.aclose()

    async def test_a_unix_socket_that_another_one_opens_while_it_drains_is_left_alone(
        self, destination: Path, upstream_context: ssl.SSLContext, tmp_path: Path
    ) -> None:
        path = tmp_path / ".s.PGSQL.5432"
        async with running(
            destination, upstream_context, drain_timeout=1000.0, listen=f"unix://{path}"
        ) as bench:
            client = await trio.open_unix_socket(path)
            await client.send_all(STARTUP)
            assert await client.receive_some() == STARTUP
            bench.proxy.stop()
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not exists(path)
            another = await open_listener(UnixAddress(path))
            await client.aclose()
        async with another, await trio.open_unix_socket(path):
            assert bench.events[-1] == Stopped(ended_early=0)

    async def test_what_is_open_when_the_grace_is_over_is_ended(
        self, destination: Path, upstream_context: ssl.SSLContext
    ) -> None:
        async with running(destination, upstream_context, drain_timeout=0.05) as bench:
            client = await bench.connect_and_greet()
            bench.proxy.stop()
            await wait_for_end(client)
            await client.aclose()
        (closed,) = bench.published(ConnectionClosed)
        assert closed.record.outcome == "stopped"
        assert bench.events[-1] == Stopped(ended_early=1)

    async def test_at_once_means_at_once(
        self, destination: Path, upstream_context: ssl.SSLContext
    ) -> None:
        async with running(destination, upstream_context, drain_timeout=1000.0) as bench:
            client = await bench.connect_and_greet()
            bench.proxy.stop()
            await trio.testing.wait_all_tasks_blocked(0.01)
            bench.proxy.stop_now()
            await wait_for_end(client)
            await client.aclose()
        assert bench.events[-1] == Stopped(ended_early=1)

    async def test_stopped_before_it_serves_it_ends(
        self, destination: Path, upstream_context: ssl.SSLContext
    ) -> None:
        proxy = DatabaseProxy(
            Settings(destination_dir=destination, tunnel=True, proxy="127.0.0.1:1")
        )
        proxy.stop()
        with trio.fail_after(PATIENCE):
            await proxy.run()

    async def test_cancelled_it_leaves_neither_listener_nor_connection(
        self, destination: Path, upstream_context: ssl.SSLContext, tmp_path: Path
    ) -> None:
        path = tmp_path / ".s.PGSQL.5432"
        events: list[Event] = []
        async with open_server(tls_handler(upstream_context, echo)) as port:
            settings = Settings(
                destination_dir=destination,
                tunnel=True,
                proxy=f"127.0.0.1:{port}",
                listen=f"unix://{path}",
                **ONLY_ECHOES,
            )
            async with trio.open_nursery() as nursery:
                await nursery.start(DatabaseProxy(settings, events.append).run)
                client = await trio.open_unix_socket(path)
                await client.send_all(STARTUP)
                assert await client.receive_some() == STARTUP
                nursery.cancel_scope.cancel()
            await wait_for_end(client)
            await client.aclose()
        assert not exists(path)
        assert events[-1].name == "connection-closed"


class TestLibrary:
    """`open_database_proxy`, for embedding programs."""

    async def test_it_runs_for_the_length_of_the_block(
        self, destination: Path, upstream_context: ssl.SSLContext
    ) -> None:
        events: list[Event] = []
        async with open_server(tls_handler(upstream_context, echo)) as port:
            settings = Settings(
                destination_dir=destination, tunnel=True, proxy=f"127.0.0.1:{port}", **ONLY_ECHOES
            )
            async with open_database_proxy(settings, events.append) as started:
                host, _colon, number = started.address.rpartition(":")
                async with await trio.open_tcp_stream(host, int(number)) as client:
                    await client.send_all(STARTUP)
                    assert await client.receive_some() == STARTUP
        assert events[-1] == Stopped(ended_early=0)

    async def test_an_error_in_the_block_ends_it_and_goes_on_as_it_is(
        self, destination: Path
    ) -> None:
        settings = Settings(destination_dir=destination, tunnel=True, proxy="127.0.0.1:1")
        with pytest.raises(ZeroDivisionError):
            async with open_database_proxy(settings):
                raise ZeroDivisionError

    async def test_what_makes_it_fail_to_start_is_raised_as_it_is(self, tmp_path: Path) -> None:
        settings = Settings(destination_dir=tmp_path / "absent", proxy="127.0.0.1:1")
        with pytest.raises(IdentityError) as caught:
            async with open_database_proxy(settings):
                pytest.fail("it has started")
        assert caught.value.code is Code.IDENTITY_MISSING


class TestFailingToStart:
    """What the operator must know at once; the fixture looks that nothing is left open."""

    async def failure(self, destination: Path | None, **settings: Any) -> DBProxyError:
        given: dict[str, Any] = {"tunnel": True, "proxy": "127.0.0.1:1"} | settings
        events: list[Event] = []
        proxy = DatabaseProxy(Settings(destination_dir=destination, **given), events.append)
        with trio.fail_after(PATIENCE), pytest.raises(DBProxyError) as caught:
            await proxy.run()
        assert not any(isinstance(event, Listening) for event in events)
        return caught.value

    async def test_without_the_address_of_the_upstream(self, destination: Path) -> None:
        error = await self.failure(destination, proxy=None)
        assert isinstance(error, UsageError)
        assert "--proxy" in error.next_step

    @pytest.mark.parametrize("proxy", ["", "a..b", "host:port", "http://host"])
    async def test_with_an_address_that_makes_no_sense(self, proxy: str, destination: Path) -> None:
        assert isinstance(await self.failure(destination, proxy=proxy), UsageError)

    async def test_with_a_port_in_use(self, destination: Path) -> None:
        async with open_server(echo) as port:
            error = await self.failure(destination, port=port)
        assert isinstance(error, ListenError)
        assert error.code is Code.ADDRESS_IN_USE

    @pytest.mark.parametrize("terminate", [False, True])
    async def test_with_tls_on_a_unix_socket(
        self, terminate: bool, destination: Path, tmp_path: Path
    ) -> None:
        error = await self.failure(
            destination, tunnel=False, terminate=terminate, listen=f"unix://{tmp_path}/socket"
        )
        assert isinstance(error, UsageError)
        assert "--tunnel" in error.next_step

    async def test_with_an_address_in_use_that_listen_named(self, destination: Path) -> None:
        async with open_server(echo) as port:
            error = await self.failure(destination, listen=f"tcp://127.0.0.1:{port}")
        assert error.code is Code.ADDRESS_IN_USE
        assert error.next_step == "Choose another address with --listen."

    @pytest.mark.parametrize(
        "name", ["socket", ".s.PGSQL.", ".s.PGSQL.x", ".s.PGSQL.0", ".s.PGSQL.65536"]
    )
    async def test_with_a_unix_socket_that_no_client_would_find(
        self, name: str, destination: Path, tmp_path: Path
    ) -> None:
        error = await self.failure(destination, listen=f"unix://{tmp_path}/{name}")
        assert isinstance(error, UsageError)
        assert f"{tmp_path}/{name}" in error.message
        assert f"unix://{tmp_path}/.s.PGSQL.5432" in error.next_step

    async def test_with_a_directory_for_a_unix_socket(
        self, destination: Path, tmp_path: Path
    ) -> None:
        error = await self.failure(destination, listen=f"unix://{tmp_path}")
        assert f"unix://{tmp_path}/.s.PGSQL.5432" in error.next_step

    @pytest.mark.parametrize("listen", ["tcp://0.0.0.0:0", "nonsense", "tcp://[::1"])
    async def test_with_an_address_to_listen_on_that_is_refused(
        self, listen: str, destination: Path
    ) -> None:
        assert isinstance(await self.failure(destination, listen=listen), UsageError)

    async def test_with_a_certificate_for_another_service(self, destination: Path) -> None:
        error = await self.failure(destination, service="other")
        assert error.code is Code.SERVICE_MISMATCH

    async def test_with_a_protocol_that_is_not_carried(
        self, destination: Path, cluster: Cluster
    ) -> None:
        write_destination(destination, cluster, attributes=subject_attributes(protocol="unheard"))
        error = await self.failure(destination)
        assert error.code is Code.PROTOCOL_NOT_SUPPORTED

    async def test_with_a_state_directory_that_cannot_be_used(
        self, destination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blocked = tmp_path / "state"
        blocked.touch()
        error = await self.failure(destination, tunnel=False, terminate=True)
        assert error.code is Code.STATE_DIRECTORY_UNUSABLE

    async def test_with_a_configuration_that_does_not_exist(
        self, destination: Path, tmp_path: Path
    ) -> None:
        error = await self.failure(destination, config=tmp_path / "tbot.yaml")
        assert isinstance(error, ConfigError)
        assert error.code is Code.CONFIG_UNREADABLE


class TestConfiguration:
    """What tbot's own configuration says."""

    async def test_the_upstreams_address_comes_from_it(
        self, destination: Path, upstream_context: ssl.SSLContext, tmp_path: Path
    ) -> None:
        async with open_server(tls_handler(upstream_context, echo)) as port:
            config = tmp_path / "tbot.yaml"
            write_text(config, f"version: v2\nproxy_server: 127.0.0.1:{port}\n")
            settings = Settings(
                config=config, destination_dir=destination, tunnel=True, **ONLY_ECHOES
            )
            async with open_database_proxy(settings) as started:
                host, _colon, number = started.address.rpartition(":")
                async with await trio.open_tcp_stream(host, int(number)) as client:
                    await client.send_all(STARTUP)
                    assert await client.receive_some() == STARTUP


def write_text(path: Path, text: str) -> None:
    path.write_text(text)


def exists(path: Path) -> bool:
    return path.exists()
