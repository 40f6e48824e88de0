"""Whoever is refused is told why, in the words that the real client prints."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.x509.oid import NameOID
from database_clients import (
    Psql,
    refused_asyncpg,
    refused_psql,
    refused_psycopg,
    tls_context,
    with_psycopg,
)
from lab_client import (
    SSL_REQUEST,
    exactly,
    issue,
    read_message,
    routed,
    startup,
    until,
)
from loopback import open_server
from other_servers import open_ssh_server, open_web_server
from running_proxy import (
    PATIENCE,
    Destination,
    ProxyIn,
    RunningProxy,
    checked_modes,
    every_mode,
    running_proxy,
    tls_modes,
)
from stream_ends import receive_all

from dbproxy import Code, Mode
from dbproxy.events import ClosedBy, IdentityLoaded, IdentityReloadFailed
from dbproxy.lab import DatabaseResource, Lab, guide, open_lab
from dbproxy.lab.authority import Authority, CertificateAuthority, KeyPair
from dbproxy.lab.handshake import Handshake
from dbproxy.lab.keys import PrivateKey, new_ecdsa_key
from dbproxy.lab.postgres import EmbeddedPostgres

DENIED = "access to db denied. User does not have permissions. Confirm database user and name."
HIDDEN_BY_LIBPQ = "server sent an error response during SSL exchange"
"""What libpq makes of every error before TLS since November 2024 (CVE-2024-10977)."""
TLS_VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def select_one(connection: object) -> None:
    """A use of a connection that needs nothing but the connection."""


def save(pair: KeyPair, directory: Path) -> dict[str, Path]:
    """Write a key pair as libpq wants it; returns the parameters that name it."""
    directory.mkdir(exist_ok=True)
    files = {"sslcert": directory / "certificate.pem", "sslkey": directory / "key.pem"}
    for file, content in zip(files.values(), [pair.certificate_pem, pair.key_pem], strict=True):
        file.touch(mode=0o600)
        file.write_bytes(content)
    return files


async def error_fields(stream: trio.abc.ReceiveStream) -> dict[str, str]:
    """Read an ErrorResponse that is the last thing on the stream; its fields by their letter."""
    with trio.fail_after(PATIENCE):
        kind, body = await read_message(stream)
        assert kind == "E"
        assert await stream.receive_some(1) == b""
    return {field[:1].decode(): field[1:].decode() for field in body.split(b"\0") if field}


async def assert_refused(
    proxy: RunningProxy, psql: Psql, code: Code, reason: str, **changes: object
) -> None:
    """Both psql and psycopg must print the reason, and both records must have it.

    Before TLS only an old libpq prints it, and psql's need not be the one that psycopg brings.
    """
    for text in (
        await refused_psql(psql, proxy, **changes),
        await refused_psycopg(proxy, **changes),
    ):
        before_tls = proxy.started.mode is Mode.PASSTHROUGH and changes.get("sslmode") != "disable"
        if not (before_tls and HIDDEN_BY_LIBPQ in text):
            assert_printed(text, code, reason)
    for record in await proxy.all_closed(2):
        assert (record.outcome, record.code) == ("refused", code)
        assert record.reason is not None
        assert reason in record.reason


def assert_printed(text: str, code: Code, reason: str) -> None:
    """A client printed the whole ErrorResponse."""
    assert f"FATAL:  dbproxy: {reason}" in text
    assert f"[{code}]" in text
    assert "HINT:  " in text


# The client's certificate


async def test_without_certificate_teleport_sends_its_alert(
    proxy_in: ProxyIn, psql: Psql, lab: Lab
) -> None:
    nothing = {"sslcert": "/nonexistent", "sslkey": "/nonexistent"}
    async with proxy_in(Mode.PASSTHROUGH) as proxy:
        assert "alert certificate required" in await refused_psql(psql, proxy, **nothing)
        assert "alert certificate required" in await refused_psycopg(proxy, **nothing)
    assert not lab.audit.events


async def test_without_certificate_terminate_mode_says_so(
    proxy_in: ProxyIn, psql: Psql, lab: Lab
) -> None:
    nothing = {"sslcert": "/nonexistent", "sslkey": "/nonexistent"}
    async with proxy_in(Mode.TERMINATE) as proxy:
        reason = "the client showed no certificate"
        await assert_refused(proxy, psql, Code.CLIENT_CERTIFICATE_MISSING, reason, **nothing)
    assert not lab.handshakes, "nothing may be forwarded"


async def test_drivers_get_severity_sqlstate_and_hint(proxy_in: ProxyIn) -> None:
    async with proxy_in(Mode.TERMINATE) as proxy:
        error = await refused_asyncpg(proxy, sslcert=None)
    assert (error.kind, error.sqlstate) == ("InvalidAuthorizationSpecificationError", "28000")
    assert error.hint == (
        "Give the client the tlscert and key files of the tbot destination (PostgreSQL: sslcert and"
        " sslkey)."
    )


async def test_a_certificate_of_another_authority_gets_teleports_alert(
    proxy_in: ProxyIn, psql: Psql, lab: Lab, tmp_path: Path
) -> None:
    foreign = save(issue(lab, authority=Authority.create().user_ca), tmp_path / "foreign")
    async with proxy_in(Mode.PASSTHROUGH) as proxy:
        assert "alert unknown ca" in await refused_psql(psql, proxy, **foreign)
        assert "alert unknown ca" in await refused_psycopg(proxy, **foreign)


async def test_a_certificate_of_another_authority_is_named_in_terminate_mode(
    proxy_in: ProxyIn, psql: Psql, lab: Lab, tmp_path: Path
) -> None:
    foreign = save(issue(lab, authority=Authority.create().user_ca), tmp_path / "foreign")
    async with proxy_in(Mode.TERMINATE) as proxy:
        reason = (
            "the client's certificate (CN=bot-app) was issued by an authority that is not trusted"
        )
        await assert_refused(proxy, psql, Code.CLIENT_CERTIFICATE_REJECTED, reason, **foreign)
    assert not lab.handshakes, "nothing may be forwarded"


async def test_an_expired_client_certificate_is_named_in_terminate_mode(
    proxy_in: ProxyIn, psql: Psql, lab: Lab, tmp_path: Path
) -> None:
    expired = save(issue(lab, age=timedelta(hours=3)), tmp_path / "expired")
    async with proxy_in(Mode.TERMINATE) as proxy:
        reason = "the client's certificate (CN=bot-app) has expired"
        await assert_refused(proxy, psql, Code.CLIENT_CERTIFICATE_REJECTED, reason, **expired)


@pytest.mark.parametrize(
    ("service", "shown"), [("other", "the service 'other'"), ("", "no database service")]
)
async def test_a_certificate_for_another_service_is_refused_in_terminate_mode(
    service: str, shown: str, proxy_in: ProxyIn, psql: Psql, lab: Lab, tmp_path: Path
) -> None:
    other = save(issue(lab, routed(service=service)), tmp_path / "other")
    async with proxy_in(Mode.TERMINATE) as proxy:
        reason = f"the client's certificate is for {shown}, and this port is for 'example-server'"
        await assert_refused(proxy, psql, Code.CLIENT_CERTIFICATE_WRONG_SERVICE, reason, **other)


async def test_a_certificate_for_another_service_is_judged_by_teleport_in_passthrough_mode(
    proxy_in: ProxyIn, psql: Psql, lab: Lab, tmp_path: Path
) -> None:
    other = save(issue(lab, routed(service="other")), tmp_path / "other")
    async with proxy_in(Mode.PASSTHROUGH) as proxy:
        assert 'database "other" not found' in await refused_psql(psql, proxy, **other)


async def test_another_certificate_of_the_same_bot_is_accepted_in_terminate_mode(
    proxy_in: ProxyIn, lab: Lab, tmp_path: Path
) -> None:
    own = save(issue(lab), tmp_path / "own")
    async with proxy_in(Mode.TERMINATE) as proxy:
        await with_psycopg(proxy, select_one, **own)


async def test_a_client_that_does_not_trust_our_certificate_is_recorded(
    proxy_in: ProxyIn, psql: Psql, destination: Destination
) -> None:
    wrong_ca = destination.directory / "teleport-host-ca.crt"
    async with proxy_in(Mode.TERMINATE) as proxy:
        text = await refused_psql(psql, proxy, sslrootcert=wrong_ca)
        record = await proxy.record()
    assert "certificate verify failed" in text
    assert (record.outcome, record.code) == ("refused", Code.CLIENT_TLS_FAILED)


# What the role allows


@pytest.mark.parametrize("outside", [{"user": "bob"}, {"dbname": "secret"}])
async def test_a_user_or_database_outside_the_role_is_denied_in_teleports_words(
    outside: dict[str, str], proxy_in: ProxyIn, psql: Psql
) -> None:
    """Teleport sends neither severity nor SQLSTATE; psql and psycopg print the bare message."""
    async with proxy_in(Mode.PASSTHROUGH) as proxy:
        for text in (
            await refused_psql(psql, proxy, **outside),
            await refused_psycopg(proxy, **outside),
        ):
            assert text.strip().endswith(f"failed: {DENIED}")
        assert {record.outcome for record in await proxy.all_closed(2)} == {"relayed"}


async def test_asyncpg_copes_with_a_denial_without_sqlstate(proxy_in: ProxyIn) -> None:
    async with proxy_in(Mode.PASSTHROUGH) as proxy:
        error = await refused_asyncpg(proxy, dbname="secret")
    assert (error.kind, error.text, error.sqlstate) == ("UnknownPostgresError", DENIED, None)


# TLS or not


@tls_modes
async def test_a_plaintext_client_is_told_that_the_port_needs_tls(
    mode: Mode, proxy_in: ProxyIn, psql: Psql, lab: Lab
) -> None:
    async with proxy_in(mode) as proxy:
        reason = "the client connected without TLS, and this port requires it"
        await assert_refused(proxy, psql, Code.CLIENT_NOT_TLS, reason, sslmode="disable")
        error = await refused_asyncpg(proxy, sslmode="disable")
    assert error.sqlstate == "28000"
    assert not lab.handshakes, "nothing may be forwarded"


@pytest.mark.parametrize("sslmode", ["allow", "prefer"])
async def test_a_client_that_can_do_without_tls_gets_through_in_tunnel_mode(
    sslmode: str, proxy_in: ProxyIn
) -> None:
    async with proxy_in(Mode.TUNNEL) as proxy:
        await with_psycopg(proxy, select_one, sslmode=sslmode)


async def test_a_client_that_insists_on_tls_says_so_itself_in_tunnel_mode(
    proxy_in: ProxyIn, psql: Psql, lab: Lab
) -> None:
    async with proxy_in(Mode.TUNNEL) as proxy:
        text = await refused_psql(psql, proxy, sslmode="require")
        assert "server does not support SSL, but SSL was required" in text
        error = await refused_asyncpg(proxy, sslmode="require")
        assert "rejected SSL upgrade" in error.text
        for record in await proxy.all_closed(2):
            assert (record.outcome, record.code) == ("abandoned", Code.CLIENT_TLS_ON_TUNNEL)
    assert not lab.handshakes


async def test_direct_tls_gets_an_alert_in_tunnel_mode(proxy_in: ProxyIn) -> None:
    async with proxy_in(Mode.TUNNEL) as proxy:
        text = await refused_psycopg(proxy, sslmode="require", sslnegotiation="direct")
        record = await proxy.record()
    assert "alert handshake failure" in text
    assert (record.outcome, record.code) == ("refused", Code.CLIENT_TLS_ON_TUNNEL)


# The upstream


@every_mode
async def test_an_upstream_that_is_down_is_named(
    mode: Mode, proxy_in: ProxyIn, lab: Lab, psql: Psql
) -> None:
    async with proxy_in(mode) as proxy:
        await lab.stop_proxy()
        reason = (
            f"cannot connect to the Teleport Proxy at {lab.address}: connection refused, nothing"
            " listens there"
        )
        await assert_refused(proxy, psql, Code.UPSTREAM_UNREACHABLE, reason)
        assert {record.closed_by for record in proxy.records} == {ClosedBy.UPSTREAM}


async def test_what_libpq_hides_was_sent_all_the_same(proxy_in: ProxyIn, lab: Lab) -> None:
    async with proxy_in(Mode.PASSTHROUGH) as proxy, await proxy.connect() as client:
        await lab.stop_proxy()
        await client.send_all(SSL_REQUEST)
        fields = await error_fields(client)
    assert fields == {
        "S": "FATAL",
        "V": "FATAL",
        "C": "08001",
        "M": f"dbproxy: cannot connect to the Teleport Proxy at {lab.address}: connection refused,"
        " nothing listens there [upstream-unreachable]",
        "H": "The Teleport Proxy cannot be reached from this host right now; try again later.",
    }


@every_mode
async def test_an_upstream_with_an_untrusted_certificate_gets_nothing(
    mode: Mode, proxy_in: ProxyIn, lab: Lab, psql: Psql
) -> None:
    async with proxy_in(mode, proxy_ca=None) as proxy:
        reason = (
            f"the certificate that the Teleport Proxy at {lab.address} showed"
            " (CN=lab.example.com) was issued by an authority that is not trusted"
        )
        await assert_refused(proxy, psql, Code.UPSTREAM_UNTRUSTED, reason)
    await until(lambda: lab.connections == 0)
    assert {facts.alpn for facts in lab.handshakes} == {None}, "no handshake may succeed"


async def test_insecure_accepts_an_upstream_with_an_untrusted_certificate(
    proxy_in: ProxyIn,
) -> None:
    async with proxy_in(Mode.TUNNEL, proxy_ca=None, insecure=True) as proxy:
        await with_psycopg(proxy, select_one)


@asynccontextmanager
async def lab_with_certificate(
    names: list[str], directory: Path, *, age: timedelta = timedelta()
) -> AsyncIterator[tuple[Lab, Path]]:
    """A lab whose web certificate is for these names, and the file of its authority."""
    authority = CertificateAuthority.create("Another Web CA")
    ca_file = directory / "another-ca.pem"
    ca_file.write_bytes(authority.pem)
    key, now = new_ecdsa_key(), datetime.now(UTC)
    certificate = authority.issue(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web")]),
        key.public_key(),
        not_before=now - age - timedelta(minutes=1),
        not_after=now - age + timedelta(minutes=1),
        names=names,
    )
    pair = KeyPair(key, certificate)
    async with open_lab(databases=[], directory=directory / "web", web_certificate=pair) as lab:
        yield lab, ca_file


@checked_modes
async def test_an_upstream_with_a_certificate_for_another_name_is_refused(
    mode: Mode, destination: Destination, psql: Psql, tmp_path: Path
) -> None:
    async with (
        lab_with_certificate(["other.example.com"], tmp_path) as (lab, ca_file),
        running_proxy(mode, lab, destination.directory, proxy_ca=ca_file) as proxy,
    ):
        reason = (
            f"the certificate that the Teleport Proxy at {lab.address} showed is for"
            " other.example.com, not for 127.0.0.1"
        )
        await assert_refused(proxy, psql, Code.UPSTREAM_NAME_MISMATCH, reason)


@checked_modes
async def test_an_upstream_with_an_expired_certificate_is_refused(
    mode: Mode, destination: Destination, psql: Psql, tmp_path: Path
) -> None:
    async with (
        lab_with_certificate(["127.0.0.1"], tmp_path, age=timedelta(days=2)) as (lab, ca_file),
        running_proxy(mode, lab, destination.directory, proxy_ca=ca_file) as proxy,
    ):
        reason = (
            f"the certificate that the Teleport Proxy at {lab.address} showed (CN=web) has expired"
        )
        await assert_refused(proxy, psql, Code.UPSTREAM_CERTIFICATE_EXPIRED, reason)


@every_mode
async def test_an_upstream_that_does_not_know_our_alpn_is_named(
    mode: Mode, destination: Destination, psql: Psql, tmp_path: Path
) -> None:
    async with (
        open_lab(databases=[], directory=tmp_path / "old", alpn=["teleport-mysql"]) as lab,
        running_proxy(mode, lab, destination.directory) as proxy,
    ):
        reason = (
            f"the server at {lab.address} closed the connection during the TLS handshake without"
            " an alert, as a Teleport Proxy does that knows none of the ALPN protocols"
            " teleport-postgres-ping, teleport-postgres"
        )
        await assert_refused(proxy, psql, Code.ALPN_NOT_SUPPORTED, reason)


@checked_modes
@pytest.mark.parametrize("version", TLS_VERSIONS)
async def test_our_certificate_rejected_by_another_cluster_is_named(
    mode: Mode,
    version: ssl.TLSVersion,
    destination: Destination,
    postgres: EmbeddedPostgres,
    psql: Psql,
    tmp_path: Path,
) -> None:
    """In TLS 1.3 the alert arrives only after our own handshake has succeeded."""
    database = DatabaseResource(guide.SERVICE, postgres.address)
    async with (
        open_lab(
            databases=[database], directory=tmp_path / "other", maximum_tls_version=version
        ) as lab,
        running_proxy(mode, lab, destination.directory) as proxy,
    ):
        reason = (
            f"the Teleport Proxy at {lab.address} rejected our client certificate with the TLS"
            " alert unknown_ca"
        )
        await assert_refused(proxy, psql, Code.CERTIFICATE_REJECTED, reason)


async def test_a_client_of_another_cluster_sees_that_it_cannot_trust_it(
    destination: Destination, psql: Psql, tmp_path: Path
) -> None:
    async with (
        open_lab(databases=[], directory=tmp_path / "other") as lab,
        running_proxy(Mode.PASSTHROUGH, lab, destination.directory) as proxy,
    ):
        assert "certificate verify failed" in await refused_psql(psql, proxy)


@checked_modes
async def test_a_silent_close_after_the_handshake_is_explained(
    mode: Mode, destination: Destination, psql: Psql, tmp_path: Path, lab: Lab
) -> None:
    async def close(stream: trio.abc.Stream, _facts: Handshake) -> None:
        await exactly(stream, 8)

    async with (
        open_lab(databases=[], directory=tmp_path / "silent", handler=close) as silent,
        running_proxy(mode, silent, destination.directory) as proxy,
    ):
        silent.authority.trusted_user_cas = lab.authority.trusted_user_cas
        reason = (
            f"the Teleport Proxy at {silent.address} closed the connection before it sent anything"
        )
        await assert_refused(proxy, psql, Code.UPSTREAM_CLOSED_EARLY, reason)


@asynccontextmanager
async def server(answer: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Something that is no Teleport Proxy; yields its address."""

    async def serve(stream: trio.abc.Stream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                await stream.receive_some()
                await stream.send_all(answer)
                await stream.receive_some()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        if context is None:
            nursery.start_soon(trio.serve_listeners, serve, listeners)
        else:
            tls = [trio.SSLListener(listener, context) for listener in listeners]
            nursery.start_soon(trio.serve_listeners, serve, tls)
        yield address
        nursery.cancel_scope.cancel()


@checked_modes
async def test_an_upstream_that_speaks_no_tls_is_named(
    mode: Mode, proxy_in: ProxyIn, psql: Psql
) -> None:
    async with (
        server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address,
        proxy_in(mode, proxy=address) as proxy,
    ):
        reason = f"what answers at {address} looks like a web server without TLS (plain HTTP)"
        await assert_refused(proxy, psql, Code.UPSTREAM_NOT_TELEPORT, reason)


@checked_modes
async def test_an_ssh_server_is_called_one(mode: Mode, proxy_in: ProxyIn, psql: Psql) -> None:
    async with open_ssh_server() as port, proxy_in(mode, proxy=f"127.0.0.1:{port}") as proxy:
        reason = f"what answers at 127.0.0.1:{port} looks like an SSH server"
        await assert_refused(proxy, psql, Code.UPSTREAM_NOT_TELEPORT, reason)


@checked_modes
async def test_a_postgresql_server_is_called_one(
    mode: Mode, proxy_in: ProxyIn, psql: Psql, postgres: EmbeddedPostgres
) -> None:
    async with (
        open_server(partial(forward, postgres)) as port,
        proxy_in(mode, proxy=f"127.0.0.1:{port}") as proxy,
    ):
        reason = f"what answers at 127.0.0.1:{port} looks like a PostgreSQL server"
        await assert_refused(proxy, psql, Code.UPSTREAM_NOT_TELEPORT, reason)


async def forward(postgres: EmbeddedPostgres, near: trio.SocketStream) -> None:
    """PostgreSQL at a TCP port; the embedded one has a Unix socket only."""
    path = postgres.address.removeprefix("unix://")
    async with (
        near,
        await trio.open_unix_socket(path) as far,
        trio.open_nursery() as nursery,
    ):

        async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
            with suppress(trio.BrokenResourceError):
                while data := await source.receive_some():
                    await sink.send_all(data)
            nursery.cancel_scope.cancel()

        nursery.start_soon(copy, near, far)
        nursery.start_soon(copy, far, near)


def trusted_context(lab: Lab, directory: Path) -> ssl.SSLContext:
    """A server's, with a certificate as the lab's own Proxy has."""
    files = save(lab.authority.issue_web_certificate(), directory)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files["sslcert"], files["sslkey"])
    return context


@checked_modes
async def test_a_web_page_is_called_one(
    mode: Mode, proxy_in: ProxyIn, psql: Psql, lab: Lab, tmp_path: Path
) -> None:
    context = trusted_context(lab, tmp_path / "web")
    async with (
        open_web_server(context) as port,
        proxy_in(mode, proxy=f"127.0.0.1:{port}", no_discovery=False) as proxy,
    ):
        reason = (
            f"the connection upgrade at the Teleport Proxy 127.0.0.1:{port} failed: it answered"
            " 404 Not Found: it is a web server, but no Teleport Proxy"
        )
        await assert_refused(proxy, psql, Code.UPGRADE_FAILED, reason)


@checked_modes
async def test_a_server_without_alpn_is_named(
    mode: Mode, proxy_in: ProxyIn, psql: Psql, lab: Lab, tmp_path: Path
) -> None:
    context = trusted_context(lab, tmp_path / "web")
    async with (
        server(b"", context) as address,
        proxy_in(mode, proxy=address, connection_upgrade="never", no_discovery=True) as proxy,
    ):
        reason = (
            f"the server at {address} completed the TLS handshake but chose none of the ALPN"
            " protocols teleport-postgres-ping, teleport-postgres"
        )
        await assert_refused(proxy, psql, Code.ALPN_NOT_SUPPORTED, reason)


async def test_an_upstream_that_accepts_and_stays_silent_runs_into_the_timeout(
    proxy_in: ProxyIn, psql: Psql
) -> None:
    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        async with listener, proxy_in(Mode.TUNNEL, proxy=address, handshake_timeout=0.1) as proxy:
            reason = f"the TLS handshake to the Teleport Proxy at {address} took longer than 0.1 s"
            await assert_refused(proxy, psql, Code.UPSTREAM_UNREACHABLE, reason)
        nursery.cancel_scope.cancel()


# Our own identity


async def test_an_identity_that_expires_while_running_is_named(
    lab: Lab, destination: Destination, psql: Psql
) -> None:
    await destination.renew(certificate_ttl="3s")
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(running_proxy(mode, lab, destination.directory))
            for mode in Mode
        ]
        expiry = proxies[0].of(IdentityLoaded)[0].not_valid_after
        await trio.sleep((expiry - datetime.now(UTC)).total_seconds() + 0.01)
        for proxy in proxies:
            reason = f"the certificate in {destination.directory / 'tlscert'} expired at "
            await assert_refused(proxy, psql, Code.CERTIFICATE_EXPIRED, reason)


async def test_a_renewal_for_another_service_is_not_taken_over(
    postgres: EmbeddedPostgres, rsa_keys: tuple[PrivateKey, PrivateKey], psql: Psql, tmp_path: Path
) -> None:
    databases = [DatabaseResource(name, postgres.address) for name in (guide.SERVICE, "other")]
    async with open_lab(databases=databases, directory=tmp_path / "lab") as lab:
        lab.create_role(guide.role_yaml())
        destination = Destination(tmp_path / "machine-id", lab, rsa_keys)
        await destination.renew()
        async with (
            running_proxy(Mode.TERMINATE, lab, destination.directory) as terminate,
            running_proxy(Mode.TUNNEL, lab, destination.directory) as tunnel,
        ):
            await destination.renew(service="other")
            reason = "the client's certificate is for the service 'other', and this port is for"
            await assert_refused(terminate, psql, Code.CLIENT_CERTIFICATE_WRONG_SERVICE, reason)
            await with_psycopg(tunnel, select_one)  # with the last good one
            for proxy in (terminate, tunnel):
                (failure,) = proxy.of(IdentityReloadFailed)
                assert (failure.code, failure.generation) == (Code.SERVICE_MISMATCH, 1)


# Clients that are none


@every_mode
async def test_a_bare_tcp_probe_costs_nothing_upstream(
    mode: Mode, proxy_in: ProxyIn, lab: Lab
) -> None:
    async with proxy_in(mode) as proxy:
        async with await proxy.connect():
            pass
        record = await proxy.record()
    assert (record.outcome, record.code, record.reason) == ("probe", None, None)
    assert record.closed_by is ClosedBy.CLIENT
    assert not lab.handshakes


@every_mode
@pytest.mark.parametrize(
    ("sent", "seen", "begins"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "an HTTP request", b"HTTP/1.1 400 "),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "an SSH greeting", b"dbproxy: "),
        (b"*1\r\n$4\r\nPING\r\n", "a Redis command", b"-ERR dbproxy: "),
    ],
    ids=["http", "ssh", "redis"],
)
async def test_another_protocol_is_told_in_its_own_words(
    mode: Mode, sent: bytes, seen: str, begins: bytes, proxy_in: ProxyIn, lab: Lab
) -> None:
    async with proxy_in(mode) as proxy, await proxy.connect() as client:
        await client.send_all(sent)
        await client.send_eof()
        with trio.fail_after(PATIENCE):
            answer = await receive_all(client)
        record = await proxy.record()
    reason = f"this port carries PostgreSQL, and the client began with {seen}"
    assert answer.startswith(begins)
    assert f"dbproxy: {reason} [client-protocol-error]".encode() in answer
    assert (record.outcome, record.code) == ("refused", Code.CLIENT_PROTOCOL_ERROR)
    assert not lab.handshakes


@every_mode
@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        (b"\xff\xfeq\x00\x01\x02\x03\x04", "bytes of another protocol (0xfffe710001020304)"),
        (b"\x00\x00\x00\x00\x00\x00\x00\x00", "bytes of another protocol (0x0000000000000000)"),
    ],
    ids=["noise", "zeros"],
)
async def test_bytes_that_nobody_knows_are_shown(
    mode: Mode, sent: bytes, seen: str, proxy_in: ProxyIn, lab: Lab
) -> None:
    async with proxy_in(mode) as proxy, await proxy.connect() as client:
        await client.send_all(sent)
        fields = await error_fields(client)
        await client.aclose()
        record = await proxy.record()
    reason = f"this port carries PostgreSQL, and the client began with {seen}"
    assert fields["M"] == f"dbproxy: {reason} [client-protocol-error]"
    assert fields["C"] == "08P01"
    assert (record.outcome, record.code) == ("refused", Code.CLIENT_PROTOCOL_ERROR)
    assert not lab.handshakes


@every_mode
async def test_a_client_that_stalls_in_its_first_message_is_told(
    mode: Mode, proxy_in: ProxyIn
) -> None:
    async with (
        proxy_in(mode, prologue_timeout=0.1) as proxy,
        await proxy.connect() as client,
    ):
        await client.send_all(startup(user="alice")[:9])
        fields = await error_fields(client)
        await client.aclose()
        record = await proxy.record()
    assert fields["C"] == "08P01"
    assert "did not complete its first message within 0.1 s" in fields["M"]
    assert (record.outcome, record.code) == ("refused", Code.CLIENT_STALLED)


@every_mode
async def test_a_client_that_says_nothing_is_told_as_one_that_waits_to_be_greeted(
    mode: Mode, proxy_in: ProxyIn, lab: Lab
) -> None:
    async with (
        proxy_in(mode, prologue_timeout=0.1) as proxy,
        await proxy.connect() as client,
    ):
        with trio.fail_after(PATIENCE):
            answer = await receive_all(client)
        await client.aclose()
        record = await proxy.record()
    assert answer[3:5] == b"\0\xff"  # as MySQL's server says no
    assert b"this port carries PostgreSQL, and the client said nothing [client-stalled]" in answer
    assert record.code is Code.CLIENT_STALLED
    assert not lab.handshakes


async def test_a_client_that_stalls_in_the_tls_handshake_is_closed(proxy_in: ProxyIn) -> None:
    async with (
        proxy_in(Mode.TERMINATE, prologue_timeout=0.1) as proxy,
        await proxy.connect() as client,
    ):
        await client.send_all(SSL_REQUEST)
        assert await exactly(client, 1) == b"S"
        with trio.fail_after(PATIENCE):
            assert await client.receive_some() == b""
        await client.aclose()
        record = await proxy.record()
    assert record.code is Code.CLIENT_STALLED


async def test_a_client_that_leaves_inside_tls_is_not_taken_for_a_probe(
    proxy_in: ProxyIn,
) -> None:
    async with proxy_in(Mode.TERMINATE) as proxy:
        async with await proxy.connect() as client:
            await client.send_all(SSL_REQUEST)
            assert await exactly(client, 1) == b"S"
            tls = trio.SSLStream(client, tls_context(proxy), server_hostname="localhost")
            await tls.do_handshake()
        record = await proxy.record()
    assert (record.outcome, record.closed_by) == ("abandoned", ClosedBy.CLIENT)
