"""The local authority: made once, kept safe, and trusted by the standard library's ssl."""

import os
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from identities import Authority, certificate_pem, key_pem, make_key
from openssl_ends import server_layer
from tls_peers import Credentials, StdlibTLS, make_credentials, shake_hands

from dbproxy.downstream import LocalAuthority, default_state_directory
from dbproxy.downstream.local_authority import SERVER_NAMES, ServerCertificate
from dbproxy.errors import Code, ListenError

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "dbproxy"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestDirectory:
    """Where it is kept."""

    def test_systemds_state_directory_goes_first(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
        monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/dbproxy:/var/lib/other")
        assert default_state_directory() == Path("/var/lib/dbproxy")

    @pytest.mark.parametrize("value", [None, ""])
    def test_without_it_the_users_state_directory_is_used(
        self, value: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
        monkeypatch.delenv("STATE_DIRECTORY", raising=False)
        if value is not None:
            monkeypatch.setenv("STATE_DIRECTORY", value)
        assert default_state_directory() == tmp_path / "xdg" / "dbproxy"

    def test_a_directory_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        blocked = tmp_path / "file"
        blocked.touch()
        with pytest.raises(ListenError) as caught:
            LocalAuthority.open(blocked / "state")
        assert caught.value.code is Code.STATE_DIRECTORY_UNUSABLE
        assert str(blocked / "state") in caught.value.message


class TestKeeping:
    """It is made once."""

    def test_the_key_is_for_our_user_only(self, directory: Path) -> None:
        authority = LocalAuthority.open(directory)
        assert mode_of(directory) == 0o700
        assert mode_of(directory / "dbproxy-ca.key") == 0o600
        assert mode_of(authority.ca_file) == 0o644
        assert authority.ca_file == directory / "dbproxy-ca.crt"

    def test_the_second_start_finds_the_authority_of_the_first(self, directory: Path) -> None:
        first, second = LocalAuthority.open(directory), LocalAuthority.open(directory)
        assert first.certificate == second.certificate
        chain = second.issue_server_certificate()
        chain.certificate.verify_directly_issued_by(first.certificate)

    def test_processes_that_start_at_once_make_one_authority(self, directory: Path) -> None:
        program = (
            "import sys; from pathlib import Path; from dbproxy.downstream import LocalAuthority;"
            "sys.stdin.read();"
            "print(LocalAuthority.open(Path(sys.argv[1])).certificate.serial_number)"
        )
        command = [sys.executable, "-c", program, str(directory)]
        processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
        serials = {process.communicate(timeout=30)[0] for process in processes}
        kept = LocalAuthority.open(directory).certificate.serial_number
        assert serials == {f"{kept}\n"}

    @pytest.mark.parametrize("name", ["dbproxy-ca.crt", "dbproxy-ca.key"])
    @pytest.mark.parametrize("damage", ["missing", "empty", "cut", "nonsense"])
    def test_a_part_that_is_missing_or_broken_leads_to_a_new_authority(
        self, name: str, damage: str, directory: Path
    ) -> None:
        old = LocalAuthority.open(directory)
        file = directory / name
        content = file.read_bytes()
        file.unlink()
        if damage != "missing":
            pieces = {"empty": b"", "cut": content[: len(content) // 2], "nonsense": b"\xff\0"}
            file.write_bytes(pieces[damage])
        new = LocalAuthority.open(directory)
        assert new.certificate != old.certificate
        assert mode_of(directory / "dbproxy-ca.key") == 0o600
        assert LocalAuthority.open(directory).certificate == new.certificate

    def test_a_key_of_another_authority_leads_to_a_new_one(self, directory: Path) -> None:
        old = LocalAuthority.open(directory)
        (directory / "dbproxy-ca.key").write_bytes(key_pem(make_key()))
        assert LocalAuthority.open(directory).certificate != old.certificate

    @pytest.mark.parametrize(
        "make_pem",
        [
            lambda: ed25519.Ed25519PrivateKey.generate().private_bytes_raw(),
            lambda: make_key().private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
            ),
        ],
        ids=["another kind", "encrypted"],
    )
    def test_a_key_that_cannot_be_used_leads_to_a_new_authority(
        self, make_pem: Callable[[], bytes], directory: Path
    ) -> None:
        old = LocalAuthority.open(directory)
        (directory / "dbproxy-ca.key").write_bytes(make_pem())
        assert LocalAuthority.open(directory).certificate != old.certificate

    @pytest.mark.parametrize(("days_left", "kept"), [(80, False), (100, True)])
    def test_an_authority_that_ends_soon_is_replaced_in_time(
        self, days_left: int, kept: bool, directory: Path
    ) -> None:
        LocalAuthority.open(directory)
        ending = make_credentials(
            None, not_before=NOW - DAY, not_after=NOW + days_left * DAY, ca=True
        )
        (directory / "dbproxy-ca.crt").write_bytes(certificate_pem(ending.certificate))
        (directory / "dbproxy-ca.key").write_bytes(key_pem(ending.key))
        assert (LocalAuthority.open(directory).certificate == ending.certificate) is kept

    @pytest.mark.parametrize(
        ("mode", "after"),
        [(0o644, 0o600), (0o640, 0o600), (0o602, 0o600), (0o600, 0o600), (0o400, 0o400)],
        ids=oct,
    )
    def test_a_key_that_others_may_read_becomes_private_again(
        self, mode: int, after: int, directory: Path
    ) -> None:
        old = LocalAuthority.open(directory)
        (directory / "dbproxy-ca.key").chmod(mode)
        assert LocalAuthority.open(directory).certificate == old.certificate
        assert mode_of(directory / "dbproxy-ca.key") == after

    def test_a_key_that_others_may_read_and_that_is_not_ours_is_refused(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        LocalAuthority.open(directory)
        key = directory / "dbproxy-ca.key"
        content = key.read_bytes()
        key.chmod(0o644)
        stranger = os.geteuid() + 1
        with monkeypatch.context() as patch:
            patch.setattr(os, "geteuid", lambda: stranger)
            with pytest.raises(ListenError, match=r"ca\.key: others may read this key") as caught:
                LocalAuthority.open(directory)
        assert caught.value.code is Code.STATE_DIRECTORY_UNUSABLE
        assert (mode_of(key), key.read_bytes()) == (0o644, content)

    def test_a_directory_that_may_not_be_read_is_named_and_nothing_is_replaced(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        LocalAuthority.open(directory)
        content = (directory / "dbproxy-ca.key").read_bytes()

        def denied(path: Path) -> bytes:
            raise PermissionError(13, "Permission denied", str(path))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", denied)
            with pytest.raises(ListenError, match=r"dbproxy-ca\.crt: Permission denied"):
                LocalAuthority.open(directory)
        assert (directory / "dbproxy-ca.key").read_bytes() == content


def verifies(server: ServerCertificate, name: str) -> bool:
    """Whether a client of the standard library trusts it, with nothing but the file it is given."""
    context = ssl.create_default_context(cafile=str(server.ca_file))
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 has it by default
    assert isinstance(server.private_key, ec.EllipticCurvePrivateKey)
    layer = server_layer(Credentials(server.certificate, server.private_key), chain=server.chain)
    peer = StdlibTLS(context, server_side=False, server_hostname=name)
    try:
        shake_hands(peer, layer)
    except ssl.SSLCertVerificationError:
        return False
    return True


class TestServerCertificates:
    """What clients see and trust."""

    @pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
    def test_clients_verify_it_by_each_name_of_this_host(self, name: str, directory: Path) -> None:
        assert verifies(LocalAuthority.open(directory).issue_server_certificate(), name)

    @pytest.mark.parametrize("name", ["example.com", "127.0.0.2", "localhost.example.com"])
    def test_clients_do_not_verify_it_by_another_name(self, name: str, directory: Path) -> None:
        assert not verifies(LocalAuthority.open(directory).issue_server_certificate(), name)

    def test_each_has_a_key_of_its_own_that_is_never_written(self, directory: Path) -> None:
        authority = LocalAuthority.open(directory)
        one, other = authority.issue_server_certificate(), authority.issue_server_certificate()
        assert one.certificate.public_key() != other.certificate.public_key()
        assert sorted(file.name for file in directory.iterdir()) == [
            "dbproxy-ca.crt",
            "dbproxy-ca.key",
            "lock",
        ]

    def test_it_is_not_valid_for_longer_than_clients_accept(self, directory: Path) -> None:
        certificate = LocalAuthority.open(directory).issue_server_certificate().certificate
        lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert lifetime <= timedelta(days=398)
        assert certificate.not_valid_before_utc < datetime.now(UTC)

    def test_its_key_shows_in_no_representation(self, directory: Path) -> None:
        server = LocalAuthority.open(directory).issue_server_certificate()
        assert repr(server) == f"ServerCertificate(ca_file='{directory}/dbproxy-ca.crt')"

    @pytest.mark.parametrize("name", ["example.com", "10.0.0.1"])
    def test_a_leaked_authority_key_vouches_for_no_other_host(
        self, name: str, directory: Path
    ) -> None:
        opened = LocalAuthority.open(directory)
        key = load_pem_private_key((directory / "dbproxy-ca.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        forged = make_credentials(Authority(opened.certificate, key), name)
        server = ServerCertificate(forged.certificate, (), forged.key, opened.ca_file)
        assert not verifies(server, name)

    def test_the_authority_issues_no_further_authorities(self, directory: Path) -> None:
        constraints = LocalAuthority.open(directory).certificate.extensions
        basic = constraints.get_extension_for_class(x509.BasicConstraints)
        assert basic.critical
        assert basic.value == x509.BasicConstraints(ca=True, path_length=0)
        usage = constraints.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.key_cert_sign
        assert constraints.get_extension_for_class(x509.NameConstraints).critical

    def test_its_names_are_those_of_this_host(self) -> None:
        assert [name.value for name in SERVER_NAMES] == [
            "localhost",
            ip_address("127.0.0.1"),
            ip_address("::1"),
        ]
