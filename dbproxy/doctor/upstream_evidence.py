"""What there is to see on the way to the Teleport Proxy: values, without I/O.

`look_upstream` fills them in, and the checks judge them.
"""

from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509

from dbproxy.errors import DBProxyError, UpstreamError
from dbproxy.identity import Identity
from dbproxy.settings import Mode
from dbproxy.upstream import ConfiguredAddress, ProxyAddress
from dbproxy.upstream.outbound_proxy import OutboundProxy
from dbproxy.upstream.upgrade_need import UpgradeNeed
from dbproxy.upstream.webapi import ClusterFacts

__all__ = ["Session", "TCPAttempt", "UpstreamEvidence", "WebCertificate"]


@dataclass(frozen=True, slots=True)
class TCPAttempt:
    """A connection to one address, without TLS.

    Attributes:
        address: The IP address, with the port.
        seconds: How long it took; `None` when there was none.
        problem: Why there was none.
    """

    address: str
    seconds: float | None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebCertificate:
    """What the server on the web port has shown.

    Attributes:
        certificate: Its own certificate.
        trusted_by: What it is trusted by, in words; `None` when it was not verified.
        insecure_by: What says that it is not verified, if anything does.
        pinned: Whether it was compared with pins, too.
        tls_version: Such as `TLSv1.3`.
    """

    certificate: x509.Certificate
    trusted_by: str | None
    insecure_by: str | None
    pinned: bool
    tls_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A connection as for a database.

    Attributes:
        alpn: What was negotiated.
        tls_version: Such as `TLSv1.3`.
        upgraded: Whether it went through a connection upgrade.
        seconds: How long dialling took.
    """

    alpn: str
    tls_version: str
    upgraded: bool
    seconds: float


@dataclass(slots=True, kw_only=True)
class UpstreamEvidence:
    """What there is to judge. `None` means: was not looked at, because of something before it.

    Attributes:
        identity: What tbot wrote, if it can be used.
        configured: The address that the operator gave.
        configured_problem: Why there is none.
        outbound: The outbound proxy on the way, if there is one.
        names: The IP addresses that the name leads to: of the outbound proxy where there is one.
        names_problem: Why it leads nowhere.
        attempts: A TCP connection to each of them.
        web: The certificate on the web port.
        web_problem: Why there is no TLS connection to it.
        facts: What the Teleport Proxy says about itself.
        facts_problem: Why it does not.
        published: The address that it wants to be reached at.
        server_time: What its clock says.
        asked_at: What ours said then.
        upgrade: Whether an upgrade is needed, and why.
        session: An authenticated connection that was not rejected.
        session_problem: Why there is none.
        inner_rejection: Why the certificate is not taken from a client in passthrough, whose TLS
            ends at the Teleport Proxy.
        verified_by: Which authorities in the destination have signed what it shows to such a
            client: `host`, `database`.
        verified_problem: Why that could not be seen.
        mode: The mode that was asked about.
    """

    identity: Identity | None
    mode: Mode
    configured: ConfiguredAddress | None = None
    configured_problem: DBProxyError | None = None
    outbound: OutboundProxy | None = None
    names: tuple[str, ...] = ()
    names_problem: str | None = None
    attempts: list[TCPAttempt] = field(default_factory=list)
    web: WebCertificate | None = None
    web_problem: UpstreamError | None = None
    facts: ClusterFacts | None = None
    facts_problem: str | None = None
    published: ProxyAddress | None = None
    server_time: datetime | None = None
    asked_at: datetime | None = None
    upgrade: UpgradeNeed | None = None
    session: Session | None = None
    session_problem: UpstreamError | None = None
    inner_rejection: UpstreamError | None = None
    verified_by: tuple[str, ...] | None = None
    verified_problem: UpstreamError | None = None
