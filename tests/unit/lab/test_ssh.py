from __future__ import annotations

from datetime import UTC, datetime

from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from dbproxy.lab.keys import new_ecdsa_key
from dbproxy.lab.ssh import SshAuthority, public_key_line

START = datetime(2026, 5, 6, tzinfo=UTC)
END = datetime(2026, 5, 7, tzinfo=UTC)


def issue(authority: SshAuthority, *, logins: tuple[str, ...] = ()) -> SSHCertificate:
    line = authority.issue_user_certificate(
        new_ecdsa_key().public_key(),
        user="bot-app",
        logins=logins,
        roles=("access", "editor"),
        not_before=START,
        not_after=END,
    )
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    loaded = load_ssh_public_identity(line)
    assert isinstance(loaded, SSHCertificate)
    return loaded


def test_a_certificate_names_user_roles_and_validity() -> None:
    certificate = issue(SshAuthority.create("lab.example.com"), logins=("root",))
    certificate.verify_cert_signature()
    assert certificate.key_id == b"bot-app"
    assert certificate.valid_principals == [b"root"]
    assert certificate.valid_after == START.timestamp()
    assert certificate.valid_before == END.timestamp()
    assert certificate.extensions[b"teleport-roles"] == (
        b'{"version": "v1", "roles": ["access", "editor"]}'
    )


def test_a_certificate_without_logins_still_has_a_principal() -> None:
    certificate = issue(SshAuthority.create("lab.example.com"))
    assert certificate.valid_principals == [b"-teleport-internal-join"]


def test_a_certificate_line_starts_with_the_certificate_type() -> None:
    line = SshAuthority.create("lab.example.com").issue_user_certificate(
        new_ecdsa_key().public_key(),
        user="bot-app",
        logins=(),
        roles=(),
        not_before=START,
        not_after=END,
    )
    assert line.startswith(b"ecdsa-sha2-nistp256-cert-v01@openssh.com AAAA")


def test_the_known_hosts_line_trusts_the_authority_for_the_cluster() -> None:
    authority = SshAuthority.create("lab.example.com")
    marker, hosts, *key, comment = authority.known_hosts_line.split()
    assert (marker, hosts) == (b"@cert-authority", b"lab.example.com,*.lab.example.com")
    assert comment == b"type=host"
    assert b" ".join(key) + b"\n" == public_key_line(authority.key.public_key())


def test_an_authority_shows_no_private_key() -> None:
    assert "key=" not in repr(SshAuthority.create("lab.example.com"))
