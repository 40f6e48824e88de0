"""The whole proxy in this process: what it serves, in each mode, and what it says."""

import ssl
import stat
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from identities import (
    Cluster,
    certificate_pem,
    key_pem,
    make_authority,
    make_certificate,
    make_key,
    write_destination,
)
from loopback import TLSStream
from proxy_bench import SSL_REQUEST, STARTUP, running
from tls_peers import Credentials, client_context, make_credentials, server_context

from dbproxy import (
    DatabaseProxy,
    Mode,
    Settings,
    Started,
)
from dbproxy.errors import UsageError
from dbproxy.events import (
    ConnectionClosed,
    IdentityLoaded,
    InsecureChoice,
    Listening,
)


class TestServing:
    """From start to stop."""

    async def test_a_client_reaches_the_upstream(
        self, destination: Path, upstream_context: ssl.SSLContext
    ) -> None:
        async with (
            running(destination, upstream_context) as bench,
            await bench.connect_and_greet() as client,
        ):
            await client.send_all(b"question")
            assert await client.receive_some() == b"question"
        names = [event.name for event in bench.events]
        assert names == [
            "identity-loaded",
            "insecure-choice",
            "listening",
            "connection-opened",
            "upstream-connected",
            *sorted(["connection-closed", "draining"], key=names.index),
            "stopped",
        ]
        (closed,) = bench.published(ConnectionClosed)
        assert closed.record.outcome == "relayed"
        assert closed.record.bytes_up == closed.record.bytes_down == len(STARTUP) + 8

    async def test_what_a_client_needs_to_know_is_reported(
        self, destination: Path, upstream_context: ssl.SSLContext
    ) -> None:
        async with running(destination, upstream_context) as bench:
            started = bench.started
            port = started.address.rpartition(":")[2]
            (listening,) = bench.published(Listening)
        assert started == Started(
            address=f"127.0.0.1:{port}",
            mode=Mode.TUNNEL,
            service="example-server",
            protocol="postgres",
            database_user="alice",
            database_name="example",
            ca_file=None,
            certificate_file=None,
            key_file=None,
            connect_command=(
                f"psql 'host=localhost port={port} user=alice dbname=example sslmode=disable'"
            ),
        )
        assert listening.address == started.address

    async def test_in_passthrough_clients_are_told_the_destinations_files(
        self, destination: Path, upstream_context: ssl.SSLContext
    ) -> None:
        async with running(destination, upstream_context, tunnel=False) as bench:
            started = bench.started
        assert started.mode is Mode.PASSTHROUGH
        assert started.ca_file == destination / "teleport-host-ca.crt"
        assert started.certificate_file == destination / "tlscert"
        assert started.key_file == destination / "key"
        assert f"sslkey={destination}/key" in started.connect_command

    async def test_examples_name_the_user_and_database_asked_for(
        self, destination: Path, upstream_context: ssl.SSLContext
    ) -> None:
        async with running(destination, upstream_context, db_user="bob", db_name="other") as bench:
            started = bench.started
        assert (started.database_user, started.database_name) == ("bob", "other")
        assert "user=bob dbname=other" in started.connect_command

    async def test_in_terminate_a_local_authority_vouches_for_the_listener(
        self,
        destination: Path,
        upstream_context: ssl.SSLContext,
        tmp_path: Path,
        cluster: Cluster,
    ) -> None:
        credentials = make_holder(destination, cluster)
        async with running(destination, upstream_context, tunnel=False, terminate=True) as bench:
            assert bench.started.ca_file == tmp_path / "state" / "dbproxy-ca.crt"
            context = client_context(credentials=credentials)
            context.load_verify_locations(cafile=str(bench.started.ca_file))
            context.verify_mode, context.check_hostname = ssl.CERT_REQUIRED, True
            await bench.converse_inside_tls(context)

    async def test_in_terminate_a_given_certificate_is_shown(
        self, destination: Path, upstream_context: ssl.SSLContext, tmp_path: Path
    ) -> None:
        authority = make_authority("company")
        server = make_credentials(authority, "localhost")
        cert, key = write_pair(tmp_path, server)
        async with (
            running(
                destination,
                upstream_context,
                tunnel=False,
                terminate=True,
                server_cert=cert,
                server_key=key,
            ) as bench,
            await bench.connect() as transport,
        ):
            await transport.send_all(SSL_REQUEST)
            assert await transport.receive_some(1) == b"S"
            tls = TLSStream(transport, client_context(authority), server_side=False)
            await tls.do_handshake()
        assert not (tmp_path / "state").exists()

    async def test_a_unix_socket_is_there_while_it_runs(
        self, destination: Path, upstream_context: ssl.SSLContext, tmp_path: Path
    ) -> None:
        path = tmp_path / ".s.PGSQL.5433"
        async with running(destination, upstream_context, listen=f"unix://{path}") as bench:
            assert mode_of(path) == stat.S_IFSOCK | 0o600
            assert bench.started.address == f"unix://{path}"
            assert f"host={tmp_path} port=5433" in bench.started.connect_command
            async with await trio.open_unix_socket(path) as client:
                await client.send_all(STARTUP)
                assert await client.receive_some() == STARTUP
        assert not exists(path)

    async def test_a_renewal_can_be_asked_for(
        self, destination: Path, upstream_context: ssl.SSLContext, cluster: Cluster
    ) -> None:
        async with running(destination, upstream_context) as bench:
            write_destination(destination, cluster)
            await bench.proxy.reload()
            assert [event.generation for event in bench.published(IdentityLoaded)] == [1, 2]

    async def test_before_the_start_a_reload_has_nothing_to_do(self) -> None:
        await DatabaseProxy(Settings()).reload()


def make_holder(destination: Path, cluster: Cluster) -> Credentials:
    """The destination's own certificate and key, written by this test."""
    key = make_key()
    certificate = make_certificate(cluster.user, key)
    write_destination(destination, cluster, key=key, certificate=certificate)
    return Credentials(certificate, key)


def mode_of(path: Path) -> int:
    return path.stat().st_mode


def exists(path: Path) -> bool:
    return path.exists()


def write_pair(directory: Path, credentials: Credentials) -> tuple[Path, Path]:
    cert, key = directory / "server.crt", directory / "server.key"
    cert.write_bytes(certificate_pem(credentials.certificate))
    key.write_bytes(key_pem(credentials.key))
    return cert, key


class TestInsecureChoices:
    """They are loud."""

    async def test_a_port_that_every_local_user_can_use_is_an_event(
        self, destination: Path, upstream_context: ssl.SSLContext
    ) -> None:
        async with running(destination, upstream_context) as bench:
            (choice,) = bench.published(InsecureChoice)
            assert choice.option == "--tunnel"
            assert f"every user of this host can use {bench.started.address}" in choice.consequence

    @pytest.mark.parametrize("settings", [{"tunnel": False}, {"tunnel": False, "terminate": True}])
    async def test_a_port_for_holders_of_the_certificate_is_none(
        self, settings: dict[str, Any], destination: Path, upstream_context: ssl.SSLContext
    ) -> None:
        async with running(destination, upstream_context, **settings) as bench:
            assert not bench.published(InsecureChoice)

    async def test_a_socket_with_permissions_is_none(
        self, destination: Path, upstream_context: ssl.SSLContext, tmp_path: Path
    ) -> None:
        listen = f"unix://{tmp_path}/.s.PGSQL.5432"
        async with running(destination, upstream_context, listen=listen) as bench:
            assert not bench.published(InsecureChoice)

    async def test_trusting_anybody_is_an_event(self, destination: Path) -> None:
        stranger = server_context(make_credentials(None, "stranger"), alpn=["teleport-postgres"])
        async with (
            running(destination, stranger, insecure=True) as bench,
            await bench.connect_and_greet(),
        ):
            pass
        choice, _tunnel = bench.published(InsecureChoice)
        assert choice.option == "--insecure"

    async def test_a_pin_holds_although_trusting_anybody_and_the_event_says_so(
        self, destination: Path
    ) -> None:
        stranger = server_context(make_credentials(None, "stranger"), alpn=["teleport-postgres"])
        pin = f"sha256:{bytes(32).hex()}"
        async with (
            running(destination, stranger, insecure=True, proxy_pin=(pin,)) as bench,
            await bench.connect() as client,
        ):
            await client.send_all(STARTUP)
            assert b"[upstream-pin-mismatch]" in await client.receive_some()
        choice, _tunnel = bench.published(InsecureChoice)
        assert "only the public key is compared" in choice.consequence

    @pytest.mark.parametrize(
        "settings",
        [{"proxy_pin": ("sha256:nonsense",)}, {"server_name": "no:name"}],
        ids=["pin", "server name"],
    )
    async def test_a_malformed_choice_ends_the_start(
        self, settings: dict[str, Any], destination: Path, upstream_context: ssl.SSLContext
    ) -> None:
        with pytest.RaisesGroup(UsageError, flatten_subgroups=True):
            async with running(destination, upstream_context, **settings):
                pass

    async def test_without_it_a_stranger_is_refused(self, destination: Path) -> None:
        stranger = server_context(make_credentials(None, "stranger"), alpn=["teleport-postgres"])
        async with running(destination, stranger) as bench, await bench.connect() as client:
            await client.send_all(STARTUP)
            assert b"[upstream-self-signed]" in await client.receive_some()
        assert [it.option for it in bench.published(InsecureChoice)] == ["--tunnel"]

    async def test_a_named_authority_is_trusted(self, destination: Path, tmp_path: Path) -> None:
        authority = make_authority("private")
        file = tmp_path / "private.pem"
        write(file, authority.pem)
        context = server_context(
            make_credentials(authority, "127.0.0.1"), alpn=["teleport-postgres"]
        )
        async with (
            running(destination, context, proxy_ca=file) as bench,
            await bench.connect_and_greet(),
        ):
            pass

    async def test_listening_for_other_hosts_is_an_event(
        self, destination: Path, upstream_context: ssl.SSLContext
    ) -> None:
        async with running(
            destination, upstream_context, listen="tcp://127.0.0.1:0", unsafe_listen_anywhere=True
        ) as bench:
            pass
        choice, _tunnel = bench.published(InsecureChoice)
        assert choice.option == "--unsafe-listen-anywhere"


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
