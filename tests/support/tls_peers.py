"""The other end of a TLS connection, from the standard library, which the product does not use.

`Credentials` are a certificate and its key for `ssl` and for pyOpenSSL; `StdlibTLS` is `ssl` on
memory BIOs, driven with the methods of a layer, so that tests can carry bytes between the two.
"""

import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from identities import HOUR, MINUTE, Authority, certificate_pem, key_pem, make_key
from OpenSSL import SSL

CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
BOTH_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
BROKEN_RECORD = b"\x17\x03\x03\x00\x20" + bytes(32)
"""A record that nobody can decrypt."""


@dataclass(frozen=True)
class Credentials:
    """A certificate and its key, which tests may show."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey = field(repr=False)

    def load_into(self, context: ssl.SSLContext) -> None:
        """Let a context of the standard library show them; it reads from files only."""
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "pair.pem"
            file.write_bytes(key_pem(self.key) + certificate_pem(self.certificate))
            context.load_cert_chain(file)

    def use_in(self, context: SSL.Context) -> None:
        """Let a context of pyOpenSSL show them."""
        context.use_certificate(self.certificate)
        context.use_privatekey(self.key)


def make_credentials(
    authority: Authority | None,
    *names: str,
    common_name: str = "example",
    usages: Sequence[x509.ObjectIdentifier] = (),
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    age: timedelta = timedelta(),
    ca: bool = False,
) -> Credentials:
    """A certificate for DNS names and IP addresses; without an authority it signs itself.

    Args:
        authority: Signs it.
        names: The subject alternative names; none at all leaves the extension out.
        common_name: In the subject.
        usages: The extended key usages; none leaves the extension out.
        not_before: By default a minute ago.
        not_after: By default in an hour.
        age: Shifts the default validity into the past.
        ca: Whether it may issue certificates.
    """
    key = make_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC) - age
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before or now - MINUTE)
        .not_valid_after(not_after or now + HOUR)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        general_names = [general_name(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general_names), critical=False)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return Credentials(builder.sign(authority.key if authority else key, hashes.SHA256()), key)


def general_name(name: str) -> x509.GeneralName:
    """The name of a certificate for a DNS name or an IP address."""
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def server_context(
    credentials: Credentials,
    *,
    version: ssl.TLSVersion | None = None,
    alpn: Sequence[str] = (),
    client_authority: Authority | None = None,
) -> ssl.SSLContext:
    """A server's context; with a client authority it requires a certificate from it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    credentials.load_into(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if client_authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_authority.pem.decode())
    return context


def client_context(
    authority: Authority | None = None,
    *,
    version: ssl.TLSVersion | None = None,
    credentials: Credentials | None = None,
    alpn: Sequence[str] = (),
) -> ssl.SSLContext:
    """A client's context, which trusts one authority; without one it trusts anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if authority is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=authority.pem.decode())
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if credentials is not None:
        credentials.load_into(context)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class End(Protocol):
    """What a layer and `StdlibTLS` have in common."""

    @property
    def handshaking(self) -> bool: ...
    def start(self) -> None: ...
    def receive(self, data: bytes) -> bytes: ...
    def send(self, data: bytes) -> None: ...
    def outgoing(self) -> bytes: ...


class StdlibTLS:
    """TLS by the standard library, without I/O."""

    def __init__(
        self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None
    ) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._in, self._out, server_side=server_side, server_hostname=server_hostname
        )
        self.handshaking = True
        self.ended = False

    def start(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        self.handshaking = False

    def receive(self, data: bytes) -> bytes:
        self._in.write(data)
        if self.handshaking:
            self.start()
        return b"" if self.handshaking else self._read()

    def _read(self) -> bytes:
        received = b""
        try:
            while data := self.tls.read(1 << 16):
                received += data
        except ssl.SSLWantReadError:
            return received
        except ssl.SSLZeroReturnError:
            pass
        self.ended = True
        return received

    def send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self.tls.write(left) :]

    def send_eof(self) -> None:
        """Send the close_notify."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            return

    def outgoing(self) -> bytes:
        return self._out.read()


def shake_hands(one: End, other: End) -> None:
    """Complete a handshake between two ends that both have not started."""
    one.start()
    other.start()
    for _round in range(10):
        if not carry(one, other) and not (one.handshaking or other.handshaking):
            return
    raise AssertionError("the handshake does not end")


def carry(one: End, other: End) -> bool:
    """Carry the wire bytes of each to the other, once; nothing else may come out of them."""
    there = one.outgoing()
    received = other.receive(there) if there else b""
    back = other.outgoing()
    received += one.receive(back) if back else b""
    assert not received
    return bool(there or back)
