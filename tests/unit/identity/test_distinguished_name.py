"""Names in certificates, against the library and against damage."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from hypothesis import given
from hypothesis import strategies as st
from identities import Cluster, make_certificate, make_key

from dbproxy.identity.distinguished_name import read_issuer, read_subject

KEY = make_key()
OIDS = (
    "2.5.4.3",
    "2.5.4.10",
    "1.3.9999.2.1",
    "1.3.9999.1.20",
    "2.999.1",
    "0.9.2342",
    "1.2.840.113549",
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60)


@given(values=st.lists(st.tuples(st.sampled_from(OIDS), TEXTS), max_size=8))
def test_a_name_is_read_as_it_was_written(cluster: Cluster, values: list[tuple[str, str]]) -> None:
    certificate = make_certificate(cluster.user, KEY, tuple(values))
    assert read_subject(certificate) == tuple(values)
    assert read_issuer(certificate) == read_subject(cluster.user.certificate)


@pytest.mark.parametrize(
    "kind",
    [
        _ASN1Type.UTF8String,
        _ASN1Type.PrintableString,
        _ASN1Type.T61String,
        _ASN1Type.IA5String,
        _ASN1Type.NumericString,
        _ASN1Type.VisibleString,
        _ASN1Type.BMPString,
    ],
)
def test_every_kind_of_text_is_read(cluster: Cluster, kind: _ASN1Type) -> None:
    oid = x509.ObjectIdentifier("1.3.9999.2.1")
    name = x509.Name([x509.NameAttribute(oid, "12345", kind)])
    authority = cluster.user
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(authority.certificate.subject)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(authority.certificate.not_valid_before_utc)
        .not_valid_after(authority.certificate.not_valid_after_utc)
        .sign(authority.key, hashes.SHA256())
    )
    assert read_subject(certificate) == (("1.3.9999.2.1", "12345"),)


def test_long_and_empty_values_are_read(cluster: Cluster) -> None:
    values = (("2.5.4.9", ""), ("2.5.4.17", "x" * 70_000), ("2.5.4.10", "y" * 200))
    assert read_subject(make_certificate(cluster.user, KEY, values)) == values


@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
@pytest.mark.filterwarnings("ignore:Parsed a serial number", "ignore:The parsed certificate")
def test_a_changed_byte_is_refused_or_read_without_a_crash(
    cluster: Cluster, position: int, byte: int
) -> None:
    der = bytearray(make_certificate(cluster.user, KEY).public_bytes(Encoding.DER))
    der[position % len(der)] = byte
    try:
        certificate = x509.load_der_x509_certificate(bytes(der))
        names = read_subject(certificate), read_issuer(certificate)
    except (ValueError, x509.InvalidVersion):
        return
    assert all(isinstance(value, str) for name in names for _, value in name)
