"""The lab against a real PostgreSQL, seen by clients that share no code with it."""

from __future__ import annotations

import ssl
import struct
from datetime import timedelta
from pathlib import Path

import pytest
import trio
from lab_client import (
    GSSENC_REQUEST,
    PING_ALPN,
    PLAIN_ALPN,
    SSL_REQUEST,
    Client,
    FramedStream,
    at_end,
    exactly,
    issue,
    open_echo_lab,
    query,
    read_message,
    read_until,
    routed,
    startup,
    until,
)

from dbproxy.lab import DatabaseResource, Lab, guide, open_lab
from dbproxy.lab.authority import Authority, KeyPair
from dbproxy.lab.postgres import EmbeddedPostgres

DENIED = "access to db denied. User does not have permissions. Confirm database user and name."
TLS_VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture
def client(lab: Lab, tmp_path: Path) -> Client:
    return Client(lab, tmp_path)


async def refused(lab: Lab, reason: str) -> None:
    """Waits until the latest connection has been refused for this reason."""
    await until(lambda: lab.handshakes[-1].error is not None)
    assert lab.handshakes[-1].error == reason


async def log_in(stream: trio.abc.Stream, user: str = "alice", database: str = "example") -> None:
    await stream.send_all(startup(user=user, database=database))
    kind, body = (await read_until(stream, "Z"))[-1]
    assert kind == "Z", body


async def greeting(stream: trio.abc.Stream) -> bytes:
    await stream.send_all(query("SELECT words FROM greetings WHERE id = 1"))
    rows = [body for kind, body in await read_until(stream, "Z") if kind == "D"]
    return rows[0][6:]


@pytest.mark.parametrize("alpn", [PLAIN_ALPN, PING_ALPN])
async def test_a_tunnel_carries_plaintext_postgres(client: Client, alpn: tuple[str, ...]) -> None:
    async with client.connect(issue(client.lab), alpn) as stream:
        await log_in(stream)
        assert await greeting(stream) == b"hello"


@pytest.mark.parametrize("version", TLS_VERSIONS)
@pytest.mark.parametrize("alpn", [PLAIN_ALPN, PING_ALPN])
async def test_without_an_outer_certificate_the_client_does_tls_inside(
    client: Client, alpn: tuple[str, ...], version: ssl.TLSVersion
) -> None:
    async with client.connect(alpn=alpn, version=version) as outer:
        await outer.send_all(SSL_REQUEST)
        assert await exactly(outer, 1) == b"S"
        inner = await client.start_inner_tls(outer, issue(client.lab), version)
        await log_in(inner)
        assert await greeting(inner) == b"hello"


async def test_the_ping_value_wins_whatever_the_clients_order_is(client: Client) -> None:
    async with client.connect(issue(client.lab), PING_ALPN[::-1]) as stream:
        assert isinstance(stream, FramedStream)


async def test_the_server_sends_pings_at_its_interval(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    database = DatabaseResource(guide.SERVICE, postgres.address)
    async with open_lab(databases=[database], directory=tmp_path / "l", ping_interval=0.005) as lab:
        lab.create_role(guide.role_yaml())
        async with Client(lab, tmp_path).connect(issue(lab), PING_ALPN) as stream:
            assert isinstance(stream, FramedStream)
            await log_in(stream)
            await stream.send_all(query("SELECT pg_sleep(0.1)"))
            await read_until(stream, "Z")
            assert stream.pings >= 2


async def test_pings_from_the_client_are_dropped_silently(client: Client) -> None:
    async with client.connect(issue(client.lab), PING_ALPN) as stream:
        assert isinstance(stream, FramedStream)
        await stream.below.send_all(bytes(4))
        await log_in(stream)
        await stream.below.send_all(bytes(8))
        assert await greeting(stream) == b"hello"


async def test_a_lab_without_ping_negotiates_the_plain_value(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    database = DatabaseResource(guide.SERVICE, postgres.address)
    async with open_lab(databases=[database], directory=tmp_path / "l", ping=False) as lab:
        lab.create_role(guide.role_yaml())
        async with Client(lab, tmp_path).connect(issue(lab), PING_ALPN) as stream:
            await log_in(stream)
            assert await greeting(stream) == b"hello"
        assert lab.handshakes[-1].alpn == "teleport-postgres"
        assert lab.handshakes[-1].alpn_offered == PING_ALPN


async def test_a_tunnel_is_routed_by_certificate_whatever_the_alpn_value_is(
    client: Client,
) -> None:
    async with client.connect(issue(client.lab), ("teleport-mongodb",)) as stream:
        await log_in(stream)
        assert await greeting(stream) == b"hello"


@pytest.mark.parametrize(
    ("request_bytes", "name"), [(SSL_REQUEST, "SSLRequest"), (GSSENC_REQUEST, "GSSEncRequest")]
)
async def test_a_tunnel_declines_encryption_once(
    client: Client, request_bytes: bytes, name: str
) -> None:
    async with client.connect(issue(client.lab)) as stream:
        await stream.send_all(request_bytes)
        assert await exactly(stream, 1) == b"N"
        await stream.send_all(request_bytes)
        message = f"Mreceived more than one {name}\0\0".encode()
        assert await read_message(stream) == ("E", message)
        assert await at_end(stream)


async def test_both_kinds_of_encryption_may_be_asked_for(client: Client) -> None:
    async with client.connect(issue(client.lab)) as stream:
        await stream.send_all(GSSENC_REQUEST)
        assert await exactly(stream, 1) == b"N"
        await stream.send_all(SSL_REQUEST)
        assert await exactly(stream, 1) == b"N"
        await log_in(stream)


async def test_gssapi_is_declined_before_tls(client: Client) -> None:
    async with client.connect() as outer:
        await outer.send_all(GSSENC_REQUEST)
        assert await exactly(outer, 1) == b"N"
        await outer.send_all(SSL_REQUEST)
        assert await exactly(outer, 1) == b"S"
        await log_in(await client.start_inner_tls(outer, issue(client.lab)))


async def test_a_plaintext_startup_message_outside_a_tunnel_ends_the_connection(
    client: Client,
) -> None:
    async with client.connect() as outer:
        await outer.send_all(startup(user="alice", database="example"))
        assert await at_end(outer)
    await refused(client.lab, "expected tls connection, got StartupMessage")


@pytest.mark.parametrize(
    ("user", "database"), [("bob", "example"), ("alice", "secret"), ("alice", "postgres")]
)
async def test_a_user_or_database_outside_the_role_is_denied_with_a_bare_message(
    client: Client, user: str, database: str
) -> None:
    async with client.connect(issue(client.lab)) as stream:
        await stream.send_all(startup(user=user, database=database))
        assert await read_message(stream) == ("E", f"M{DENIED}\0\0".encode())
        assert await at_end(stream)
    assert client.lab.audit.events[-1]["error"] == DENIED
    assert not client.lab.audit.starts()


async def test_an_unknown_service_is_named_inside_tls(client: Client) -> None:
    async with client.connect() as outer:
        await outer.send_all(SSL_REQUEST)
        await exactly(outer, 1)
        inner = await client.start_inner_tls(outer, issue(client.lab, routed(service="other")))
        await inner.send_all(startup(user="alice", database="example"))
        _, body = await read_message(inner)
        text = 'database "other" not found among registered databases in cluster "lab.example.com"'
        assert body == f"M{text}\0\0".encode()


async def test_sessions_can_be_refused_with_any_message_until_they_are_served_again(
    client: Client,
) -> None:
    client.lab.refuse_sessions("no such luck")
    async with client.connect(issue(client.lab)) as stream:
        await stream.send_all(startup(user="alice", database="example"))
        assert await read_message(stream) == ("E", b"Mno such luck\0\0")
        assert await at_end(stream)
    assert client.lab.audit.events[-1]["error"] == "no such luck"
    client.lab.serve_sessions()
    async with client.connect(issue(client.lab)) as stream:
        await stream.send_all(startup(user="alice", database="example"))
        kind, _ = await read_message(stream)
        assert kind == "R"


async def test_an_unknown_service_in_a_tunnel_is_a_silent_close(client: Client) -> None:
    async with client.connect(issue(client.lab, routed(service="other"))) as stream:
        await stream.send_all(startup(user="alice", database="example"))
        assert await at_end(stream)


async def test_a_role_that_the_cluster_lacks_denies_access(client: Client) -> None:
    client.lab.roles.clear()
    async with client.connect(issue(client.lab)) as stream:
        await stream.send_all(startup(user="alice", database="example"))
        assert await read_message(stream) == ("E", b"Mrole machine-id-db is not found\0\0")


async def test_an_unreachable_database_is_reported_to_the_client(tmp_path: Path) -> None:
    missing = DatabaseResource(guide.SERVICE, f"unix://{tmp_path}/missing")
    async with open_lab(databases=[missing], directory=tmp_path / "l") as lab:
        lab.create_role(guide.role_yaml())
        async with Client(lab, tmp_path).connect(issue(lab)) as stream:
            await stream.send_all(startup(user="alice", database="example"))
            kind, body = await read_message(stream)
        assert kind == "E"
        assert b"No such file or directory" in body


async def test_an_unknown_alpn_value_gets_a_close_without_any_byte(client: Client) -> None:
    context = client.context(client.lab.web_ca_file.read_bytes(), alpn=("teleport-unknown",))
    tcp = await client.connect_tcp()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    async with tcp:
        await tcp.send_all(outgoing.read())
        assert await tcp.receive_some() == b""
    await refused(client.lab, "no handler for ALPN teleport-unknown")


async def test_bytes_that_are_not_tls_get_a_close(client: Client) -> None:
    async with await client.connect_tcp() as tcp:
        await tcp.send_all(b"GET / HTTP/1.1\r\n\r\n")
        assert await tcp.receive_some() == b""


async def test_a_mysql_version_value_alone_gets_the_alert(client: Client) -> None:
    with pytest.raises(trio.BrokenResourceError) as caught:
        async with client.connect(alpn=("teleport-mysql-OC4wLjM0",)):
            pass
    assert "alert no application protocol" in str(caught.value.__cause__)


async def test_a_slow_client_hello_runs_into_the_deadline(tmp_path: Path) -> None:
    async with open_lab(databases=[], directory=tmp_path / "l", handshake_timeout=0.02) as lab:
        async with await Client(lab, tmp_path).connect_tcp() as tcp:
            await tcp.send_all(b"\x16\x03")
            assert await tcp.receive_some() == b""
        await refused(lab, "the client took too long")


REJECTED = {
    "expired": "CERTIFICATE_EXPIRED",
    "from another authority": "UNKNOWN_CA",
}


@pytest.mark.parametrize("version", TLS_VERSIONS)
@pytest.mark.parametrize("fault", REJECTED)
async def test_a_bad_outer_certificate_gets_the_alert(
    client: Client, fault: str, version: ssl.TLSVersion
) -> None:
    pair = (
        issue(client.lab, age=timedelta(hours=3))
        if fault == "expired"
        else issue(client.lab, authority=Authority.create().user_ca)
    )
    assert REJECTED[fault] in await alert_outside(client, pair, version)


@pytest.mark.parametrize("version", TLS_VERSIONS)
async def test_the_inner_handshake_requires_a_client_certificate(
    client: Client, version: ssl.TLSVersion
) -> None:
    expected = "REQUIRED" if version is ssl.TLSVersion.TLSv1_3 else "HANDSHAKE_FAILURE"
    assert expected in await alert_inside(client, None, version)


async def test_a_host_certificate_does_not_authenticate_a_postgres_client(client: Client) -> None:
    pair = issue(client.lab, authority=client.lab.authority.host_ca)
    assert "UNKNOWN_CA" in await alert_inside(client, pair, ssl.TLSVersion.TLSv1_3)


async def alert_outside(client: Client, pair: KeyPair, version: ssl.TLSVersion) -> str:
    """The TLS alert that an outer connection with this certificate gets.

    In TLS 1.3 the client's handshake call has succeeded before it arrives.
    """
    try:
        async with client.connect(pair, version=version) as stream:
            await stream.send_all(SSL_REQUEST)
            await stream.receive_some(1)
    except trio.BrokenResourceError as error:
        return str(error.__cause__)
    return "no alert"


async def alert_inside(client: Client, pair: KeyPair | None, version: ssl.TLSVersion) -> str:
    """The TLS alert that a PostgreSQL client with this certificate gets inside."""
    async with client.connect() as outer:
        await outer.send_all(SSL_REQUEST)
        await exactly(outer, 1)
        try:
            inner = await client.start_inner_tls(outer, pair, version)
            await inner.send_all(startup(user="alice", database="example"))
            await inner.receive_some(1)
        except trio.BrokenResourceError as error:
            return str(error.__cause__)
    return "no alert"


async def test_a_cancel_request_in_a_tunnel_reaches_the_database(client: Client) -> None:
    pair = issue(client.lab)
    async with client.connect(pair) as busy:
        key = await start_sleeping(busy)
        async with client.connect(pair) as canceller:
            await canceller.send_all(cancel_request(key))
            assert await at_end(canceller)
        assert b"57014" in (await read_until(busy, "Z"))[-1][1]


async def test_a_cancel_request_inside_tls_reaches_the_database(client: Client) -> None:
    pair = issue(client.lab)
    async with client.connect(pair) as busy:
        key = await start_sleeping(busy)
        async with client.connect() as outer:
            await outer.send_all(SSL_REQUEST)
            await exactly(outer, 1)
            inner = await client.start_inner_tls(outer, pair)
            await inner.send_all(cancel_request(key))
            assert await at_end(inner)
        assert b"57014" in (await read_until(busy, "Z"))[-1][1]


async def test_a_plaintext_cancel_request_without_certificate_is_not_forwarded(
    client: Client,
) -> None:
    async with client.connect(issue(client.lab)) as busy:
        await log_in(busy)
        async with client.connect() as outer:
            await outer.send_all(cancel_request(bytes(8)))
            assert await at_end(outer)
        await refused(client.lab, "expected tls connection, got CancelRequest")


async def start_sleeping(stream: trio.abc.Stream) -> bytes:
    """Logs in, starts a long query and returns the connection's cancel key."""
    await stream.send_all(startup(user="alice", database="example"))
    key = next(body for kind, body in await read_until(stream, "Z") if kind == "K")
    await stream.send_all(query("SELECT pg_sleep(30)"))
    return key


def cancel_request(key: bytes) -> bytes:
    return struct.pack("!II", 8 + len(key), 80877102) + key


async def test_a_database_protocol_with_its_own_tls_gets_raw_bytes(tmp_path: Path) -> None:
    async with open_echo_lab(tmp_path) as lab:
        client = Client(lab, tmp_path)
        pair = issue(lab, routed(protocol="mongodb"))
        async with client.connect(alpn=("teleport-mongodb-ping",)) as outer:
            inner = await client.start_inner_tls(outer, pair)
            await inner.send_all(b"anything")
            assert await exactly(inner, 8) == b"anything"


async def test_a_tunnel_of_another_protocol_gets_raw_bytes(tmp_path: Path) -> None:
    async with open_echo_lab(tmp_path) as lab:
        pair = issue(lab, routed(protocol="redis"))
        async with Client(lab, tmp_path).connect(pair, ("teleport-redis",)) as stream:
            await stream.send_all(b"PING")
            assert await exactly(stream, 4) == b"PING"


async def test_a_certificate_without_route_is_no_database_connection(tmp_path: Path) -> None:
    async with open_echo_lab(tmp_path) as lab:
        client = Client(lab, tmp_path)
        async with client.connect(alpn=("teleport-mongodb",)) as outer:
            inner = await client.start_inner_tls(outer, issue(lab, routed(service="")))
            assert await at_end(inner)
        await refused(lab, "not database connection")
