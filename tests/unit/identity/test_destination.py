"""Reading a destination in every state that tbot, or an operator, can leave it in."""

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from identities import (
    Cluster,
    certificate_pem,
    destination_files,
    key_pem,
    make_authority,
    make_certificate,
    make_key,
    subject_attributes,
    write_destination,
)

from dbproxy.errors import Code, IdentityError
from dbproxy.identity import (
    DestinationSource,
    IdentityFileSource,
    NamedFilesSource,
    Route,
    Stamp,
    read_destination,
)

LATER = datetime(2100, 1, 1, tzinfo=UTC).timestamp()
"""After the change time of any file: that cannot be set."""
NAMES = (
    "tlscert",
    "key",
    "teleport-host-ca.crt",
    "teleport-user-ca.crt",
    "teleport-database-ca.crt",
)
OPTIONAL_NAMES = ("teleport-user-ca.crt", "teleport-database-ca.crt")
REQUIRED_NAMES = tuple(name for name in NAMES if name not in OPTIONAL_NAMES)


def stamp(directory: Path) -> Stamp:
    return DestinationSource(directory).stamp()


def refuse(directory: Path) -> IdentityError:
    with pytest.raises(IdentityError) as caught:
        read_destination(directory)
    return caught.value


def test_everything_is_read(tmp_path: Path, cluster: Cluster) -> None:
    certificate = write_destination(tmp_path, cluster)
    identity = read_destination(tmp_path)
    assert identity.certificate == certificate
    assert identity.private_key.public_key() == certificate.public_key()
    assert identity.host_cas == (cluster.host.certificate,)
    assert identity.user_cas == (cluster.user.certificate,)
    assert identity.database_cas == (cluster.database.certificate,)
    assert identity.route == Route("example-server", "postgres", "alice", "example")
    assert identity.subject.user == "bot-app"
    assert identity.generation == 1


def test_the_files_are_named(destination: Path) -> None:
    files = read_destination(destination).files
    assert files.directory == destination
    assert files.certificate == destination / "tlscert"
    assert files.key == destination / "key"
    assert files.host_ca == destination / "teleport-host-ca.crt"
    assert files.user_ca == destination / "teleport-user-ca.crt"
    assert files.database_ca == destination / "teleport-database-ca.crt"


def test_an_rsa_identity_is_read(tmp_path: Path, cluster: Cluster, rsa_key: RSAPrivateKey) -> None:
    write_destination(tmp_path, cluster, key=rsa_key)
    assert isinstance(read_destination(tmp_path).private_key, RSAPrivateKey)


def test_teleport_9_has_no_database_authority(destination: Path) -> None:
    (destination / "teleport-database-ca.crt").unlink()
    identity = read_destination(destination)
    assert identity.database_cas == ()
    assert identity.files.database_ca is None


def test_authorities_under_rotation_are_all_read(destination: Path, cluster: Cluster) -> None:
    new = make_authority()
    pem = certificate_pem(cluster.host.certificate, new.certificate)
    (destination / "teleport-host-ca.crt").write_bytes(pem)
    assert read_destination(destination).host_cas == (cluster.host.certificate, new.certificate)


def test_symbolic_links_are_followed(tmp_path: Path, cluster: Cluster) -> None:
    """A mounted Kubernetes secret is a directory of links through `..data`."""
    write_destination(tmp_path / "..2026", cluster)
    (tmp_path / "..data").symlink_to("..2026")
    for name in NAMES:
        (tmp_path / name).symlink_to(Path("..data") / name)
    assert read_destination(tmp_path).route.service == "example-server"


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    error = refuse(tmp_path / "absent")
    assert error.code is Code.IDENTITY_MISSING
    assert str(error) == f"the destination {tmp_path / 'absent'} does not exist"


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = refuse(tmp_path / "file")
    assert error.code is Code.IDENTITY_MISSING
    assert str(error) == f"the destination {tmp_path / 'file'} is not a directory"


def test_a_directory_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refuse(tmp_path / "file" / "machine-id").code is Code.IDENTITY_MISSING


def test_a_directory_out_of_reach_is_named(tmp_path: Path) -> None:
    (tmp_path / "endless").symlink_to("endless")
    error = refuse(tmp_path / "endless")
    assert error.code is Code.IDENTITY_UNREADABLE
    assert str(error).startswith(f"{tmp_path / 'endless'} cannot be read: ")


def test_an_impossible_directory_is_refused() -> None:
    assert refuse(Path("/opt/\0")).code is Code.IDENTITY_MISSING


@pytest.mark.parametrize("name", REQUIRED_NAMES)
def test_a_missing_file_is_named(destination: Path, name: str) -> None:
    (destination / name).unlink()
    error = refuse(destination)
    assert error.code is Code.IDENTITY_MISSING
    assert str(error) == f"{destination / name} does not exist"


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_file_is_named(destination: Path, name: str) -> None:
    (destination / name).write_bytes(b"")
    error = refuse(destination)
    assert error.code is Code.IDENTITY_MALFORMED
    assert str(error) == f"{destination / name} is empty"


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_in_the_place_of_a_file_is_named(destination: Path, name: str) -> None:
    (destination / name).unlink()
    (destination / name).mkdir()
    error = refuse(destination)
    assert error.code is Code.IDENTITY_MALFORMED
    assert str(error) == f"{destination / name} is a directory, not a regular file"


@pytest.mark.parametrize("name", NAMES)
def test_a_fifo_does_not_hold_the_reader_up(destination: Path, name: str) -> None:
    (destination / name).unlink()
    os.mkfifo(destination / name)
    assert refuse(destination).code is Code.IDENTITY_MALFORMED


@pytest.mark.parametrize("name", NAMES)
def test_an_oversized_file_is_refused(destination: Path, name: str) -> None:
    with (destination / name).open("ab") as file:
        file.truncate(2 * 1024 * 1024)
    error = refuse(destination)
    assert error.code is Code.IDENTITY_MALFORMED
    assert "more than 1048576 bytes" in str(error)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_out_of_reach_is_named(destination: Path, name: str) -> None:
    """A chain of links that never ends is refused even to root, unlike a mode."""
    (destination / name).unlink()
    (destination / name).symlink_to(name)
    error = refuse(destination)
    assert error.code is Code.IDENTITY_UNREADABLE
    assert str(destination / name) in str(error)


@pytest.mark.parametrize("failing", NAMES)
def test_a_file_without_permission_is_named(
    destination: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modes do not bind root, as which tests may run; so the system's answer is simulated."""
    real_open = os.open

    def deny(path: Path, flags: int, *, dir_fd: int | None = None) -> int:
        if path == Path(failing):
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr("dbproxy.identity.files.os.open", deny)
    error = refuse(destination)
    assert error.code is Code.IDENTITY_UNREADABLE
    assert str(error) == f"{destination / failing} cannot be read: Permission denied"


def test_a_new_certificate_beside_the_old_key_is_refused(
    destination: Path, cluster: Cluster
) -> None:
    certificate = make_certificate(cluster.user, make_key())
    (destination / "tlscert").write_bytes(certificate_pem(certificate))
    error = refuse(destination)
    assert error.code is Code.KEY_MISMATCH
    assert str(destination / "tlscert") in str(error)
    assert str(destination / "key") in str(error)


def test_a_key_of_another_kind_is_refused(destination: Path, rsa_key: RSAPrivateKey) -> None:
    (destination / "key").write_bytes(key_pem(rsa_key))
    assert refuse(destination).code is Code.KEY_MISMATCH


def test_a_certificate_without_a_route_is_refused(tmp_path: Path, cluster: Cluster) -> None:
    write_destination(tmp_path, cluster, attributes=subject_attributes(service=None))
    error = refuse(tmp_path)
    assert error.code is Code.CERTIFICATE_WITHOUT_ROUTE
    assert str(tmp_path / "tlscert") in str(error)


def test_a_certificate_with_an_unknown_kind_of_key_is_refused(
    destination: Path, cluster: Cluster
) -> None:
    der = make_certificate(cluster.user, KEY).public_bytes(Encoding.DER)
    assert P_256 in der
    unknown = x509.load_der_x509_certificate(der.replace(P_256, P_256[:-1] + b"\x7f"))
    (destination / "tlscert").write_bytes(certificate_pem(unknown))
    error = refuse(destination)
    assert error.code is Code.IDENTITY_MALFORMED
    assert str(error).startswith(f"{destination / 'tlscert'} holds a certificate with an unusable")


P_256 = bytes.fromhex("06082a8648ce3d030107")
"""The identifier of the curve, in DER."""
KEY = make_key()
AUTHORITY = make_authority()
FILES = destination_files(
    Cluster(AUTHORITY, AUTHORITY, AUTHORITY), KEY, make_certificate(AUTHORITY, KEY)
)


@st.composite
def truncations(draw: st.DrawFn) -> tuple[str, int]:
    name = draw(st.sampled_from(NAMES))
    # Without its last line end a file is still complete.
    return name, draw(st.integers(0, len(FILES[name]) - 2))


@given(truncation=truncations())
@settings(deadline=None)
def test_a_file_truncated_anywhere_is_refused(truncation: tuple[str, int]) -> None:
    name, length = truncation
    with tempfile.TemporaryDirectory() as directory:
        for other, data in FILES.items():
            Path(directory, other).write_bytes(data if other != name else data[:length])
        error = refuse(Path(directory))
    assert error.code is Code.IDENTITY_MALFORMED
    assert name in str(error)


def test_the_stamp_stays_as_long_as_nothing_is_written(destination: Path) -> None:
    before = stamp(destination)
    read_destination(destination)
    assert stamp(destination) == before
    assert hash(stamp(destination)) == hash(before)


@pytest.mark.parametrize("name", NAMES)
def test_the_stamp_changes_with_the_size_of_any_file(destination: Path, name: str) -> None:
    before = stamp(destination)
    with (destination / name).open("ab") as file:
        file.write(b"\n")
    assert stamp(destination) != before


@pytest.mark.parametrize("name", NAMES)
def test_the_stamp_changes_with_the_time_of_any_file(destination: Path, name: str) -> None:
    before = stamp(destination)
    os.utime(destination / name, (1, 1))
    assert stamp(destination) != before


@pytest.mark.parametrize("name", NAMES)
def test_the_stamp_changes_when_a_file_comes_or_goes(destination: Path, name: str) -> None:
    before = stamp(destination)
    (destination / name).unlink()
    assert stamp(destination) != before


def test_the_stamp_changes_when_a_link_is_swapped(tmp_path: Path, cluster: Cluster) -> None:
    for generation in ("..1", "..2"):
        write_destination(tmp_path / generation, cluster)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "tlscert").symlink_to("..data/tlscert")
    before = stamp(tmp_path)
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert stamp(tmp_path) != before


def test_a_missing_directory_has_a_stamp(tmp_path: Path) -> None:
    nothing = stamp(tmp_path / "absent")
    assert nothing == stamp(tmp_path / "also absent")
    assert nothing.age(5.0) == 5.0


LISTS = ("teleport-host-ca.crt", "teleport-user-ca.crt", "teleport-database-ca.crt")
DEFAULT_FILES = ("tlscert", "key", *LISTS)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (DEFAULT_FILES, {*LISTS}),
        ((*DEFAULT_FILES, "identity", "tls.crt", "tls.key", "tls.cas"), {*LISTS}),
        (("tlscert", "key", "tlscacerts"), {"tlscacerts"}),
        (("identity",), {"identity"}),
        (("identity", *LISTS), {"identity", *LISTS[1:]}),
        (("tls.crt", "tls.key", "tls.cas"), {"tls.cas"}),
        (("mongo.crt", "mongo.cas", LISTS[0]), {"mongo.cas", LISTS[0]}),
        (
            ("cockroach/node.crt", "cockroach/node.key", "cockroach/ca.crt", LISTS[0]),
            {"cockroach/ca.crt", LISTS[0]},
        ),
    ],
    ids=lambda value: None if isinstance(value, set) else "+".join(value),
)
def test_a_list_of_authorities_that_was_written_last_is_told(
    tmp_path: Path, files: tuple[str, ...], expected: set[str]
) -> None:
    """If it is used, and no other file confirms it."""
    (tmp_path / "cockroach").mkdir()
    source = DestinationSource(tmp_path)
    last = set()
    for number, name in enumerate(files):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (LATER, LATER + number))
    for number, name in enumerate(files):
        os.utime(tmp_path / name, (LATER, LATER + 1000 * (number + 1)))
        last |= {name} if source.ends_with_a_list(source.stamp()) else set()
    assert last == expected
    for name in files:
        os.utime(tmp_path / name, (LATER, LATER))
    alone = set(files) == expected
    assert source.ends_with_a_list(source.stamp()) is alone


def test_of_files_that_were_named_the_list_may_be_the_last_as_well(tmp_path: Path) -> None:
    for number, name in enumerate(("certificate", "key", "authorities")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (LATER, LATER + number))
    certificate, key, authorities = (
        tmp_path / name for name in ("certificate", "key", "authorities")
    )
    apart = NamedFilesSource(certificate, key, authorities)
    assert apart.ends_with_a_list(apart.stamp())
    os.utime(key, (LATER, LATER + 10))
    assert not apart.ends_with_a_list(apart.stamp())
    together = NamedFilesSource(key, key, key)
    assert together.ends_with_a_list(together.stamp())
    alone = IdentityFileSource(key)
    assert alone.ends_with_a_list(alone.stamp())
