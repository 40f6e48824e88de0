"""Every layout of a destination, read from files that the lab's writer did not make."""

import ssl
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from destinations import FIXTURES, SAMPLES, Sample, write_files

from dbproxy.identity import (
    IdentityFileSource,
    NamedFilesSource,
    Role,
    Route,
    Subject,
    load_certificates,
)

WITH_ROLES = ("v18", "identity-file", "mongo", "cockroach")
EVERY = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
# OpenSSL goes by the label, so that a mislabelled key is of use to dbproxy only.
RIGHTLY_LABELLED = {
    name: sample for name, sample in SAMPLES.items() if not name.endswith("labelled-pkcs8")
}


def test_every_fixture_is_tested() -> None:
    directories = {path.name for path in FIXTURES.iterdir() if path.is_dir()}
    assert directories == {*SAMPLES, "kubernetes"}


@EVERY
def test_the_identity_is_read_from_the_right_files(sample: Sample) -> None:
    identity = sample.source().read()
    files = identity.files
    assert identity.private_key.public_key() == identity.certificate.public_key()
    assert (files.certificate, files.key, files.host_ca) == tuple(
        sample.directory / name for name in (sample.certificate, sample.key, sample.host_ca)
    )
    assert files.user_ca == (sample.directory / sample.user_ca if sample.user_ca else None)
    database_ca = sample.directory / sample.database_ca if sample.database_ca else None
    assert files.database_ca == database_ca
    assert files.directory == sample.directory


@EVERY
def test_the_route_is_read(sample: Sample) -> None:
    roles = ("reader", "writer") if sample.name.startswith(WITH_ROLES) else ()
    expected = Route("example-server", "postgres", "alice", "example", roles)
    assert sample.source().read().route == expected


@EVERY
def test_the_explanation_names_the_files_that_are_read(sample: Sample) -> None:
    source = sample.source()
    explanation, files = source.explain(), source.read().files
    assert explanation.layout == sample.layout
    assert all(file.present for file in explanation.files)
    named = {file.role: file.path for file in explanation.files}
    assert named == {
        role: path
        for role, path in (
            (Role.CERTIFICATE, files.certificate),
            (Role.KEY, files.key),
            (Role.HOST_CA, files.host_ca),
            (Role.USER_CA, files.user_ca),
            (Role.DATABASE_CA, files.database_ca),
        )
        if path is not None
    }


@pytest.mark.parametrize("sample", RIGHTLY_LABELLED.values(), ids=RIGHTLY_LABELLED)
def test_clients_can_use_the_files_that_are_named(sample: Sample) -> None:
    """OpenSSL reads them as libpq does: certificate, key, and the authorities to trust."""
    files = sample.source().read().files
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.host_ca)
    assert context.cert_store_stats()["x509_ca"] >= 1


@EVERY
def test_a_reload_takes_well_under_20_milliseconds(sample: Sample) -> None:
    source = sample.source()
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        source.read()
        took.append(time.perf_counter() - begin)
    assert min(took) < 0.02


def test_several_authorities_in_a_file_are_all_read() -> None:
    identity = SAMPLES["rotation"].source().read()
    assert (len(identity.host_cas), len(identity.user_cas), len(identity.database_cas)) == (2, 2, 2)
    identity.certificate.verify_directly_issued_by(identity.user_cas[1])


def test_what_an_older_file_left_behind_is_skipped() -> None:
    sample = SAMPLES["stale-tails"]
    assert sample.files()["tlscert"].count(b"-----END CERTIFICATE-----") == 2
    identity = sample.source().read()
    assert len(identity.host_cas) == 1
    assert len(identity.user_cas) == 1
    whole = IdentityFileSource(sample.directory / "identity").read()
    assert whole.certificate == identity.certificate
    assert whole.host_cas == identity.host_cas


def test_a_list_of_all_authorities_is_told_apart() -> None:
    identity = SAMPLES["authority-list"].source().read()
    apart = SAMPLES["v9.0"].source().read()
    assert identity.host_cas == apart.host_cas
    assert identity.user_cas == apart.user_cas


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rsa-pkcs1", RSAPrivateKey),
        ("rsa-pkcs8-labelled-pkcs1", RSAPrivateKey),
        ("ecdsa-sec1", EllipticCurvePrivateKey),
        ("ecdsa-sec1-labelled-pkcs8", EllipticCurvePrivateKey),
        ("ed25519-pkcs8", Ed25519PrivateKey),
    ],
)
def test_the_kind_of_key_comes_from_the_key_not_from_its_label(name: str, kind: type) -> None:
    assert isinstance(SAMPLES[f"key-{name}"].source().read().private_key, kind)


def test_the_files_of_a_format_are_used_when_the_default_ones_are_not_there(
    tmp_path: Path,
) -> None:
    sample = SAMPLES["v14-tls"]
    files = sample.files()
    for name in ("tlscert", "key", "identity"):
        del files[name]
    identity = sample.source(write_files(tmp_path, files)).read()
    assert identity.files.certificate == tmp_path / "tls.crt"
    assert identity.files.host_ca == tmp_path / "tls.cas"
    assert identity.files.user_ca == tmp_path / "teleport-user-ca.crt"


@pytest.mark.parametrize("name", ["identity-file", "v9.0", "v18"])
def test_an_identity_file_that_was_named_is_read_alone(name: str) -> None:
    path = FIXTURES / name / "identity"
    source = IdentityFileSource(path)
    identity = source.read()
    files = identity.files
    assert files.certificate == files.key == files.host_ca == path
    assert identity.user_cas == identity.database_cas == ()
    assert source.directory == path.parent
    assert [(file.role, file.path) for file in source.explain().files] == [
        (Role.CERTIFICATE, path),
        (Role.KEY, path),
        (Role.HOST_CA, path),
    ]


def test_files_that_were_named_one_by_one_are_read() -> None:
    directory = FIXTURES / "v18"
    names = ("tlscert", "key", "teleport-host-ca.crt")
    source = NamedFilesSource(*(directory / name for name in names))
    identity, expected = source.read(), SAMPLES["v18"].source().read()
    assert identity.certificate == expected.certificate
    assert identity.host_cas == expected.host_cas
    assert source.directory == directory
    assert [file.path.name for file in source.explain().files] == list(names)
    assert source.explain().reason == "named by the operator"


def test_files_that_were_named_may_be_in_different_directories(tmp_path: Path) -> None:
    files = SAMPLES["mongo"].files()
    write_files(tmp_path / "one", {"both.pem": files["mongo.crt"]})
    write_files(tmp_path / "two", {"host.pem": files["teleport-host-ca.crt"]})
    both = tmp_path / "one" / "both.pem"
    identity = NamedFilesSource(both, both, tmp_path / "two" / "host.pem").read()
    assert identity.files.key == both
    assert identity.files.host_ca == tmp_path / "two" / "host.pem"


def test_the_subject_of_a_current_version_is_understood_completely() -> None:
    assert SAMPLES["v18"].source().read().subject == Subject(
        user="bot-app",
        roles=("machine-id-db", "auditor"),
        usage=("usage:db",),
        traits=(
            ("db_names", ("example",)),
            ("db_users", ("alice",)),
            ("logins", ("-teleport-internal-join",)),
        ),
        cluster="teleport.example.com",
        route_to_cluster=None,
        route=Route("example-server", "postgres", "alice", "example", ("reader", "writer")),
        allowed_database_names=("example", "postgres"),
        allowed_database_users=("alice", "reader"),
        access_requests=(),
        allowed_resources=None,
        impersonator="bot-app",
        disallow_reissue=True,
        renewable=False,
        generation=None,
        previous_expiry=datetime(2026, 1, 1, 0, 40, tzinfo=UTC),
        login_ip="198.51.100.7",
        pinned_ip="198.51.100.7",
        user_type="local",
        bot_name="app",
        bot_instance_id="5dd4ff8f-16b4-4c7f-a0b8-ac0c8f1c6a3f",
        system_roles=(),
        key_policy=None,
        mfa_device=None,
        device_id=None,
        device_asset_tag=None,
    )


def test_the_fixtures_are_valid_for_a_hundred_years() -> None:
    for sample in SAMPLES.values():
        identity = sample.source().read()
        assert identity.not_valid_before == datetime(2026, 1, 1, tzinfo=UTC)
        assert identity.not_valid_after == datetime(2126, 1, 1, tzinfo=UTC)


def test_the_certificates_in_lists_are_different_ones() -> None:
    directory = FIXTURES / "rotation"
    for name in ("teleport-host-ca.crt", "teleport-user-ca.crt", "teleport-database-ca.crt"):
        certificates = load_certificates((directory / name).read_bytes(), directory / name)
        assert len(set(certificates)) == 2
