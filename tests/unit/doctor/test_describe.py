"""What is said about an identity: complete, in JSON's values, without a private key."""

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from identities import (
    Cluster,
    make_certificate,
    make_key,
    subject_attributes,
    write_destination,
)

from dbproxy.doctor import Evidence, describe, examine, gather, key_kind, subject_in_words
from dbproxy.errors import Code, IdentityError
from dbproxy.identity import PrivateKey, Route, Subject, parse_subject
from dbproxy.settings import Settings

EVERYTHING = subject_attributes(
    roles=["reader", "writer"],
    extra=(
        ("2.5.4.11", "usage:db"),
        ("1.3.9999.2.5", "example"),
        ("1.3.9999.2.6", "alice"),
        ("1.3.9999.2.6", "carol"),
        ("1.3.9999.2.7", "bot-host"),
        ("1.3.9999.2.8", "request-1"),
        ("1.3.9999.2.9", "true"),
        ("1.3.9999.2.12", "2026-11-23T12:00:00Z"),
        ("1.3.9999.2.15", "192.0.2.7"),
        ("1.3.9999.2.18", "app"),
        ("1.3.9999.2.20", "instance-1"),
        ("1.3.9999.3.2", "tag-1"),
    ),
)


def subject_of(cluster: Cluster, *attributes: tuple[str, str]) -> Subject:
    return parse_subject(make_certificate(cluster.user, make_key(), attributes))


def words_of(subject: Subject) -> dict[str, str]:
    return dict(subject_in_words(subject))


def test_the_description_can_be_json_and_holds_every_section(evidence: Evidence) -> None:
    described = json.loads(json.dumps(describe(evidence, examine(evidence))))
    assert described["layout"] == "default files"
    assert described["problems"] == []
    assert [file["role"] for file in described["files"]] == [
        "certificate",
        "private key",
        "Host CA",
        "User CA",
        "Database CA",
    ]
    assert described["certificate"]["issuer"] == "teleport.example.com"
    assert described["subject"]["route"]["service"] == "example-server"


def test_every_attribute_of_the_subject_is_described(evidence: Evidence) -> None:
    described = describe(evidence, examine(evidence))["subject"]
    assert isinstance(described, dict)
    assert set(described) == {field.name for field in fields(Subject)}
    assert described["traits"] == {"logins": ["-teleport-internal-join"]}
    assert isinstance(described["route"], dict)
    assert set(described["route"]) == {field.name for field in fields(Route)}


def test_times_are_in_utc_and_spans_in_seconds(evidence: Evidence) -> None:
    assert evidence.certificate is not None
    end = evidence.certificate.not_valid_after_utc
    now = end.astimezone(UTC) - timedelta(seconds=90)
    described = describe(replace(evidence, now=now), examine(evidence))["certificate"]
    assert isinstance(described, dict)
    assert described["remaining"] == 90.0
    assert described["not_after"] == end.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_the_fingerprints_are_those_of_openssl(evidence: Evidence, cluster: Cluster) -> None:
    described = describe(evidence, examine(evidence))["authorities"]
    assert isinstance(described, list)
    expected = [
        (role, authority.certificate.fingerprint(hashes.SHA256()).hex())
        for role, authority in (
            ("Host CA", cluster.host),
            ("User CA", cluster.user),
            ("Database CA", cluster.database),
        )
    ]
    assert [(it["role"], it["sha256"]) for it in described if isinstance(it, dict)] == expected


def test_what_is_unknown_is_null(tmp_path: Path) -> None:
    evidence = gather(Settings(destination_dir=tmp_path / "nowhere"), datetime.now(UTC))
    described = describe(evidence, examine(evidence))
    assert described["certificate"] is None
    assert described["subject"] is None
    assert described["authorities"] == []
    assert isinstance(described["problems"], list)
    (problem,) = described["problems"]
    assert isinstance(problem, dict)
    assert problem["code"] == "identity-missing"
    assert problem["verdict"] == "failure"
    assert problem["next_step"]


def test_no_byte_of_the_key_is_described(evidence: Evidence, destination: Path) -> None:
    lines = (destination / "key").read_text().splitlines()[1:-1]
    text = json.dumps(describe(evidence, examine(evidence))) + repr(evidence)
    assert lines
    assert not any(line in text for line in lines)


def test_the_kind_of_key_is_told(cluster: Cluster) -> None:
    keys: dict[str, PrivateKey] = {
        "ECDSA secp256r1": make_key(),
        "RSA 2048": generate_private_key(public_exponent=65537, key_size=2048),
        "Ed25519": Ed25519PrivateKey.generate(),
    }
    for kind, key in keys.items():
        assert key_kind(make_certificate(cluster.user, key)) == kind


def test_a_subject_in_words_says_everything_that_limits_the_holder(cluster: Cluster) -> None:
    assert words_of(subject_of(cluster, *EVERYTHING)) == {
        "holder": "bot-app, the bot app (instance instance-1), asked for by bot-host",
        "cluster": "teleport.example.com",
        "roles": "machine-id-db",
        "leads to": "the service example-server (postgres) as the database user alice,"
        " database example, with the database roles reader, writer",
        "allows": "the database example; the database users alice, carol",
        "usage": "only usage:db",
        "requests": "request-1",
        "only from": "192.0.2.7",
        "renewals": "none by the holder: only tbot can ask for the next",
        "generation": "not in the certificate",
        "asked with": "a certificate that is valid until 2026-11-23 12:00:00 UTC",
        "device": "tag-1",
    }


def test_a_bare_subject_in_words_is_short(cluster: Cluster) -> None:
    assert words_of(subject_of(cluster, ("2.5.4.10", "role"))) == {
        "holder": "nobody by name",
        "roles": "role",
        "leads to": "no database at all",
        "generation": "not in the certificate",
    }


def test_a_bots_own_certificate_is_told_apart(cluster: Cluster) -> None:
    own = subject_of(
        cluster, ("2.5.4.3", "bot-app"), ("1.3.9999.1.13", "true"), ("1.3.9999.1.14", "7")
    )
    assert words_of(own)["renewals"] == "the bot's own certificate, which renews itself"
    assert words_of(own)["generation"] == "7"


@pytest.mark.parametrize(
    ("route_to", "words"),
    [("", "root.example.com"), ("leaf", "root.example.com, for use with leaf")],
)
def test_another_cluster_is_named(cluster: Cluster, route_to: str, words: str) -> None:
    subject = subject_of(cluster, ("2.5.4.9", route_to), ("1.3.9999.1.7", "root.example.com"))
    assert words_of(subject)["cluster"] == words


def test_an_unusable_identity_still_tells_its_certificate(tmp_path: Path, cluster: Cluster) -> None:
    directory = tmp_path / "machine-id"
    write_destination(directory, cluster, attributes=subject_attributes(service=None))
    evidence = gather(Settings(destination_dir=directory), datetime.now(UTC))
    assert isinstance(evidence.identity_problem, IdentityError)
    assert evidence.identity_problem.code is Code.CERTIFICATE_WITHOUT_ROUTE
    described = describe(evidence, examine(evidence))
    assert isinstance(described["subject"], dict)
    assert described["subject"]["user"] == "bot-app"
    assert described["subject"]["route"] is None
