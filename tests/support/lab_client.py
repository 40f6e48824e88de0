"""A client of the lab that shares nothing with it, nor with the product.

`ssl` through `trio.SSLStream`, the few PostgreSQL bytes written by hand, and certificates made
with the lab's authority, because only it can.
"""

from __future__ import annotations

import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import trio
from cryptography.hazmat.primitives.asymmetric import ec
from whole_frames import WholeFrames

from dbproxy.lab import (
    NO_FAULTS,
    DatabaseResource,
    FaultPlan,
    Lab,
    UpgradeOptions,
    Variant,
    WebOptions,
    guide,
    open_lab,
)
from dbproxy.lab.authority import CertificateAuthority, KeyPair
from dbproxy.lab.subject import SubjectFields

SSL_REQUEST = struct.pack("!II", 8, 80877103)
GSSENC_REQUEST = struct.pack("!II", 8, 80877104)
PING_ALPN = ("teleport-postgres-ping", "teleport-postgres")
PLAIN_ALPN = ("teleport-postgres",)
ECHO_ALPN = ("teleport-mongodb",)
ECHO_PING_ALPN = ("teleport-mongodb-ping", "teleport-mongodb")

ALICE = SubjectFields(
    user="bot-app",
    roles=("machine-id-db",),
    service="example-server",
    protocol="postgres",
    db_user="alice",
    db_name="example",
    cluster="lab.example.com",
)


def issue(
    lab: Lab,
    subject: SubjectFields = ALICE,
    *,
    authority: CertificateAuthority | None = None,
    age: timedelta = timedelta(),
    ttl: timedelta = timedelta(hours=1),
) -> KeyPair:
    """A user certificate and its key, issued `age` ago."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = lab.authority.issue_user_certificate(
        key.public_key(), subject, ttl, authority=authority, now=datetime.now(UTC) - age
    )
    return KeyPair(key, certificate)


def routed(*, service: str = ALICE.service, protocol: str = ALICE.protocol) -> SubjectFields:
    """Alice's identity with another route."""
    return replace(ALICE, service=service, protocol=protocol)


@dataclass(frozen=True)
class Client:
    """How to connect to one lab; certificates go through files in `directory`.

    `sockets` are the TCP connections made so far, oldest first.
    """

    lab: Lab
    directory: Path
    sockets: list[trio.SocketStream] = field(default_factory=list)

    def context(
        self,
        ca: bytes,
        pair: KeyPair | None = None,
        alpn: tuple[str, ...] = (),
        version: ssl.TLSVersion | None = None,
    ) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=ca.decode())
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if pair is not None:
            file = self.directory / f"{pair.certificate.serial_number:x}.pem"
            file.write_bytes(pair.key_pem + pair.certificate_pem)
            context.load_cert_chain(file)
        return context

    async def connect_tcp(self) -> trio.SocketStream:
        host, port = self.lab.address.rsplit(":", 1)
        stream = await trio.open_tcp_stream(host, int(port))
        self.sockets.append(stream)
        return stream

    def close(self) -> None:
        """Closes all TCP connections that were made here."""
        for stream in self.sockets:
            stream.socket.close()

    @asynccontextmanager
    async def connect(
        self,
        pair: KeyPair | None = None,
        alpn: tuple[str, ...] = PLAIN_ALPN,
        version: ssl.TLSVersion | None = None,
    ) -> AsyncIterator[trio.abc.Stream]:
        """The outer connection, with ping framing removed when it was negotiated."""
        context = self.context(self.lab.web_ca_file.read_bytes(), pair, alpn, version)
        outer = trio.SSLStream(
            await self.connect_tcp(), context, server_hostname="localhost", https_compatible=True
        )
        try:
            await outer.do_handshake()
            framed = (outer.selected_alpn_protocol() or "").endswith("-ping")
            yield FramedStream(outer) if framed else outer
        finally:
            await trio.aclose_forcefully(outer)

    async def start_inner_tls(
        self,
        outer: trio.abc.Stream,
        pair: KeyPair | None,
        version: ssl.TLSVersion | None = None,
        authority: CertificateAuthority | None = None,
    ) -> trio.SSLStream[trio.abc.Stream]:
        """TLS inside an outer connection, as a database driver does it."""
        context = self.context((authority or self.lab.authority.host_ca).pem, pair, version=version)
        inner = trio.SSLStream(outer, context, server_hostname="localhost", https_compatible=True)
        await inner.do_handshake()
        return inner


class FramedStream(WholeFrames):
    """Ping framing."""

    def __init__(self, below: trio.abc.Stream) -> None:
        super().__init__(below)
        self.pings = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.below.send_all(struct.pack("!I", len(data)) + bytes(data))

    async def next_payload(self) -> bytes | None:
        header = await self.exactly(4)
        if header is None:
            return None
        (size,) = struct.unpack("!I", header)
        self.pings += size == 0
        return await self.exactly(size) or b""


def startup(**parameters: str) -> bytes:
    """A StartupMessage of protocol 3.0."""
    body = b"".join(f"{key}\0{value}\0".encode() for key, value in parameters.items()) + b"\0"
    return struct.pack("!II", len(body) + 8, 3 << 16) + body


def query(sql: str) -> bytes:
    """A simple Query."""
    return b"Q" + struct.pack("!I", len(sql.encode()) + 5) + sql.encode() + b"\0"


async def exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    """Reads that many bytes, fewer only at the end of the stream."""
    data = b""
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        if not piece:
            break
        data += piece
    return data


async def read_message(stream: trio.abc.ReceiveStream) -> tuple[str, bytes]:
    """One backend message: its type and its body."""
    kind = await exactly(stream, 1)
    (size,) = struct.unpack("!I", await exactly(stream, 4))
    return kind.decode(), await exactly(stream, size - 4)


async def read_until(stream: trio.abc.ReceiveStream, kind: str) -> list[tuple[str, bytes]]:
    """Backend messages up to the first one of a type, or an error."""
    messages = [await read_message(stream)]
    while messages[-1][0] not in {kind, "E"}:
        messages.append(await read_message(stream))
    return messages


async def at_end(stream: trio.abc.ReceiveStream) -> bool:
    """Whether nothing comes any more, whichever way the connection ended."""
    try:
        return await stream.receive_some(1) == b""
    except trio.BrokenResourceError:
        return True


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Waits for what another task brings about."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is somebody else's plain state
            await trio.sleep(0.005)


async def echo(stream: trio.abc.HalfCloseableStream) -> None:
    """Sends back what comes, and the end as an end of its own direction only."""
    while data := await stream.receive_some(65536):
        await stream.send_all(data)
    await stream.send_eof()


@asynccontextmanager
async def open_echo_lab(
    directory: Path,
    *,
    ping_interval: float = 30.0,
    ping: bool = True,
    variant: Variant | None = None,
    web: WebOptions | None = None,
    upgrade: UpgradeOptions | None = None,
    faults: FaultPlan = NO_FAULTS,
) -> AsyncIterator[Lab]:
    """A lab whose database `example-server` of protocol `mongodb` echoes."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, echo, 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        port = listeners[0].socket.getsockname()[1]
        resource = DatabaseResource("example-server", f"127.0.0.1:{port}", "mongodb")
        async with open_lab(
            databases=[resource],
            directory=directory / "lab",
            ping=ping,
            ping_interval=ping_interval,
            variant=variant,
            web=web,
            upgrade=upgrade,
            faults=faults,
        ) as lab:
            lab.create_role(guide.role_yaml())
            yield lab
        nursery.cancel_scope.cancel()
