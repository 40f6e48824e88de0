"""The identity that Teleport keeps in a certificate's subject.

Teleport does not use X.509 extensions for this, in spite of its names: every field is a further
attribute of the subject's distinguished name. Names and numbers are those of lib/tlsca/ca.go.
Three habits of Go's crypto/x509/pkix are kept, because readers must cope with them: the values of
O, OU and L share one multi-valued RDN each (which DER sorts), every other attribute is an RDN of
its own, and STREET is always there, an empty string included.

One difference remains: Go encodes printable values as PrintableString, this module always as
UTF8String.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

from dbproxy.lab.errors import LabError

_ROOT = "1.3.9999"
OID_CLUSTER = x509.ObjectIdentifier(f"{_ROOT}.1.7")
OID_LOGIN_IP = x509.ObjectIdentifier(f"{_ROOT}.1.9")
OID_RENEWABLE = x509.ObjectIdentifier(f"{_ROOT}.1.13")
OID_GENERATION = x509.ObjectIdentifier(f"{_ROOT}.1.14")
OID_SERVICE = x509.ObjectIdentifier(f"{_ROOT}.2.1")
OID_PROTOCOL = x509.ObjectIdentifier(f"{_ROOT}.2.2")
OID_DB_USER = x509.ObjectIdentifier(f"{_ROOT}.2.3")
OID_DB_NAME = x509.ObjectIdentifier(f"{_ROOT}.2.4")
OID_DB_NAMES = x509.ObjectIdentifier(f"{_ROOT}.2.5")
OID_DB_USERS = x509.ObjectIdentifier(f"{_ROOT}.2.6")
OID_IMPERSONATOR = x509.ObjectIdentifier(f"{_ROOT}.2.7")
OID_DISALLOW_REISSUE = x509.ObjectIdentifier(f"{_ROOT}.2.9")
OID_PREVIOUS_IDENTITY_EXPIRES = x509.ObjectIdentifier(f"{_ROOT}.2.12")
OID_PINNED_IP = x509.ObjectIdentifier(f"{_ROOT}.2.15")
OID_BOT_NAME = x509.ObjectIdentifier(f"{_ROOT}.2.18")
OID_DB_ROLES = x509.ObjectIdentifier(f"{_ROOT}.2.19")
OID_BOT_INSTANCE_ID = x509.ObjectIdentifier(f"{_ROOT}.2.20")

_TRUE = "true"

# Attribute -> field. A list of the first table shares one RDN, one of the second has an RDN per
# value.
_SHARED_LISTS = {
    NameOID.ORGANIZATION_NAME: "roles",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "usage",
    NameOID.LOCALITY_NAME: "logins",
}
_LISTS = {OID_DB_NAMES: "db_names", OID_DB_USERS: "db_users", OID_DB_ROLES: "db_roles"}
_STRINGS = {
    OID_CLUSTER: "cluster",
    OID_LOGIN_IP: "login_ip",
    OID_SERVICE: "service",
    OID_PROTOCOL: "protocol",
    OID_DB_USER: "db_user",
    OID_DB_NAME: "db_name",
    OID_IMPERSONATOR: "impersonator",
    OID_PINNED_IP: "pinned_ip",
    OID_BOT_NAME: "bot_name",
    OID_BOT_INSTANCE_ID: "bot_instance_id",
}
_FLAGS = {OID_RENEWABLE: "renewable", OID_DISALLOW_REISSUE: "disallow_reissue"}


@dataclass(frozen=True)
class SubjectFields:
    """What a Teleport user certificate says about its holder; empty values are not written.

    Attributes:
        user: Common name; for a bot `bot-<name>`.
        roles: Teleport roles (O). Order is not kept by the encoding.
        logins: Allowed operating-system logins (L). Order is not kept by the encoding.
        cluster_route: Cluster that the certificate routes to (STREET); written even when empty.
        traits: User traits, JSON in postalCode; an empty list is written as null.
        usage: Usage restrictions (OU), for example `usage:db`; empty means unrestricted.
        service: Database service name of the route; a database certificate has one.
        protocol: Database protocol of the route, for example `postgres`.
        db_user: Database user of the route.
        db_name: Database name of the route.
        db_names: Database names that the roles allow.
        db_users: Database users that the roles allow.
        impersonator: User who asked for an impersonated certificate.
        disallow_reissue: Whether the holder must not get further certificates with this one.
        cluster: Cluster of origin.
        bot_name: Name of the bot, without `bot-`.
        bot_instance_id: UUID of one joined bot process.
        db_roles: Requested database roles.
        renewable: Whether a bot may renew with this certificate.
        generation: Renewal counter of a renewable certificate; 0 is absent.
        previous_identity_expires: Expiry of the certificate that this one replaces.
        login_ip: Address the user logged in from.
        pinned_ip: Only address that may use the certificate.
        extra: Further attributes as (dotted OID, value), kept in order.
    """

    user: str
    roles: tuple[str, ...] = ()
    logins: tuple[str, ...] = ()
    cluster_route: str = ""
    traits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    usage: tuple[str, ...] = ()
    service: str = ""
    protocol: str = ""
    db_user: str = ""
    db_name: str = ""
    db_names: tuple[str, ...] = ()
    db_users: tuple[str, ...] = ()
    impersonator: str = ""
    disallow_reissue: bool = False
    cluster: str = ""
    bot_name: str = ""
    bot_instance_id: str = ""
    db_roles: tuple[str, ...] = ()
    renewable: bool = False
    generation: int = 0
    previous_identity_expires: datetime | None = None
    login_ip: str = ""
    pinned_ip: str = ""
    extra: tuple[tuple[str, str], ...] = ()


def encode_subject(fields: SubjectFields) -> x509.Name:
    """Encode an identity as a certificate subject.

    Raises:
        LabError: The user name is empty or longer than the 64 bytes that X.520 allows a common
            name.
    """
    try:
        return x509.Name(_rdns(fields))
    except ValueError as error:
        raise LabError(f"cannot encode the subject of {fields.user!r}: {error}") from error


def _rdns(fields: SubjectFields) -> Iterator[x509.RelativeDistinguishedName]:
    # The order of pkix.Name.ToRDNSequence: standard attributes first, then Teleport's own.
    for oid, name in _SHARED_LISTS.items():
        if values := _strings(fields, name):
            yield _rdn(oid, values)
    yield _rdn(NameOID.STREET_ADDRESS, [fields.cluster_route])
    yield _rdn(NameOID.POSTAL_CODE, [_traits_json(fields.traits)])
    yield _rdn(NameOID.COMMON_NAME, [fields.user])
    for oid, value in _teleport_attributes(fields):
        yield _rdn(oid, [value])


def _rdn(oid: x509.ObjectIdentifier, values: Iterable[str]) -> x509.RelativeDistinguishedName:
    # An RDN is a set: a repeated value cannot be written twice.
    unique = dict.fromkeys(values)
    return x509.RelativeDistinguishedName(x509.NameAttribute(oid, value) for value in unique)


def _traits_json(traits: Mapping[str, tuple[str, ...]]) -> str:
    # Go writes a list without values as null.
    lists = {key: list(values) or None for key, values in traits.items()}
    return json.dumps(lists, separators=(",", ":"))


def _teleport_attributes(fields: SubjectFields) -> Iterator[tuple[x509.ObjectIdentifier, str]]:
    for oid, name in _STRINGS.items():
        if value := _string(fields, name):
            yield oid, value
    for oid, name in _LISTS.items():
        for value in _strings(fields, name):
            yield oid, value
    for oid, name in _FLAGS.items():
        if getattr(fields, name):
            yield oid, _TRUE
    if fields.generation:
        yield OID_GENERATION, str(fields.generation)
    if fields.previous_identity_expires is not None:
        yield OID_PREVIOUS_IDENTITY_EXPIRES, _rfc3339(fields.previous_identity_expires)
    for dotted, value in fields.extra:
        yield x509.ObjectIdentifier(dotted), value


def _string(fields: SubjectFields, name: str) -> str:
    value: str = getattr(fields, name)
    return value


def _strings(fields: SubjectFields, name: str) -> tuple[str, ...]:
    values: tuple[str, ...] = getattr(fields, name)
    return values


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def decode_subject(name: x509.Name) -> SubjectFields:
    """Read an identity from a certificate subject; the inverse of `encode_subject`.

    Attributes that this module does not know end up in `SubjectFields.extra`. Of a repeated
    single-valued attribute the last one counts.

    Raises:
        LabError: A generation, an expiry or the traits cannot be read.
    """
    values: dict[x509.ObjectIdentifier, list[str]] = {}
    for attribute in name:
        values.setdefault(attribute.oid, []).append(_text(attribute.value))
    try:
        return _decode(values)
    except ValueError as error:
        raise LabError(f"malformed Teleport subject: {error}") from error


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _decode(values: dict[x509.ObjectIdentifier, list[str]]) -> SubjectFields:
    def take(oid: x509.ObjectIdentifier) -> str:
        return values.pop(oid, [""])[-1]

    def take_all(oid: x509.ObjectIdentifier) -> tuple[str, ...]:
        return tuple(values.pop(oid, ()))

    return SubjectFields(
        user=take(NameOID.COMMON_NAME),
        roles=take_all(NameOID.ORGANIZATION_NAME),
        logins=take_all(NameOID.LOCALITY_NAME),
        cluster_route=take(NameOID.STREET_ADDRESS),
        traits=_parse_traits(take(NameOID.POSTAL_CODE)),
        usage=take_all(NameOID.ORGANIZATIONAL_UNIT_NAME),
        service=take(OID_SERVICE),
        protocol=take(OID_PROTOCOL),
        db_user=take(OID_DB_USER),
        db_name=take(OID_DB_NAME),
        db_names=take_all(OID_DB_NAMES),
        db_users=take_all(OID_DB_USERS),
        impersonator=take(OID_IMPERSONATOR),
        disallow_reissue=take(OID_DISALLOW_REISSUE) == _TRUE,
        cluster=take(OID_CLUSTER),
        bot_name=take(OID_BOT_NAME),
        bot_instance_id=take(OID_BOT_INSTANCE_ID),
        db_roles=take_all(OID_DB_ROLES),
        renewable=take(OID_RENEWABLE) == _TRUE,
        generation=int(take(OID_GENERATION) or "0"),
        previous_identity_expires=_parse_time(take(OID_PREVIOUS_IDENTITY_EXPIRES)),
        login_ip=take(OID_LOGIN_IP),
        pinned_ip=take(OID_PINNED_IP),
        # Arguments are evaluated in order: what is left here is unknown.
        extra=tuple((oid.dotted_string, value) for oid in values for value in values[oid]),
    )


def _parse_traits(text: str) -> dict[str, tuple[str, ...]]:
    # Go writes a nil map or a nil list as null.
    document: object = json.loads(text or "null")
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise LabError("malformed Teleport subject: the traits are not a JSON object")
    return {str(key): _parse_trait(value) for key, value in document.items()}


def _parse_trait(values: object) -> tuple[str, ...]:
    if values is None:
        return ()
    if not isinstance(values, list):
        raise LabError("malformed Teleport subject: a trait is not a JSON list")
    return tuple(str(value) for value in values)


def _parse_time(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
