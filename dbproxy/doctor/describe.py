"""What was read and what it allows, as plain values that JSON can hold; never a private key."""

from dataclasses import fields
from datetime import UTC, datetime
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from dbproxy.doctor.evidence import Evidence
from dbproxy.doctor.examination import Outcome, Report
from dbproxy.doctor.files import FileFacts
from dbproxy.identity import Identity, Role, Route, Subject, UsedFile
from dbproxy.identity.distinguished_name import read_issuer

__all__ = [
    "Plain",
    "authorities",
    "describe",
    "describe_outcome",
    "fingerprint",
    "issuer",
    "key_kind",
]

_ORGANIZATION: Final = "2.5.4.10"

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"
"""What JSON can hold."""


def describe(evidence: Evidence, report: Report) -> dict[str, Plain]:
    """Everything that is known about the identity.

    Times are ISO 8601 in UTC, spans are in seconds, fingerprints are SHA-256 of the DER encoding in
    hexadecimal. What is not known is null.
    """
    explanation = evidence.explanation
    return {
        "layout": explanation.layout if explanation is not None else None,
        "reason": explanation.reason if explanation is not None else None,
        "files": [_file(file, facts, evidence.now) for file, facts in evidence.files],
        "certificate": _certificate(evidence),
        "subject": _subject(evidence.subject) if evidence.subject is not None else None,
        "authorities": [
            _authority(role, authority) for role, authority in authorities(evidence.identity)
        ],
        "problems": [describe_outcome(outcome) for outcome in report.problems],
    }


def describe_outcome(outcome: Outcome) -> dict[str, Plain]:
    """One check and what it found."""
    finding = outcome.finding
    return {
        "area": outcome.area,
        "check": outcome.check.name,
        "title": outcome.check.title,
        "verdict": finding.verdict.value,
        "message": finding.message,
        "code": finding.code.value if finding.code is not None else None,
        "next_step": finding.next_step,
    }


def authorities(identity: Identity | None) -> list[tuple[Role, x509.Certificate]]:
    """The certificates of the authorities, each with whose it is."""
    if identity is None:
        return []
    return [
        *((Role.HOST_CA, authority) for authority in identity.host_cas),
        *((Role.USER_CA, authority) for authority in identity.user_cas),
        *((Role.DATABASE_CA, authority) for authority in identity.database_cas),
    ]


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER encoding, in hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def issuer(certificate: x509.Certificate) -> str:
    """The organisation that issued it: Teleport's authorities have the cluster's name there."""
    names = [value for oid, value in read_issuer(certificate) if oid == _ORGANIZATION]
    return ", ".join(names)


def key_kind(certificate: x509.Certificate) -> str:
    """The kind of the public key: `RSA 2048`, `ECDSA secp256r1`, `Ed25519`."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "unusable"
    match key:
        case RSAPublicKey():
            return f"RSA {key.key_size}"
        case EllipticCurvePublicKey():
            return f"ECDSA {key.curve.name}"
        case Ed25519PublicKey():
            return "Ed25519"
    return type(key).__name__.removesuffix("PublicKey")


def _file(file: UsedFile, facts: FileFacts | None, now: datetime) -> dict[str, Plain]:
    about: dict[str, Plain] = {
        "role": file.role.value,
        "path": str(file.path),
        "present": file.present,
    }
    if facts is None:
        return about
    return about | {
        "target": str(facts.target) if facts.target is not None else None,
        "mode": f"{facts.mode:04o}",
        "owner": facts.owner,
        "group": facts.group,
        "acl": _access_list(facts),
        "readable": facts.readable,
        "exposed": facts.exposed,
        "size": facts.size,
        "modified": _moment(facts.modified),
        "age": _seconds(facts.modified, now),
    }


def _access_list(facts: FileFacts) -> Plain:
    if facts.readers is None:
        return None
    return [
        {"kind": reader.kind, "name": reader.name, "permissions": reader.permissions}
        for reader in facts.readers
    ]


def _certificate(evidence: Evidence) -> Plain:
    certificate = evidence.certificate
    if certificate is None:
        return None
    return {
        "not_before": _moment(certificate.not_valid_before_utc),
        "not_after": _moment(certificate.not_valid_after_utc),
        "remaining": _seconds(evidence.now, certificate.not_valid_after_utc),
        "issuer": issuer(certificate),
        "serial": f"{certificate.serial_number:x}",
        "sha256": fingerprint(certificate),
        "key": key_kind(certificate),
    }


def _subject(subject: Subject) -> dict[str, Plain]:
    about = {field.name: getattr(subject, field.name) for field in fields(subject)}
    del about["traits"], about["route"]
    traits: dict[str, Plain] = {name: _plain(values) for name, values in subject.traits}
    return {
        **{name: _plain(value) for name, value in about.items()},
        "traits": traits,
        "route": _route(subject.route) if subject.route is not None else None,
    }


def _route(route: Route) -> dict[str, Plain]:
    return {field.name: _plain(getattr(route, field.name)) for field in fields(route)}


def _plain(value: object) -> Plain:
    match value:
        case None | bool() | int() | str():
            return value
        case datetime():
            return _moment(value)
        case tuple():
            return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} is not expected here")


def _authority(role: Role, authority: x509.Certificate) -> dict[str, Plain]:
    return {
        "role": role.value,
        "sha256": fingerprint(authority),
        "not_after": _moment(authority.not_valid_after_utc),
    }


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _seconds(begin: datetime, end: datetime) -> float:
    return round((end - begin).total_seconds(), 3)
