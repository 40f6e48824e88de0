"""Each fault of a server's certificate, shown by a real TLS server: refused with its own code.

The cases are those of badssl.com, as far as they concern certificates and versions.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import trio
from bad_servers import Issued, issue, lax_context
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from dialers import make_dialer
from identities import HOUR
from loopback import TLSStream, open_server, tls_handler
from tls_peers import BOTH_VERSIONS

from dbproxy.errors import PROBLEMS, Code, UpstreamError
from dbproxy.identity import Identity
from dbproxy.protocols import protocol_named
from dbproxy.protocols.wire.postgres import sqlstate_of
from dbproxy.upstream import ProxyAddress, UpstreamTrust

HOST = "127.0.0.1"
ALPN = ("teleport-postgres-ping", "teleport-postgres")


@dataclass(frozen=True)
class Authorities:
    """What the cases are made with; only `root` and `organised` are trusted."""

    root: Issued
    rsa_root: Issued
    organised: Issued
    foreign: Issued
    intermediate: Issued
    weak_key: RSAPrivateKey = field(repr=False)


@pytest.fixture(scope="module")
def authorities() -> Authorities:
    root = issue(None, common_name="Root", ca=True)
    rsa = generate_private_key(65537, 2048)
    return Authorities(
        root,
        issue(None, common_name="RSA Root", ca=True, key=rsa),
        issue(None, common_name="Corporate Root", organisation="Example Corp", ca=True),
        issue(None, common_name="Foreign", ca=True),
        issue(root, common_name="Intermediate", ca=True),
        generate_private_key(65537, 1024),
    )


Make = Callable[[Authorities], Issued]


def of_root(*names: str, **options: object) -> Make:
    return lambda made: issue(made.root, *(names or (HOST,)), **options)  # type: ignore[arg-type]


def with_sha1_intermediate(made: Authorities) -> Issued:
    weak = issue(made.rsa_root, common_name="Old Intermediate", ca=True, sha1_signature=True)
    return issue(weak, HOST, chain=(weak,))


def with_expired_intermediate(made: Authorities) -> Issued:
    expired = issue(made.root, common_name="Last Year's", ca=True, not_after=-HOUR / 2)
    return issue(expired, HOST, chain=(expired,))


def with_foreign_intermediate(made: Authorities) -> Issued:
    foreign = issue(made.foreign, common_name="Foreign Intermediate", ca=True)
    return issue(foreign, HOST, chain=(foreign,))


def by_organised_intermediate(made: Authorities) -> Issued:
    issuer = issue(
        made.organised, common_name="Corporate Issuing", organisation="Example Corp", ca=True
    )
    return issue(issuer, HOST)


def by_a_namesake(made: Authorities) -> Issued:
    namesake = issue(None, common_name="Corporate Root", organisation="Example Corp", ca=True)
    return issue(namesake, HOST, fetchable=True)


CASES: list[tuple[str, Make, Code, str]] = [
    (
        "expired",
        of_root(not_after=-HOUR / 2),
        Code.UPSTREAM_CERTIFICATE_EXPIRED,
        "(CN=web) has expired",
    ),
    (
        "expired intermediate",
        with_expired_intermediate,
        Code.UPSTREAM_CERTIFICATE_EXPIRED,
        "its issuer (CN=Last Year's) has expired",
    ),
    (
        "not yet valid",
        of_root(not_before=HOUR / 2),
        Code.UPSTREAM_CERTIFICATE_NOT_YET_VALID,
        "is not valid yet",
    ),
    (
        "wrong host",
        of_root("teleport.example.com"),
        Code.UPSTREAM_NAME_MISMATCH,
        "is for teleport.example.com, not for 127.0.0.1",
    ),
    (
        "common name only",
        lambda made: issue(made.root, common_name=HOST),
        Code.UPSTREAM_NAME_MISSING,
        "is for no name at all",
    ),
    (
        "self-signed",
        lambda made: issue(None, HOST),
        Code.UPSTREAM_SELF_SIGNED,
        "is self-signed",
    ),
    (
        "unknown authority",
        lambda made: issue(made.foreign, HOST),
        Code.UPSTREAM_UNTRUSTED,
        "was issued by an authority that is not trusted",
    ),
    (
        "unknown authority, sent along",
        lambda made: issue(made.foreign, HOST, chain=(made.foreign,)),
        Code.UPSTREAM_UNTRUSTED,
        "its issuer (CN=Foreign) is self-signed and not a trusted authority",
    ),
    (
        "unknown authority, intermediate sent along",
        with_foreign_intermediate,
        Code.UPSTREAM_UNTRUSTED,
        "(CN=Foreign Intermediate) was issued by an authority that is not trusted",
    ),
    (
        "namesake of a trusted authority",
        by_a_namesake,
        Code.UPSTREAM_UNTRUSTED,
        "was issued by an authority that is not trusted",
    ),
    (
        "missing intermediate that can be fetched",
        lambda made: issue(made.intermediate, HOST, fetchable=True),
        Code.UPSTREAM_CHAIN_INCOMPLETE,
        "was issued by an authority that is not trusted",
    ),
    (
        "missing intermediate of a trusted organisation",
        by_organised_intermediate,
        Code.UPSTREAM_CHAIN_INCOMPLETE,
        "was issued by an authority that is not trusted",
    ),
    (
        "for clients only",
        of_root(client_only=True),
        Code.UPSTREAM_CERTIFICATE_PURPOSE,
        "is not meant for this end",
    ),
    (
        "SHA-1",
        lambda made: issue(made.rsa_root, HOST, sha1_signature=True),
        Code.UPSTREAM_SIGNATURE_WEAK,
        "(CN=web) is signed with a hash that is too weak",
    ),
    (
        "SHA-1 intermediate",
        with_sha1_intermediate,
        Code.UPSTREAM_SIGNATURE_WEAK,
        "its issuer (CN=Old Intermediate) is signed with a hash that is too weak",
    ),
    (
        "RSA with 1024 bits",
        lambda made: issue(made.root, HOST, key=made.weak_key),
        Code.UPSTREAM_KEY_WEAK,
        "(CN=web) has a key that is too weak",
    ),
]


async def refusal(
    context: ssl.SSLContext, trust: UpstreamTrust, identity: Identity
) -> UpstreamError:
    """How dialling fails; the server must not get through its handshake, so it has seen nothing."""
    context.verify_mode = ssl.CERT_OPTIONAL
    shaken: list[TLSStream] = []

    async def note(stream: TLSStream) -> None:
        shaken.append(stream)
        await trio.lowlevel.checkpoint()

    async with open_server(tls_handler(context, note)) as port:
        dialer = make_dialer(ProxyAddress(HOST, port), trust)
        with pytest.raises(UpstreamError) as caught:
            await dialer.dial(protocol_named("postgres"), identity, authenticate=True)
    assert not shaken, "the server got our certificate or could have got bytes"
    assert f"127.0.0.1:{port}" in caught.value.message
    return caught.value


def trusting(authorities: Authorities) -> UpstreamTrust:
    trusted = (authorities.root, authorities.rsa_root, authorities.organised)
    return UpstreamTrust([one.certificate for one in trusted])


@pytest.mark.parametrize("version", BOTH_VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize(
    ("make", "code", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
async def test_a_fault_has_its_own_code_and_the_server_gets_nothing(
    make: Make,
    code: Code,
    words: str,
    version: ssl.TLSVersion,
    authorities: Authorities,
    identity: Identity,
) -> None:
    context = lax_context(make(authorities), version=version)
    error = await refusal(context, trusting(authorities), identity)
    assert error.code is code
    assert words in error.message
    assert sqlstate_of(code) == "08001"


async def test_a_server_that_speaks_tls_1_1_only_is_too_old(
    authorities: Authorities, identity: Identity
) -> None:
    context = lax_context(issue(authorities.root, HOST), version=ssl.TLSVersion.TLSv1_1)
    error = await refusal(context, trusting(authorities), identity)
    assert error.code is Code.UPSTREAM_TLS_TOO_OLD
    assert "does not speak TLS 1.2 or 1.3" in error.message


@pytest.mark.parametrize(
    "code", [Code.UPSTREAM_CERTIFICATE_EXPIRED, Code.UPSTREAM_CERTIFICATE_NOT_YET_VALID]
)
def test_dates_that_do_not_fit_lead_to_the_clock(code: Code) -> None:
    assert "check the clock" in PROBLEMS[code].next_step.lower()
