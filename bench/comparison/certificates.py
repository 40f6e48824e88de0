"""The files that all proxies are given: what tbot would have written, and the upstream's own."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from dbproxy.lab import guide
from dbproxy.lab.authority import Authority
from dbproxy.lab.keys import KeyPair, new_rsa_key
from dbproxy.lab.subject import SubjectFields

LIFETIME = timedelta(hours=12)


@dataclass(frozen=True)
class Files:
    """Where the files are.

    Attributes:
        destination: A directory as tbot writes it.
        web_ca: The authority of the upstream's web certificate.
        web: Certificate and key that the upstream shows.
        host: Certificate and key that it shows inside upgraded and passed through connections.
        client_pem: Certificate and key of the client in one file, as HAProxy wants them.
    """

    destination: Path
    web_ca: Path
    web: tuple[Path, Path]
    host: tuple[Path, Path]
    client_pem: Path

    @property
    def client(self) -> tuple[Path, Path]:
        """The client's certificate and key."""
        return self.destination / "tlscert", self.destination / "key"

    @property
    def client_ca(self) -> Path:
        """The authority of the client's certificate."""
        return self.destination / "teleport-user-ca.crt"


def write_files(directory: Path) -> Files:
    """Make authorities and certificates: keys as Teleport's, RSA 2048 for the database client."""
    authority = Authority.create("bench.example.com")
    key = new_rsa_key()
    subject = SubjectFields(
        user=f"bot-{guide.BOT}",
        roles=(guide.ROLE_NAME,),
        service=guide.SERVICE,
        protocol="postgres",
        db_user=guide.DATABASE_USER,
        db_name=guide.DATABASE,
        cluster=authority.cluster,
    )
    certificate = authority.issue_user_certificate(key.public_key(), subject, LIFETIME)
    client = KeyPair(key, certificate)
    destination = directory / "machine-id"
    destination.mkdir(mode=0o700, parents=True)
    for name, data in (
        ("teleport-host-ca.crt", authority.host_ca.pem),
        ("teleport-user-ca.crt", authority.user_ca.pem),
        ("teleport-database-ca.crt", authority.database_ca.pem),
        ("tlscert", client.certificate_pem),
        ("key", client.key_pem),
    ):
        _write(destination / name, data)
    return Files(
        destination,
        _write(directory / "web-ca.pem", authority.web_ca.pem),
        _write_pair(directory / "web", authority.issue_web_certificate()),
        _write_pair(directory / "host", authority.issue_proxy_host_certificate()),
        _write(directory / "client.pem", client.certificate_pem + client.key_pem),
    )


def _write(path: Path, data: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(data)
    return path


def _write_pair(stem: Path, pair: KeyPair) -> tuple[Path, Path]:
    return (
        _write(stem.with_suffix(".crt"), pair.certificate_pem),
        _write(stem.with_suffix(".key"), pair.key_pem),
    )
