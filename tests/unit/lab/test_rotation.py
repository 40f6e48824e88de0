"""A CA rotation: what is trusted, who issues, and what servers show, in each phase."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from dbproxy.lab.authority import Authority, CertificateAuthority
from dbproxy.lab.contexts import ContextSource
from dbproxy.lab.errors import LabError
from dbproxy.lab.rotation import FORCES_RENEWAL, NEXT_PHASES, Phase

FORWARD = (Phase.INIT, Phase.UPDATE_CLIENTS, Phase.UPDATE_SERVERS, Phase.STANDBY)


@pytest.fixture
def authority() -> Authority:
    return Authority.create(split_database_ca=True)


@pytest.mark.parametrize("kind", ["host", "user", "database"])
def test_each_phase_trusts_and_issues_as_it_should(authority: Authority, kind: str) -> None:
    def trusted() -> tuple[CertificateAuthority, ...]:
        found = getattr(authority, f"trusted_{kind}_cas")
        assert isinstance(found, tuple)
        return found

    (old,) = trusted()
    authority.enter(Phase.INIT)
    assert trusted()[0] is old
    new = trusted()[1]
    authority.enter(Phase.UPDATE_CLIENTS)
    assert trusted() == (new, old)
    authority.enter(Phase.UPDATE_SERVERS)
    assert trusted() == (new, old)
    authority.enter(Phase.STANDBY)
    assert trusted() == (new,)


def test_servers_change_their_certificates_after_clients(authority: Authority) -> None:
    old = authority.host_ca
    serving = []
    for phase in FORWARD:
        authority.enter(phase)
        serving.append(authority.serving_host_ca)
    new = authority.host_ca
    assert serving == [old, old, new, new]
    assert new is not old


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_rollback_leads_back_to_the_old_authorities(authority: Authority, steps: int) -> None:
    old_host, old_user = authority.host_ca, authority.user_ca
    for phase in FORWARD[:steps]:
        authority.enter(phase)
    authority.enter(Phase.ROLLBACK)
    assert authority.host_ca is authority.serving_host_ca is old_host
    assert authority.user_ca is old_user
    assert count(authority) == 2
    authority.enter(Phase.STANDBY)
    assert authority.host_ca is authority.serving_host_ca is old_host
    assert authority.user_ca is old_user
    assert count(authority) == 1


def count(authority: Authority) -> int:
    """How many authorities of each kind are trusted."""
    (number,) = {
        len(authority.trusted_host_cas),
        len(authority.trusted_user_cas),
        len(authority.trusted_database_cas),
    }
    return number


@pytest.mark.parametrize("phase", list(Phase))
def test_a_phase_cannot_be_skipped(authority: Authority, phase: Phase) -> None:
    path = {
        Phase.STANDBY: (),
        Phase.INIT: FORWARD[:1],
        Phase.UPDATE_CLIENTS: FORWARD[:2],
        Phase.UPDATE_SERVERS: FORWARD[:3],
        Phase.ROLLBACK: (Phase.INIT, Phase.ROLLBACK),
    }[phase]
    for step in path:
        authority.enter(step)
    trusted = authority.trusted_host_cas
    for wrong in set(Phase) - NEXT_PHASES[phase]:
        with pytest.raises(LabError, match=f"phase {phase} cannot go to {wrong}"):
            authority.enter(wrong)
    assert authority.phase is phase
    assert authority.trusted_host_cas == trusted


def test_only_the_phases_that_concern_clients_force_a_renewal(authority: Authority) -> None:
    forced = {}
    for phase in (*FORWARD, Phase.INIT, Phase.ROLLBACK, Phase.STANDBY):
        before = authority.forced_renewals
        authority.enter(phase)
        forced[phase] = authority.forced_renewals > before
    assert {phase for phase, was in forced.items() if was} == FORCES_RENEWAL
    assert Phase.INIT not in FORCES_RENEWAL
    assert Phase.UPDATE_SERVERS not in FORCES_RENEWAL


async def test_a_forced_renewal_is_waited_for(authority: Authority) -> None:
    authority.enter(Phase.INIT)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(authority.wait_forced_renewal, authority.forced_renewals)
            await trio.testing.wait_all_tasks_blocked()
            authority.enter(Phase.UPDATE_CLIENTS)
        await authority.wait_forced_renewal(0)


@pytest.mark.parametrize("web_from_host_ca", [False, True])
def test_the_proxy_shows_the_new_host_certificate_only_from_update_servers_on(
    authority: Authority, tmp_path: Path, web_from_host_ca: bool
) -> None:
    web = None if web_from_host_ca else authority.issue_web_certificate()
    contexts = ContextSource(authority, tmp_path, web=web, alpn=["teleport-postgres"])
    old = authority.host_ca
    shown = []
    for phase in FORWARD:
        authority.enter(phase)
        current = contexts.current()
        inner = shown_by(current.postgres, tmp_path)
        shown.append(is_from(inner, authority.serving_host_ca))
        outer_issuer = authority.serving_host_ca if web_from_host_ca else authority.web_ca
        assert is_from(shown_by(current.outer, tmp_path), outer_issuer)
        if phase is Phase.UPDATE_CLIENTS:
            assert is_from(inner, old)
    assert shown == [True] * 4
    assert not is_from(shown_by(contexts.current().postgres, tmp_path), old)


def shown_by(context: ssl.SSLContext, directory: Path) -> x509.Certificate:
    """The certificate that a server context shows to a client which checks nothing."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.minimum_version = ssl.TLSVersion.TLSv1_3  # done for the client before it has shown one
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server)
    there = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (here, there, here):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    der = here.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


def is_from(certificate: x509.Certificate, authority: CertificateAuthority) -> bool:
    """Whether the authority issued the certificate, told by the key of its issuer."""
    identifier = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own = x509.SubjectKeyIdentifier.from_public_key(authority.key.public_key())
    return identifier.key_identifier == own.digest


def test_the_certificate_files_name_the_issuing_authority_first(authority: Authority) -> None:
    authority.begin_rotation()
    first = authority.trusted_user_cas[0].certificate
    assert first.public_bytes(Encoding.PEM) == authority.user_ca.pem
