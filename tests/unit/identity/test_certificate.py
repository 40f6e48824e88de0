"""Teleport's subject attributes, as Go writes them and as they should never be."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from identities import Attributes, Cluster, make_certificate, make_key, subject_attributes

from dbproxy.errors import Code, IdentityError
from dbproxy.identity import Route, Subject, parse_subject

KEY = make_key()


def parse(cluster: Cluster, attributes: Attributes) -> Subject:
    return parse_subject(make_certificate(cluster.user, KEY, attributes))


def test_the_route_is_read_from_the_database_attributes(cluster: Cluster) -> None:
    subject = parse(cluster, subject_attributes(roles=("reader", "writer")))
    assert subject.route == Route(
        service="example-server",
        protocol="postgres",
        username="alice",
        database="example",
        roles=("reader", "writer"),
    )


def test_absent_user_and_database_are_none(cluster: Cluster) -> None:
    subject = parse(cluster, subject_attributes(username=None, database=None))
    assert subject.route == Route("example-server", "postgres", None, None, ())


def test_a_certificate_without_a_service_has_no_route(cluster: Cluster) -> None:
    assert parse(cluster, subject_attributes(service=None)).route is None


def test_an_empty_service_is_no_route(cluster: Cluster) -> None:
    assert parse(cluster, subject_attributes(service="")).route is None


def test_a_route_without_protocol_has_an_empty_one(cluster: Cluster) -> None:
    route = parse(cluster, subject_attributes(protocol=None)).route
    assert route is not None
    assert not route.protocol


def test_the_holder_is_described(cluster: Cluster) -> None:
    subject = parse(
        cluster,
        subject_attributes(
            extra=(
                ("2.5.4.11", "usage:db"),
                ("2.5.4.10", "second-role"),
                ("1.3.9999.1.20", "local"),
                ("1.3.9999.2.5", "example"),
                ("1.3.9999.2.5", "postgres"),
                ("1.3.9999.2.6", "alice"),
                ("1.3.9999.2.7", "bot-impersonator"),
                ("1.3.9999.2.9", "true"),
                ("1.3.9999.2.15", "192.0.2.1"),
                ("1.3.9999.2.18", "app"),
                ("1.3.9999.2.20", "5dd4ff8f-16b4-4c7f-a0b8-ac0c8f1c6a3f"),
            )
        ),
    )
    assert subject.user == "bot-app"
    assert subject.roles == ("machine-id-db", "second-role")
    assert subject.usage == ("usage:db",)
    assert subject.cluster == "teleport.example.com"
    assert subject.user_type == "local"
    assert subject.allowed_database_names == ("example", "postgres")
    assert subject.allowed_database_users == ("alice",)
    assert subject.impersonator == "bot-impersonator"
    assert subject.disallow_reissue
    assert subject.pinned_ip == "192.0.2.1"
    assert subject.bot_name == "app"
    assert subject.bot_instance_id == "5dd4ff8f-16b4-4c7f-a0b8-ac0c8f1c6a3f"


def test_what_only_people_want_to_know_is_read(cluster: Cluster) -> None:
    subject = parse(
        cluster,
        (
            ("2.5.4.17", '{"db_users":["alice","bob"],"logins":null,"odd":[1,"x"]}'),
            ("1.3.9999.1.8", "4e6bd8a5-0d1f-4b07-b3fb-0ac1a5f6c3a0"),
            ("1.3.9999.1.9", "198.51.100.7"),
            ("1.3.9999.1.13", "true"),
            ("1.3.9999.1.14", "42"),
            ("1.3.9999.1.15", "none"),
            ("1.3.9999.2.8", "request-1"),
            ("1.3.9999.2.8", "request-2"),
            ("1.3.9999.2.10", '["/teleport.example.com/db/example-server"]'),
            ("1.3.9999.2.11", "Bot"),
            ("1.3.9999.2.12", "2026-01-02T04:04:05.123456789+01:00"),
            ("1.3.9999.3.1", "device"),
            ("1.3.9999.3.2", "C02ABC"),
        ),
    )
    assert subject.traits == (("db_users", ("alice", "bob")), ("logins", ()), ("odd", ("x",)))
    assert subject.mfa_device == "4e6bd8a5-0d1f-4b07-b3fb-0ac1a5f6c3a0"
    assert subject.login_ip == "198.51.100.7"
    assert subject.renewable
    assert subject.generation == 42
    assert subject.key_policy == "none"
    assert subject.access_requests == ("request-1", "request-2")
    assert subject.allowed_resources == '["/teleport.example.com/db/example-server"]'
    assert subject.system_roles == ("Bot",)
    assert subject.previous_expiry == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert subject.device_id == "device"
    assert subject.device_asset_tag == "C02ABC"


@pytest.mark.parametrize("text", ["soon", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+23:00", "2"])
def test_a_time_that_is_none_is_left_out(cluster: Cluster, text: str) -> None:
    assert parse(cluster, (("1.3.9999.2.12", text),)).previous_expiry is None


@pytest.mark.parametrize("text", ["many", "-1", "²", "9" * 21, "1_0"])
def test_a_generation_that_is_no_number_is_left_out(cluster: Cluster, text: str) -> None:
    assert parse(cluster, (("1.3.9999.1.14", text),)).generation is None


@pytest.mark.parametrize("text", ["12345 Berlin", "[1]", "7", "null", "[" * 10_000, '{"a":' * 9000])
def test_a_postal_code_that_holds_no_traits_is_left_out(cluster: Cluster, text: str) -> None:
    assert parse(cluster, (("2.5.4.17", text),)).traits == ()


def test_optional_attributes_are_absent_by_default(cluster: Cluster) -> None:
    subject = parse(cluster, subject_attributes())
    assert subject.impersonator is None
    assert not subject.disallow_reissue
    assert subject.bot_name is None
    assert subject.usage == ()


def test_an_empty_street_means_no_route_to_a_cluster(cluster: Cluster) -> None:
    assert parse(cluster, (("2.5.4.9", ""), ("2.5.4.3", "alice"))).route_to_cluster is None


def test_a_street_names_the_cluster_to_route_to(cluster: Cluster) -> None:
    subject = parse(cluster, (("2.5.4.9", "leaf.example.com"), ("2.5.4.9", "other")))
    assert subject.route_to_cluster == "leaf.example.com"


def test_of_a_repeated_value_the_last_counts(cluster: Cluster) -> None:
    subject = parse(cluster, subject_attributes(extra=(("1.3.9999.2.1", "second"),)))
    assert subject.route is not None
    assert subject.route.service == "second"


def test_unknown_identifiers_and_long_values_are_harmless(cluster: Cluster) -> None:
    traits = f'{{"logins":["{"x" * 9000}"]}}'
    extra = (("1.3.9999.2.4711", "new"), ("1.2.3.4", "foreign"), ("2.5.4.17", traits))
    subject = parse(cluster, subject_attributes(extra=extra))
    assert subject.route is not None


def test_a_certificate_of_another_kind_has_an_empty_subject(cluster: Cluster) -> None:
    subject = parse(cluster, (("2.5.4.6", "DE"),))
    assert not subject.user
    assert subject.roles == ()
    assert subject.route is None


def test_values_that_share_one_relative_name_are_all_read(cluster: Cluster) -> None:
    roles = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, role) for role in ("one", "two")]
    name = x509.Name([x509.RelativeDistinguishedName(roles)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(cluster.user.certificate.not_valid_before_utc)
        .not_valid_after(cluster.user.certificate.not_valid_after_utc)
        .sign(KEY, hashes.SHA256())
    )
    assert sorted(parse_subject(certificate).roles) == ["one", "two"]


@given(
    values=st.lists(
        st.tuples(
            st.sampled_from([f"1.3.9999.2.{number}" for number in range(1, 25)] + ["2.5.4.10"]),
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60),
        ),
        max_size=12,
    )
)
@settings(max_examples=40, deadline=None)
def test_any_attributes_give_a_subject(cluster: Cluster, values: list[tuple[str, str]]) -> None:
    subject = parse(cluster, tuple(values))
    services = [value for oid, value in values if oid == "1.3.9999.2.1"]
    service = subject.route.service if subject.route is not None else None
    assert service == (services[-1] if services else None)
    assert subject.roles == tuple(value for oid, value in values if oid == "2.5.4.10")


@pytest.mark.parametrize(
    ("kind", "value"),
    [(b"\x0c\x0e", b"\xff\xfe" * 7), (b"\x03\x0e", b"\0" * 14)],
    ids=["not UTF-8", "a bit string"],
)
def test_a_subject_that_is_not_text_is_refused_with_the_file(
    cluster: Cluster, kind: bytes, value: bytes
) -> None:
    certificate = make_certificate(cluster.user, KEY, (("1.3.9999.2.1", "example-server"),))
    der = certificate.public_bytes(Encoding.DER)
    damaged = der.replace(b"\x0c\x0eexample-server", kind + value)
    with pytest.raises(IdentityError) as caught:
        parse_subject(x509.load_der_x509_certificate(damaged), Path("/opt/machine-id/tlscert"))
    assert caught.value.code is Code.IDENTITY_MALFORMED
    assert "/opt/machine-id/tlscert" in str(caught.value)


def test_a_user_name_longer_than_the_standard_allows_is_read(cluster: Cluster) -> None:
    """Go's encoder does not enforce the 64 characters of RFC 5280, appendix A.1."""
    short = make_certificate(cluster.user, KEY, (("2.5.4.17", "u" * 100),))
    der = short.public_bytes(Encoding.DER).replace(b"\x55\x04\x11", b"\x55\x04\x03")
    assert parse_subject(x509.load_der_x509_certificate(der)).user == "u" * 100
