"""The hand-made destinations of tests/fixtures, and what is in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dbproxy.identity import DestinationSource, FileNames

FIXTURES = Path(__file__).parents[1] / "fixtures" / "destinations"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One destination, and what a reader must find in it.

    Attributes:
        name: Its directory.
        layout: The layout that must be chosen.
        certificate: The file that the client certificate must come from, and so on.
        key: Likewise.
        host_ca: Likewise.
        user_ca: Likewise, or None where there is none.
        database_ca: Likewise, or None where there is none.
        names: What tbot's configuration calls the files.
    """

    name: str
    layout: str = "default files"
    certificate: str = "tlscert"
    key: str = "key"
    host_ca: str = "teleport-host-ca.crt"
    user_ca: str | None = None
    database_ca: str | None = None
    names: FileNames = field(default_factory=FileNames)

    @property
    def directory(self) -> Path:
        """Where it is; not to be written to."""
        return FIXTURES / self.name

    @property
    def needed(self) -> tuple[str, ...]:
        """The files without which there is no identity."""
        return tuple(dict.fromkeys((self.certificate, self.key, self.host_ca)))

    @property
    def used(self) -> tuple[str, ...]:
        """Every file that an identity is read from."""
        optional = (name for name in (self.user_ca, self.database_ca) if name is not None)
        return tuple(dict.fromkeys((*self.needed, *optional)))

    def files(self) -> dict[str, bytes]:
        """Every file by its name relative to the destination."""
        return files_of(self.directory)

    def source(self, directory: Path | None = None) -> DestinationSource:
        """What reads it, or a copy of it."""
        return DestinationSource(directory or self.directory, names=self.names)


def files_of(directory: Path) -> dict[str, bytes]:
    """Every file below a directory by its relative name."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def write_files(directory: Path, files: Mapping[str, bytes]) -> Path:
    """Make a directory with these files; returns it."""
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


_USER_CA, _DATABASE_CA = "teleport-user-ca.crt", "teleport-database-ca.crt"
_KEYS = (
    "rsa-pkcs1",
    "rsa-pkcs8",
    "rsa-pkcs1-labelled-pkcs8",
    "rsa-pkcs8-labelled-pkcs1",
    "ecdsa-sec1",
    "ecdsa-pkcs8",
    "ecdsa-sec1-labelled-pkcs8",
    "ecdsa-pkcs8-labelled-sec1",
    "ed25519-pkcs8",
)

SAMPLES: Mapping[str, Sample] = {
    sample.name: sample
    for sample in (
        Sample(name="v9.0", user_ca=_USER_CA),
        Sample(name="v9.3", user_ca=_USER_CA, database_ca=_DATABASE_CA),
        Sample(
            name="v13-custom-names",
            host_ca="host.pem",
            user_ca="user.pem",
            database_ca="database.pem",
            names=FileNames(
                identity="app-identity",
                tls_prefix="client",
                mongo_prefix="db",
                cockroach_directory="roach",
                host_ca="host.pem",
                user_ca="user.pem",
                database_ca="database.pem",
            ),
        ),
        Sample(name="v14-tls", user_ca=_USER_CA, database_ca=_DATABASE_CA),
        Sample(name="v18", user_ca=_USER_CA, database_ca=_DATABASE_CA),
        Sample(name="rotation", user_ca=_USER_CA, database_ca=_DATABASE_CA),
        Sample(name="stale-tails", user_ca=_USER_CA),
        Sample(name="authority-list", host_ca="tlscacerts"),
        Sample(
            name="identity-file",
            layout="identity file",
            certificate="identity",
            key="identity",
            host_ca="identity",
        ),
        Sample(
            name="identity-file-custom-name",
            layout="identity file",
            certificate="app-identity",
            key="app-identity",
            host_ca="app-identity",
            names=FileNames(identity="app-identity"),
        ),
        Sample(
            name="tls",
            layout="tls format",
            certificate="tls.crt",
            key="tls.key",
            host_ca="tls.cas",
        ),
        Sample(
            name="tls-custom-prefix",
            layout="tls format",
            certificate="client.crt",
            key="client.key",
            host_ca="client.cas",
            names=FileNames(tls_prefix="client"),
        ),
        Sample(
            name="mongo",
            layout="mongo format",
            certificate="mongo.crt",
            key="mongo.crt",
            database_ca="mongo.cas",
        ),
        Sample(
            name="mongo-custom-prefix",
            layout="mongo format",
            certificate="db.crt",
            key="db.crt",
            database_ca="db.cas",
            names=FileNames(mongo_prefix="db"),
        ),
        Sample(
            name="cockroach",
            layout="cockroach format",
            certificate="cockroach/node.crt",
            key="cockroach/node.key",
            database_ca="cockroach/ca.crt",
        ),
        Sample(
            name="cockroach-custom-directory",
            layout="cockroach format",
            certificate="roach/node.crt",
            key="roach/node.key",
            database_ca="roach/ca.crt",
            names=FileNames(cockroach_directory="roach"),
        ),
        *(Sample(name=f"key-{kind}") for kind in _KEYS),
    )
}
