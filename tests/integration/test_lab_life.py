"""The lab over time: bulk transfers, resets, restarts, rotation, and its audit log."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg
import pytest
import trio
from lab_client import (
    ALICE,
    PING_ALPN,
    PLAIN_ALPN,
    Client,
    exactly,
    issue,
    open_echo_lab,
    query,
    read_until,
    routed,
    startup,
    until,
)
from tls_machine import Machine

from dbproxy.lab import DatabaseResource, Lab, guide, open_lab
from dbproxy.lab.authority import Authority, KeyPair
from dbproxy.lab.errors import LabError
from dbproxy.lab.handshake import Handshake
from dbproxy.lab.postgres import EmbeddedPostgres
from dbproxy.lab.subject import SubjectFields

MEBIBYTE = 1024 * 1024
BULK = 64 * MEBIBYTE
ODD_CHUNK = 77_777


@pytest.fixture
def client(lab: Lab, tmp_path: Path) -> Client:
    return Client(lab, tmp_path)


async def log_in(stream: trio.abc.Stream) -> None:
    await stream.send_all(startup(user="alice", database="example"))
    assert (await read_until(stream, "Z"))[-1][0] == "Z"


@pytest.mark.parametrize("alpn", [("teleport-redis",), ("teleport-redis-ping",)])
async def test_64_mib_both_ways_at_once_arrive_unchanged(
    tmp_path: Path, alpn: tuple[str, ...]
) -> None:
    async with open_echo_lab(tmp_path, ping_interval=0.01) as lab:
        pair = issue(lab, routed(protocol="redis"))
        async with Client(lab, tmp_path).connect(pair, alpn) as stream:
            sent, received = await send_and_receive(stream)
        assert sent == received
        await until(lambda: len(lab.audit.ends()) == 1)
        assert lab.audit.ends()[0]["bytes_to_client"] == BULK


async def send_and_receive(stream: trio.abc.Stream) -> tuple[str, str]:
    """Sends odd chunks of random bytes while receiving; the digests of both directions."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    block = os.urandom(MEBIBYTE)

    async def send() -> None:
        for start in range(0, BULK, ODD_CHUNK):
            size = min(ODD_CHUNK, BULK - start)
            offset = start % (MEBIBYTE - ODD_CHUNK)
            chunk = block[offset : offset + size]
            sent.update(chunk)
            await stream.send_all(chunk)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        size = 0
        while size < BULK and (data := await stream.receive_some(MEBIBYTE)):
            received.update(data)
            size += len(data)
    return sent.hexdigest(), received.hexdigest()


async def test_the_reply_arrives_after_the_client_has_ended_its_side(tmp_path: Path) -> None:
    async with open_echo_lab(tmp_path) as lab:
        pair = issue(lab, routed(protocol="redis"))
        client = Client(lab, tmp_path)
        context = client.context(lab.web_ca_file.read_bytes(), pair, PLAIN_ALPN)
        async with await client.connect_tcp() as tcp, trio.open_nursery() as nursery:
            machine = Machine(tcp, context)
            await machine.handshake()
            nursery.start_soon(send_and_end, machine, 4)
            size = 0
            while data := await machine.receive():
                size += len(data)
        assert size == 4 * MEBIBYTE


async def send_and_end(machine: Machine, mebibytes: int) -> None:
    for _ in range(mebibytes):
        await machine.send(bytes(MEBIBYTE))
    await machine.close_notify()


@pytest.mark.parametrize("alpn", [PLAIN_ALPN, PING_ALPN])
async def test_40_resets_in_the_middle_of_a_transfer_leave_nothing_behind(
    postgres: EmbeddedPostgres, tmp_path: Path, alpn: tuple[str, ...]
) -> None:
    database = DatabaseResource(guide.SERVICE, postgres.address)
    async with open_lab(databases=[database], directory=tmp_path / "lab") as lab:
        lab.create_role(guide.role_yaml())
        client, pair = Client(lab, tmp_path), issue(lab)
        await reset_in_the_middle(client, pair, alpn)
        await until(lambda: lab.connections == 0)
        before = open_descriptors(), tasks()
        for _ in range(40):
            await reset_in_the_middle(client, pair, alpn)
        await until(lambda: lab.connections == 0)
        await until(lambda: (open_descriptors(), tasks()) == before)
        assert len(lab.audit.ends()) == 41


async def reset_in_the_middle(client: Client, pair: KeyPair, alpn: tuple[str, ...]) -> None:
    async with client.connect(pair, alpn) as stream:
        await log_in(stream)
        await stream.send_all(query("SELECT repeat('x', 3000000)"))
        await exactly(stream, 100_000)
        reset(client.sockets[-1])


def reset(stream: trio.SocketStream) -> None:
    """Makes the coming close a TCP reset."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def test_a_stopped_proxy_closes_its_connections_and_comes_back_on_its_port(
    client: Client,
) -> None:
    address = client.lab.address
    pair = issue(client.lab)
    async with client.connect(pair) as stream:
        await log_in(stream)
        await client.lab.stop_proxy()
        with pytest.raises(trio.BrokenResourceError):
            await until_broken(stream)
    assert client.lab.connections == 0
    with pytest.raises(OSError, match="connect"):
        await client.connect_tcp()
    await client.lab.stop_proxy()
    await client.lab.start_proxy()
    assert client.lab.address == address
    async with client.connect(pair) as stream:
        await log_in(stream)


async def until_broken(stream: trio.abc.Stream) -> None:
    """Reads; an end without close_notify counts as broken, too."""
    if await stream.receive_some(1) == b"":
        raise trio.BrokenResourceError


async def test_a_proxy_can_be_stopped_before_it_has_served_anything(client: Client) -> None:
    await client.lab.stop_proxy()
    await client.lab.start_proxy()
    await client.lab.stop_proxy()
    with pytest.raises(OSError, match="connect"):
        await client.connect_tcp()


async def test_a_running_proxy_cannot_be_started_again(lab: Lab) -> None:
    with pytest.raises(LabError, match="already listens"):
        await lab.start_proxy()


async def test_a_port_in_use_is_named(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=f"cannot listen on {lab.address}"):
        async with open_lab(databases=[], directory=tmp_path / "2", listen=lab.address):
            pass


async def test_leaving_the_lab_closes_open_connections(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    database = DatabaseResource(guide.SERVICE, postgres.address)
    async with AsyncExitStack() as stack:
        async with open_lab(databases=[database], directory=tmp_path / "lab") as lab:
            lab.create_role(guide.role_yaml())
            stream = await stack.enter_async_context(Client(lab, tmp_path).connect(issue(lab)))
            await log_in(stream)
        with pytest.raises(trio.BrokenResourceError):
            await until_broken(stream)
        assert len(lab.audit.ends()) == 1


async def test_a_handler_of_ones_own_serves_established_connections(tmp_path: Path) -> None:
    seen: list[Handshake] = []

    async def shout(stream: trio.abc.HalfCloseableStream, facts: Handshake) -> None:
        seen.append(facts)
        await stream.send_all((await stream.receive_some()).upper())

    async with (
        open_lab(databases=[], directory=tmp_path / "lab", handler=shout) as lab,
        Client(lab, tmp_path).connect(issue(lab), PING_ALPN) as stream,
    ):
        await stream.send_all(b"hello")
        assert await exactly(stream, 5) == b"HELLO"
    assert seen[0].alpn == "teleport-postgres-ping"
    assert seen[0].alpn_offered == PING_ALPN
    assert seen[0].server_name == "localhost"
    assert seen[0].tls_version == "TLSv1.3"
    assert seen[0].identity is not None
    assert seen[0].identity.db_user == "alice"
    assert seen[0].client_certificate is not None


async def test_another_web_certificate_can_be_shown(tmp_path: Path) -> None:
    foreign = Authority.create().issue_web_certificate()
    async with open_lab(databases=[], directory=tmp_path / "lab", web_certificate=foreign) as lab:
        with pytest.raises(trio.BrokenResourceError) as caught:
            async with Client(lab, tmp_path).connect():
                pass
        assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value.__cause__)
        await until(lambda: lab.handshakes[-1].error is not None)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_tls_version_can_be_pinned(tmp_path: Path, version: ssl.TLSVersion) -> None:
    other = {ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3} - {version}
    async with open_lab(
        databases=[],
        directory=tmp_path / "lab",
        minimum_tls_version=version,
        maximum_tls_version=version,
    ) as lab:
        client = Client(lab, tmp_path)
        async with client.connect(version=version):
            await until(lambda: lab.handshakes[-1].tls_version is not None)
            assert lab.handshakes[-1].tls_version == version.name.replace("_", ".")
        with pytest.raises(trio.BrokenResourceError):
            async with client.connect(version=other.pop()):
                pass


async def test_only_the_chosen_alpn_values_are_known(tmp_path: Path) -> None:
    async with open_lab(databases=[], directory=tmp_path / "lab", alpn=["teleport-redis"]) as lab:
        client = Client(lab, tmp_path)
        async with client.connect(alpn=("teleport-redis-ping", "teleport-redis")):
            await until(lambda: lab.handshakes[-1].alpn == "teleport-redis")
        with pytest.raises(trio.BrokenResourceError):
            async with client.connect(alpn=PLAIN_ALPN):
                pass


async def test_without_alpn_the_web_server_answers(client: Client) -> None:
    async with client.connect(alpn=()) as stream:
        await stream.send_all(b"GET /missing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await exactly(stream, 12)) == b"HTTP/1.1 404"


async def test_certificates_of_a_new_authority_are_taken_during_a_rotation(
    client: Client,
) -> None:
    old, old_host = issue(client.lab), client.lab.authority.host_ca
    client.lab.authority.begin_rotation()
    for pair in (old, issue(client.lab)):
        async with client.connect(pair) as stream:
            await log_in(stream)
    async with client.connect() as outer:
        await outer.send_all(struct.pack("!II", 8, 80877103))
        await exactly(outer, 1)
        inner = await client.start_inner_tls(outer, old, authority=old_host)
        await log_in(inner)
    client.lab.authority.end_rotation()
    async with client.connect(issue(client.lab)) as stream:
        await log_in(stream)
    assert await rejected(client, old)


async def rejected(client: Client, pair: KeyPair) -> bool:
    try:
        async with client.connect(pair) as stream:
            await stream.receive_some(1)
    except trio.BrokenResourceError:
        return True
    return False


async def test_a_split_database_authority_does_not_verify_the_proxy(tmp_path: Path) -> None:
    async with open_lab(databases=[], directory=tmp_path / "lab", split_database_ca=True) as lab:
        client = Client(lab, tmp_path)
        async with client.connect() as outer:
            await outer.send_all(struct.pack("!II", 8, 80877103))
            await exactly(outer, 1)
            with pytest.raises(trio.BrokenResourceError) as caught:
                await client.start_inner_tls(outer, issue(lab), authority=lab.authority.database_ca)
        assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        (replace(ALICE, usage=("usage:apps",)), "the certificate is not for database use"),
        (replace(ALICE, pinned_ip="192.0.2.1"), "the certificate is pinned to 192.0.2.1"),
    ],
)
async def test_a_restricted_certificate_is_a_silent_close(
    client: Client, subject: SubjectFields, reason: str
) -> None:
    async with client.connect(issue(client.lab, subject)) as stream:
        assert await stream.receive_some(1) == b""
    await until(lambda: client.lab.handshakes[-1].error == reason)


async def test_the_audit_log_tells_who_did_what_for_how_long(client: Client) -> None:
    async with client.connect(issue(client.lab)) as stream:
        await log_in(stream)
        assert len(client.lab.audit.starts()) == 1
        assert not client.lab.audit.ends()
    await until(lambda: len(client.lab.audit.ends()) == 1)
    lines = (client.lab.directory / "audit.jsonl").read_text().splitlines()
    start, end = map(json.loads, lines)
    assert start["event"], end["event"] == ("db.session.start", "db.session.end")
    assert (start["user"], start["db_service"]) == ("bot-app", "example-server")
    assert (start["db_user"], start["db_name"]) == ("alice", "example")
    assert start["sid"] == end["sid"]
    assert end["bytes_from_client"] == len(startup(user="alice", database="example"))
    assert end["bytes_to_client"] > 100


async def test_a_client_can_resume_its_tls_session(client: Client) -> None:
    context = client.context(client.lab.web_ca_file.read_bytes(), issue(client.lab), PLAIN_ALPN)
    await trio.to_thread.run_sync(connect_twice, client.lab.address, context)
    assert [facts.session_reused for facts in client.lab.handshakes] == [False, True]


def connect_twice(address: str, context: ssl.SSLContext) -> None:
    host, port = address.rsplit(":", 1)
    session = None
    for _ in range(2):
        with (
            socket.create_connection((host, int(port)), timeout=10) as tcp,
            context.wrap_socket(tcp, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(startup(user="alice", database="example"))
            assert tls.recv(1) == b"R"
            session = tls.session


async def test_psycopg_works_with_the_files_that_tbot_writes(
    client: Client, tmp_path: Path
) -> None:
    lab, destination = client.lab, tmp_path / "machine-id"
    config = guide.tbot_yaml(
        lab.tokens["app"], proxy=lab.address, destination=destination, certificate_ttl="1m"
    )
    await lab.tbot(config).renew()
    async with forwarder(client) as port:
        rows = await trio.to_thread.run_sync(select_with_psycopg, port, destination)
    assert rows == [("hello",), ("bonjour",), ("grüß Gott",)]


def select_with_psycopg(port: int, destination: Path) -> list[tuple[str]]:
    with psycopg.connect(
        host="localhost",
        port=port,
        user="alice",
        dbname="example",
        sslmode="verify-full",
        sslrootcert=str(destination / "teleport-database-ca.crt"),
        sslcert=str(destination / "tlscert"),
        sslkey=str(destination / "key"),
        connect_timeout=10,
    ) as connection:
        return connection.execute("SELECT words FROM greetings ORDER BY id").fetchall()


@asynccontextmanager
async def forwarder(client: Client) -> AsyncIterator[int]:
    """A local port whose connections go to the lab in TLS, as `tsh proxy db` does it."""

    async def forward(local: trio.SocketStream) -> None:
        async with client.connect() as outer, trio.open_nursery() as nursery:
            nursery.start_soon(copy, local, outer, nursery.cancel_scope)
            nursery.start_soon(copy, outer, local, nursery.cancel_scope)

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, forward, 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def copy(
    source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, scope: trio.CancelScope
) -> None:
    try:
        async for data in source:
            await sink.send_all(data)
    except trio.BrokenResourceError:
        pass  # the other side has left, which is one way to end
    scope.cancel()
