"""Checks of the way to the Teleport Proxy: each a function from what was seen to a finding.

One cause is told once: by the first check that sees it. The checks behind it are skipped.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from dbproxy.doctor.finding import Check, Finding, failed, failed_with, fine, skipped, warned
from dbproxy.doctor.upstream_evidence import UpstreamEvidence, WebCertificate
from dbproxy.errors import Code, DBProxyError
from dbproxy.identity.duration import in_words
from dbproxy.settings import Mode
from dbproxy.upstream import REJECTION_TIME

__all__ = ["UPSTREAM_CHECKS"]

_SOON: Final = timedelta(days=7)
"""A web certificate that ends within a week should have been renewed by now."""
_MOST_SKEW: Final = timedelta(seconds=30)
"""Teleport dates its certificates back by a minute; half of that is worth a warning."""
_NO_ADDRESS: Final = "the address of the Teleport Proxy is not known"
_NO_TLS: Final = "needs a trusted connection to the web port"
_NO_IDENTITY: Final = "needs an identity that can be used"
_ONLY_STARTTLS: Final = "this is looked at for PostgreSQL and CockroachDB only"
_MILLISECONDS: Final = 1000
_FOR_WANT_OF_AUTHORITY: Final = frozenset(
    {Code.UPSTREAM_UNTRUSTED, Code.UPSTREAM_CHAIN_INCOMPLETE, Code.UPSTREAM_SELF_SIGNED}
)
"""How a certificate of the Host CA looks to who does not know it."""


def _address(seen: UpstreamEvidence) -> Finding:
    if seen.configured_problem is not None:
        return failed_with(seen.configured_problem)
    return fine(f"{seen.configured} is the Teleport Proxy, as {_named_by(seen)} says")


def _named_by(seen: UpstreamEvidence) -> str:
    return seen.configured.named_by if seen.configured is not None else "nobody"


def _outbound_proxy(seen: UpstreamEvidence) -> Finding:
    if seen.configured is None or seen.configured_problem is not None:
        return skipped(_NO_ADDRESS)
    if seen.outbound is None:
        return fine("connections go there directly: no variable names an outbound proxy for it")
    return fine(f"connections go through {seen.outbound}, which {seen.outbound.variable} names")


def _name(seen: UpstreamEvidence) -> Finding:
    if seen.configured is None or seen.configured_problem is not None:
        return skipped(_NO_ADDRESS)
    host = seen.outbound.host if seen.outbound else seen.configured.host
    if seen.names_problem is not None:
        code = Code.OUTBOUND_PROXY_UNREACHABLE if seen.outbound else Code.UPSTREAM_UNREACHABLE
        return failed(code, f"the name {host} cannot be resolved: {seen.names_problem}")
    return fine(f"{host} leads to {', '.join(seen.names)}")


def _tcp(seen: UpstreamEvidence) -> Finding:
    if not seen.attempts:
        return skipped("no IP address is known")
    good = [
        f"{attempt.address} in {attempt.seconds * _MILLISECONDS:.0f} ms"
        for attempt in seen.attempts
        if attempt.seconds is not None
    ]
    bad = [f"{it.address}: {it.problem}" for it in seen.attempts if it.seconds is None]
    code = Code.OUTBOUND_PROXY_UNREACHABLE if seen.outbound else Code.UPSTREAM_UNREACHABLE
    if not good:
        return failed(code, f"no connection: {'; '.join(bad)}")
    if bad and seen.configured is not None and seen.configured.port is not None:
        return warned(code, f"connected to {', '.join(good)}, but not to {'; '.join(bad)}")
    return fine(f"connected to {', '.join(good)}")


def _certificate(seen: UpstreamEvidence) -> Finding:
    if (problem := seen.web_problem) is not None:
        if seen.names_problem is not None or (seen.attempts and not _connected(seen)):
            return skipped("no connection")  # told already
        return failed_with(problem) if seen.identity else _untried(problem)
    if (web := seen.web) is None:
        return skipped(_why_not(seen))
    end = web.certificate.not_valid_after_utc
    text = (
        f"{web.tls_version}; the certificate of {_called(web.certificate.subject)}, issued by"
        f" {_called(web.certificate.issuer)}, valid until {end:%Y-%m-%d %H:%M} UTC, {_trusted(web)}"
    )
    if web.insecure_by is not None and not web.pinned:
        return warned(
            Code.UPSTREAM_UNTRUSTED,
            text,
            next_step=f"Take {web.insecure_by} away; if the Teleport Proxy uses a private"
            " authority, name its certificate with --proxy-ca.",
        )
    left = end - datetime.now(UTC)
    if left < _SOON:
        return warned(Code.UPSTREAM_CERTIFICATE_EXPIRED, f"{text}: that is {in_words(left)} away")
    return fine(text)


def _untried(problem: DBProxyError) -> Finding:
    """Without an identity: what is wrong, unless the Host CA that is missing would have helped."""
    if problem.code not in _FOR_WANT_OF_AUTHORITY:
        return failed_with(problem)
    return warned(
        problem.code,
        f"{problem.message}; the identity's Host CA could not be tried",
        next_step="Put the identity in order first, then check again.",
    )


def _trusted(web: WebCertificate) -> str:
    if web.insecure_by is None:
        pinned = ", and it has a key that --proxy-pin names" if web.pinned else ""
        return f"is trusted by {web.trusted_by}{pinned}"
    if web.pinned:
        return f"is trusted for the key that --proxy-pin names, and nothing else: {web.insecure_by}"
    return f"is not verified: {web.insecure_by} takes any"


def _connected(seen: UpstreamEvidence) -> bool:
    return any(attempt.seconds is not None for attempt in seen.attempts)


def _called(name: x509.Name) -> str:
    common_names = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common_names[0].value) if common_names else name.rfc4514_string() or "no name"


def _why_not(seen: UpstreamEvidence) -> str:
    if seen.configured_problem is not None:
        return _NO_ADDRESS
    if seen.web is None:
        return _NO_TLS
    if seen.identity is None:
        return _NO_IDENTITY
    return "the database protocol is not carried"


def _discovery(seen: UpstreamEvidence) -> Finding:
    if seen.facts_problem is not None and seen.web_problem is not None:
        return skipped(_NO_TLS)
    if seen.facts_problem is not None:
        return warned(Code.DISCOVERY_FAILED, seen.facts_problem)
    if (facts := seen.facts) is None:
        return skipped(_why_not(seen))
    cluster = facts.cluster_name or "a cluster without a name"
    version = f"Teleport {facts.server_version}" if facts.server_version else "Teleport"
    text = f"{version} of {cluster} wants to be reached at {seen.published}"
    ours = seen.identity.subject.cluster if seen.identity is not None else None
    if ours and facts.cluster_name and ours != facts.cluster_name:
        return warned(
            Code.CERTIFICATE_REJECTED, f"{text}, and the certificate is of the cluster {ours}"
        )
    if facts.tls_routing_enabled is False:
        return warned(Code.TLS_ROUTING_OFF, f"{text}; TLS routing is off")
    return fine(text)


def _clock(seen: UpstreamEvidence) -> Finding:
    if seen.server_time is None or seen.asked_at is None:
        return skipped("the Teleport Proxy did not tell the time")
    skew = seen.asked_at - seen.server_time
    if abs(skew) <= _MOST_SKEW:
        return fine("the clocks of this host and of the Teleport Proxy agree")
    direction = "ahead of" if skew > timedelta() else "behind"
    return warned(
        Code.CLOCK_WRONG,
        f"the clock of this host is {in_words(skew)} {direction} the Teleport Proxy's",
        next_step="Check which of the two is wrong (`timedatectl`): certificates are valid by the"
        " clock.",
    )


def _upgrade(seen: UpstreamEvidence) -> Finding:
    if (need := seen.upgrade) is None:
        return skipped(_why_not(seen))
    if not need.certain:
        return warned(
            Code.UPGRADE_FAILED,
            f"no connection upgrade is made, but only as a guess: the server {need.reason}",
            next_step="If a layer 7 load balancer is in front of the Teleport Proxy, give"
            " --connection-upgrade=always, or else never.",
        )
    what = "connections are upgraded" if need.required else "no connection upgrade is needed"
    return fine(f"{what}: the server {need.reason}")


def _session(seen: UpstreamEvidence) -> Finding:
    if (problem := seen.session_problem or seen.inner_rejection) is not None:
        return failed_with(problem)
    if (session := seen.session) is None:
        return skipped(_why_not(seen))
    pings = "with pings" if session.alpn.endswith("-ping") else "without pings"
    return fine(
        f"the certificate is accepted, for it was not rejected within {REJECTION_TIME:g} s:"
        f" {session.alpn or 'no ALPN'} over {session.tls_version}, {pings}, after"
        f" {session.seconds * _MILLISECONDS:.0f} ms"
    )


def _client_authority(seen: UpstreamEvidence) -> Finding:
    if seen.mode is not Mode.PASSTHROUGH:
        return skipped(f"clients do not see Teleport's certificate in {seen.mode} mode")
    if (problem := seen.verified_problem) is not None:
        return failed_with(problem)
    if (names := seen.verified_by) is None or (identity := seen.identity) is None:
        tried = seen.session is not None or seen.session_problem is not None
        return skipped(_ONLY_STARTTLS if tried else _why_not(seen))
    files = {"host": identity.files.host_ca, "database": identity.files.database_ca}
    good = [str(files[name]) for name in names if files[name] is not None]
    if "host" in names:
        also = f"; {good[1]} would do as well" if len(good) > 1 else ""
        return fine(f"clients verify Teleport with sslrootcert={good[0]}{also}")
    return failed(
        Code.UPSTREAM_UNTRUSTED,
        f"what Teleport shows to clients is not signed by the Host CA in {files['host']}"
        + (f", but by the one in {good[0]}" if good else ""),
        next_step="Check that the destination belongs to this cluster and that tbot renews it.",
    )


UPSTREAM_CHECKS: Final = (
    Check("proxy-address", "the address of the Teleport Proxy is known", _address),
    Check("outbound-proxy", "an outbound proxy is understood", _outbound_proxy),
    Check("proxy-name", "the name can be resolved", _name),
    Check("proxy-tcp", "every address can be connected to", _tcp),
    Check("proxy-certificate", "the certificate on the web port is trusted", _certificate),
    Check("proxy-answers", "the Teleport Proxy says where it wants to be reached", _discovery),
    Check("proxy-clock", "its clock and ours agree", _clock),
    Check("connection-upgrade", "whether a balancer stands in front is known", _upgrade),
    Check("certificate-accepted", "the Teleport Proxy accepts our certificate", _session),
    Check("client-authority", "clients have a file to verify Teleport with", _client_authority),
)
