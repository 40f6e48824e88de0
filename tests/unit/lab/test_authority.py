from __future__ import annotations

import hashlib
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dbproxy.lab.authority import Authority, CertificateAuthority
from dbproxy.lab.keys import KeyPair, new_ecdsa_key
from dbproxy.lab.subject import SubjectFields, decode_subject

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


def user_pair(authority: Authority, issuer: CertificateAuthority | None = None) -> KeyPair:
    key = new_ecdsa_key()
    certificate = authority.issue_user_certificate(
        key.public_key(), SubjectFields("alice"), timedelta(hours=1), authority=issuer
    )
    return KeyPair(key, certificate)


def context(
    side: int, pair: KeyPair | None, ca: CertificateAuthority, path: Path
) -> ssl.SSLContext:
    made = ssl.SSLContext(side)
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(cadata=ca.pem.decode())
    if side == ssl.PROTOCOL_TLS_SERVER:
        made.verify_mode = ssl.CERT_REQUIRED
    if pair is not None:
        path.write_bytes(pair.key_pem + pair.certificate_pem)
        made.load_cert_chain(path)
    return made


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    for side in sides:
        side.do_handshake()


def test_authorities_carry_the_cluster_name_twice(authority: Authority) -> None:
    for ca in (authority.host_ca, authority.user_ca, authority.database_ca):
        subject = ca.certificate.subject
        for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME):
            assert [a.value for a in subject.get_attributes_for_oid(oid)] == ["lab.example.com"]
        assert ca.certificate.issuer == subject
        assert ca.subject_common_name == "lab.example.com"


def test_authorities_of_one_cluster_have_different_subjects(authority: Authority) -> None:
    assert authority.host_ca.certificate.subject != authority.user_ca.certificate.subject


def test_an_authority_may_sign_certificates_and_a_leaf_may_not(authority: Authority) -> None:
    leaf = user_pair(authority).certificate
    for certificate, ca in ((authority.user_ca.certificate, True), (leaf, False)):
        assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is ca
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        assert (usage.key_cert_sign, usage.digital_signature, usage.key_encipherment) == (
            ca,
            True,
            True,
        )


def test_the_database_ca_is_the_host_ca_until_they_are_split() -> None:
    joint = Authority.create()
    assert joint.database_ca.pem == joint.host_ca.pem
    split = Authority.create(split_database_ca=True)
    assert split.database_ca.pem != split.host_ca.pem


def test_keys_of_authorities_are_p256_or_rsa_on_request(authority: Authority) -> None:
    default = authority.host_ca.certificate.public_key()
    assert isinstance(default, ec.EllipticCurvePublicKey)
    assert default.curve.name == "secp256r1"
    older = CertificateAuthority.create("lab.example.com", rsa=True)
    assert isinstance(older.certificate.public_key(), rsa.RSAPublicKey)


def test_the_pin_is_the_hash_of_the_host_cas_public_key(authority: Authority) -> None:
    public_key = authority.host_ca.certificate.public_key()
    spki = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert authority.ca_pin == "sha256:" + hashlib.sha256(spki).hexdigest()


def test_an_authority_shows_no_private_key(authority: Authority) -> None:
    assert "key=" not in repr(authority.host_ca)


def test_a_user_certificate_has_the_shape_of_teleports(authority: Authority) -> None:
    fields = SubjectFields("bot-app", roles=("access",), service="example-server")
    certificate = authority.issue_user_certificate(
        new_ecdsa_key().public_key(), fields, timedelta(seconds=90), now=NOW
    )
    assert certificate.not_valid_before_utc == NOW - timedelta(minutes=1)
    assert certificate.not_valid_after_utc == NOW + timedelta(seconds=90)
    assert 0 < certificate.serial_number < 2**128
    certificate.verify_directly_issued_by(authority.user_ca.certificate)
    extensions = certificate.extensions
    usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    with pytest.raises(x509.ExtensionNotFound):
        extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert decode_subject(certificate.subject) == fields


def test_serial_numbers_do_not_repeat(authority: Authority) -> None:
    serials = {user_pair(authority).certificate.serial_number for _ in range(20)}
    assert len(serials) == 20


def test_start_of_validity_and_issuer_can_be_chosen(authority: Authority) -> None:
    foreign = CertificateAuthority.create("foreign.example.com")
    certificate = authority.issue_user_certificate(
        new_ecdsa_key().public_key(),
        SubjectFields("alice"),
        timedelta(hours=2),
        now=NOW,
        not_before=NOW + timedelta(hours=1),
        authority=foreign,
    )
    assert certificate.not_valid_before_utc == NOW + timedelta(hours=1)
    certificate.verify_directly_issued_by(foreign.certificate)
    with pytest.raises((ValueError, InvalidSignature)):
        certificate.verify_directly_issued_by(authority.user_ca.certificate)


@pytest.mark.parametrize("kind", ["host", "web"])
def test_server_certificates_name_loopback_and_what_was_asked_for(
    authority: Authority, kind: str
) -> None:
    names = ("teleport.example.com", "192.0.2.7", "localhost")
    pair = (
        authority.issue_proxy_host_certificate(names)
        if kind == "host"
        else authority.issue_web_certificate(names)
    )
    extensions = pair.certificate.extensions
    san = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.DNSName) == ["localhost", "teleport.example.com"]
    assert san.get_values_for_type(x509.IPAddress) == [
        ip_address(text) for text in ("127.0.0.1", "::1", "192.0.2.7")
    ]
    usages = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert (ExtendedKeyUsageOID.CLIENT_AUTH in usages) is (kind == "host")
    issuer = authority.host_ca if kind == "host" else authority.web_ca
    pair.certificate.verify_directly_issued_by(issuer.certificate)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "teleport.example.com"])
def test_the_standard_library_accepts_both_ends_strictly(
    authority: Authority, tmp_path: Path, name: str
) -> None:
    host = authority.issue_proxy_host_certificate(["teleport.example.com"])
    client = context(
        ssl.PROTOCOL_TLS_CLIENT, user_pair(authority), authority.host_ca, tmp_path / "client"
    )
    server = context(ssl.PROTOCOL_TLS_SERVER, host, authority.user_ca, tmp_path / "server")
    handshake(client, server, name)


def test_a_certificate_of_the_host_ca_is_not_a_user_certificate(
    authority: Authority, tmp_path: Path
) -> None:
    host = authority.issue_proxy_host_certificate([])
    foreign = user_pair(authority, authority.host_ca)
    client = context(ssl.PROTOCOL_TLS_CLIENT, foreign, authority.host_ca, tmp_path / "client")
    server = context(ssl.PROTOCOL_TLS_SERVER, host, authority.user_ca, tmp_path / "server")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(client, server, "localhost")


@pytest.mark.parametrize("split", [False, True])
def test_a_rotation_trusts_old_and_new_until_it_ends(split: bool) -> None:
    authority = Authority.create(split_database_ca=split)
    old_host, old_user, old_pin = authority.host_ca, authority.user_ca, authority.ca_pin
    authority.begin_rotation()
    assert authority.host_ca is not old_host
    assert authority.trusted_host_cas == (authority.host_ca, old_host)
    assert authority.trusted_user_cas == (authority.user_ca, old_user)
    assert len(authority.trusted_database_cas) == 2
    assert (authority.database_ca is authority.host_ca) is not split
    assert authority.ca_pin != old_pin
    user_pair(authority).certificate.verify_directly_issued_by(authority.user_ca.certificate)
    authority.end_rotation()
    assert old_host not in authority.trusted_host_cas
    assert old_user not in authority.trusted_user_cas
    assert [ca.pem for ca in authority.trusted_database_cas] == [authority.database_ca.pem]
