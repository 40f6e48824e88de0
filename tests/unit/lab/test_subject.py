from __future__ import annotations

import string
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from dbproxy.lab.authority import Authority
from dbproxy.lab.errors import LabError
from dbproxy.lab.keys import new_ecdsa_key
from dbproxy.lab.subject import SubjectFields, decode_subject, encode_subject

AUTHORITY = Authority.create()
PUBLIC_KEY = new_ecdsa_key().public_key()

FULL = SubjectFields(
    user="bot-app",
    roles=("a", "b"),
    logins=("root",),
    cluster_route="lab.example.com",
    traits={"db_users": ("alice",), "logins": ()},
    usage=("usage:db",),
    service="example-server",
    protocol="postgres",
    db_user="alice",
    db_name="example",
    db_names=("example", "*"),
    db_users=("z", "alice"),
    impersonator="bot-app",
    disallow_reissue=True,
    cluster="lab.example.com",
    bot_name="app",
    bot_instance_id="0b0e9f0e-0000-4000-8000-000000000000",
    db_roles=("reader", "writer"),
    renewable=True,
    generation=7,
    previous_identity_expires=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    login_ip="192.0.2.1",
    pinned_ip="192.0.2.2",
    extra=(("1.3.9999.2.14", "oss"), ("1.3.9999.3.1", "device")),
)


def through_a_certificate(fields: SubjectFields) -> SubjectFields:
    certificate = AUTHORITY.issue_user_certificate(PUBLIC_KEY, fields, timedelta(minutes=1))
    return decode_subject(certificate.subject)


def dotted(name: x509.Name) -> list[tuple[str, str | bytes]]:
    return [(attribute.oid.dotted_string, attribute.value) for attribute in name]


def name_of(*attributes: tuple[str, str]) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(x509.ObjectIdentifier(oid), value) for oid, value in attributes]
    )


def test_every_field_survives_a_certificate() -> None:
    assert through_a_certificate(FULL) == FULL


def test_fields_have_the_numbers_of_teleport() -> None:
    assert dotted(encode_subject(FULL)) == [
        ("2.5.4.10", "a"),
        ("2.5.4.10", "b"),
        ("2.5.4.11", "usage:db"),
        ("2.5.4.7", "root"),
        ("2.5.4.9", "lab.example.com"),
        ("2.5.4.17", '{"db_users":["alice"],"logins":null}'),
        ("2.5.4.3", "bot-app"),
        ("1.3.9999.1.7", "lab.example.com"),
        ("1.3.9999.1.9", "192.0.2.1"),
        ("1.3.9999.2.1", "example-server"),
        ("1.3.9999.2.2", "postgres"),
        ("1.3.9999.2.3", "alice"),
        ("1.3.9999.2.4", "example"),
        ("1.3.9999.2.7", "bot-app"),
        ("1.3.9999.2.15", "192.0.2.2"),
        ("1.3.9999.2.18", "app"),
        ("1.3.9999.2.20", "0b0e9f0e-0000-4000-8000-000000000000"),
        ("1.3.9999.2.5", "example"),
        ("1.3.9999.2.5", "*"),
        ("1.3.9999.2.6", "z"),
        ("1.3.9999.2.6", "alice"),
        ("1.3.9999.2.19", "reader"),
        ("1.3.9999.2.19", "writer"),
        ("1.3.9999.1.13", "true"),
        ("1.3.9999.2.9", "true"),
        ("1.3.9999.1.14", "7"),
        ("1.3.9999.2.12", "2026-01-02T03:04:05Z"),
        ("1.3.9999.2.14", "oss"),
        ("1.3.9999.3.1", "device"),
    ]


def test_empty_fields_are_not_written_except_the_cluster_route() -> None:
    assert dotted(encode_subject(SubjectFields("alice", roles=("access",)))) == [
        ("2.5.4.10", "access"),
        ("2.5.4.9", ""),
        ("2.5.4.17", "{}"),
        ("2.5.4.3", "alice"),
    ]


def test_an_empty_cluster_route_survives_a_certificate() -> None:
    fields = SubjectFields("alice", cluster_route="")
    certificate = AUTHORITY.issue_user_certificate(PUBLIC_KEY, fields, timedelta(minutes=1))
    streets = certificate.subject.get_attributes_for_oid(NameOID.STREET_ADDRESS)
    assert [street.value for street in streets] == [""]


def test_roles_share_one_rdn_as_go_writes_them() -> None:
    rdns = encode_subject(SubjectFields("alice", roles=("b", "a"))).rdns
    assert [len(list(rdn)) for rdn in rdns] == [2, 1, 1, 1]


def test_a_repeated_role_is_written_once() -> None:
    assert through_a_certificate(SubjectFields("alice", roles=("a", "a"))).roles == ("a",)


def test_database_names_are_rdns_of_their_own_and_keep_their_order() -> None:
    fields = SubjectFields("alice", db_names=("zz", "a"))
    assert through_a_certificate(fields).db_names == ("zz", "a")


@pytest.mark.parametrize("user", ["", "x" * 65])
def test_a_common_name_of_impossible_length_is_refused(user: str) -> None:
    with pytest.raises(LabError, match="cannot encode the subject"):
        encode_subject(SubjectFields(user))


def test_an_extra_attribute_with_a_bad_oid_is_refused() -> None:
    with pytest.raises(LabError, match="cannot encode the subject"):
        encode_subject(SubjectFields("alice", extra=(("not-an-oid", "x"),)))


@pytest.mark.parametrize("traits", ["null", "", '{"logins":null}'])
def test_null_traits_of_go_are_read_as_empty(traits: str) -> None:
    decoded = decode_subject(name_of(("2.5.4.3", "alice"), ("2.5.4.17", traits)))
    assert not any(decoded.traits.values())


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        ("2.5.4.17", "{"),
        ("2.5.4.17", "[]"),
        ("2.5.4.17", '{"logins":1}'),
        ("1.3.9999.1.14", "seven"),
        ("1.3.9999.2.12", "yesterday"),
    ],
)
def test_a_malformed_field_is_named_as_such(oid: str, value: str) -> None:
    with pytest.raises(LabError, match="malformed Teleport subject"):
        decode_subject(name_of(("2.5.4.3", "alice"), (oid, value)))


def test_a_foreign_subject_decodes_to_unknown_attributes() -> None:
    decoded = decode_subject(name_of(("2.5.4.6", "DE"), ("2.5.4.3", "alice")))
    assert decoded == SubjectFields("alice", extra=(("2.5.4.6", "DE"),))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
NAMES = st.lists(TEXT, max_size=4).map(tuple)
UNKNOWN_OIDS = st.sampled_from(["1.3.9999.2.14", "1.3.9999.3.1", "1.2.3.4"])


@settings(deadline=None, max_examples=60)
@given(
    user=st.text(string.ascii_letters + "-._@", min_size=1, max_size=64),
    roles=st.sets(TEXT, max_size=4),
    db_names=NAMES,
    db_users=NAMES,
    traits=st.dictionaries(TEXT, NAMES, max_size=3),
    service=st.just("") | TEXT,
    route=st.just("") | TEXT,
    generation=st.integers(0, 10**12),
    flags=st.tuples(st.booleans(), st.booleans()),
    extra=st.dictionaries(UNKNOWN_OIDS, TEXT, max_size=3),
)
def test_any_identity_survives_a_certificate(
    user: str,
    roles: set[str],
    db_names: tuple[str, ...],
    db_users: tuple[str, ...],
    traits: dict[str, tuple[str, ...]],
    service: str,
    route: str,
    generation: int,
    flags: tuple[bool, bool],
    extra: dict[str, str],
) -> None:
    fields = SubjectFields(
        user=user,
        roles=tuple(roles),
        db_names=db_names,
        db_users=db_users,
        traits=traits,
        service=service,
        cluster_route=route,
        generation=generation,
        renewable=flags[0],
        disallow_reissue=flags[1],
        extra=tuple(extra.items()),
    )
    decoded = through_a_certificate(fields)
    assert set(decoded.roles) == roles
    assert encode_subject(decoded).public_bytes() == encode_subject(fields).public_bytes()


ANY_OID = st.sampled_from(
    ["2.5.4.3", "2.5.4.17", "2.5.4.9", "1.3.9999.1.14", "1.3.9999.2.1", "1.3.9999.2.12", "1.2.3"]
)


@settings(deadline=None)
@given(st.lists(st.tuples(ANY_OID, st.text(min_size=1, max_size=30)), min_size=1, max_size=8))
def test_any_subject_decodes_or_is_named_malformed(attributes: list[tuple[str, str]]) -> None:
    with suppress(LabError):
        assert isinstance(decode_subject(name_of(*attributes)), SubjectFields)
