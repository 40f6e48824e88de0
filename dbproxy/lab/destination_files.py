"""What tbot puts into a destination directory, and in which order: pure data, no I/O.

Files, formats and order of four generations of tbot, after tool/tbot/renew.go and
tool/tbot/config (v9 to v13), lib/tbot/config/output_database.go (v14),
lib/tbot/services/database/output_service.go (v17, v18) and lib/client/identityfile/identity.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from dbproxy.lab.tbot_config import FORMATS, FileNames, Output

# v9: 9.0, with CA lists in the destination and no Database CA; v12: 9.3 to 13; v18: 17 and later.
Layout: TypeAlias = Literal["v9", "v12", "v14", "v18"]

CA_LIST_SEPARATOR = (
    b"$"  # between the entries of tlscacerts and sshcacerts, see identity/artifact.go
)
ALWAYS_ADDED_TEMPLATES = ("ssh_client", "identity", "tls_cas")  # v9 to v13, after the user's own


@dataclass(frozen=True)
class DestinationFile:
    """One file of a destination.

    Attributes:
        name: Path relative to the destination.
        content: Content, possibly a private key.
    """

    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Material:
    """Everything that a destination's files are made of.

    Attributes:
        key: Private key, PEM.
        public_key: SSH public key, an authorized_keys line.
        certificate: TLS client certificate, the leaf alone, PEM.
        ssh_certificate: SSH certificate, one line.
        host_cas: Trusted Host CAs, one PEM block each.
        user_cas: Trusted User CAs, one PEM block each.
        database_cas: Trusted Database CAs, one PEM block each.
        ssh_cas: SSH authorities, one authorized_keys line each.
        known_hosts: SSH host authorities, one `@cert-authority` line each.
    """

    key: bytes = field(repr=False)
    public_key: bytes
    certificate: bytes
    ssh_certificate: bytes
    host_cas: tuple[bytes, ...]
    user_cas: tuple[bytes, ...]
    database_cas: tuple[bytes, ...]
    ssh_cas: tuple[bytes, ...]
    known_hosts: tuple[bytes, ...]


def destination_files(output: Output, material: Material, layout: Layout) -> list[DestinationFile]:
    """Return the files of a destination in the order in which tbot writes them."""
    return list(_LAYOUTS[layout](output, material))


def identity_file(material: Material) -> bytes:
    """Return the combined identity file, see api/identityfile/identityfile.go."""
    return b"".join(
        (
            material.key,
            material.ssh_certificate,
            material.certificate,
            *material.known_hosts,
            *material.host_cas,
        )
    )


def _v9(output: Output, material: Material) -> Iterator[DestinationFile]:
    yield DestinationFile("sshcert", material.ssh_certificate)
    yield DestinationFile("sshcacerts", CA_LIST_SEPARATOR.join(material.ssh_cas))
    yield DestinationFile("tlscert", material.certificate)
    all_cas = (*material.host_cas, *material.user_cas)
    yield DestinationFile("tlscacerts", CA_LIST_SEPARATOR.join(all_cas))
    yield DestinationFile("key", material.key)
    yield DestinationFile("key.pub", material.public_key)
    # There was no Database CA yet: formats that need one got the Host CA.
    for file in _templates(output, replace(material, database_cas=material.host_cas)):
        if file.name != output.names.database_ca:
            yield file


def _v12(output: Output, material: Material) -> Iterator[DestinationFile]:
    yield from _artifacts(material)
    yield from _templates(output, material)


def _v14(output: Output, material: Material) -> Iterator[DestinationFile]:
    yield from _artifacts(material)
    yield from _tls_cas(output.names, material)
    yield from _identity(output.names, material)
    yield from _formats(output, material)


def _v18(output: Output, material: Material) -> Iterator[DestinationFile]:
    yield from _tls_cas(output.names, material)
    yield from _identity(output.names, material)
    yield from _artifacts(material)
    yield from _formats(output, material)


def _artifacts(material: Material) -> Iterator[DestinationFile]:
    yield DestinationFile("key-cert.pub", material.ssh_certificate)
    yield DestinationFile("tlscert", material.certificate)
    yield DestinationFile("key", material.key)
    yield DestinationFile("key.pub", material.public_key)
    yield DestinationFile(".write-test", b"")


def _templates(output: Output, material: Material) -> Iterator[DestinationFile]:
    for template in dict.fromkeys((*output.templates, *ALWAYS_ADDED_TEMPLATES)):
        yield from _render(template, output.names, material)


def _formats(output: Output, material: Material) -> Iterator[DestinationFile]:
    for template in output.templates:
        if template in FORMATS:
            yield from _render(template, output.names, material)


def _render(template: str, names: FileNames, material: Material) -> Iterable[DestinationFile]:
    writer = _TEMPLATES.get(template)
    return writer(names, material) if writer else ()


def _tls_cas(names: FileNames, material: Material) -> Iterator[DestinationFile]:
    yield DestinationFile(names.host_ca, b"".join(material.host_cas))
    yield DestinationFile(names.user_ca, b"".join(material.user_cas))
    yield DestinationFile(names.database_ca, b"".join(material.database_cas))


def _identity(names: FileNames, material: Material) -> Iterator[DestinationFile]:
    yield DestinationFile(names.identity, identity_file(material))


def _ssh_client(_names: FileNames, material: Material) -> Iterator[DestinationFile]:
    yield DestinationFile("known_hosts", b"".join(material.known_hosts))
    yield DestinationFile("ssh_config", _SSH_CONFIG)


def _tls(names: FileNames, material: Material) -> Iterator[DestinationFile]:
    yield DestinationFile(f"{names.tls_prefix}.crt", material.certificate)
    yield DestinationFile(f"{names.tls_prefix}.key", material.key)
    yield DestinationFile(f"{names.tls_prefix}.cas", b"".join(material.host_cas))


def _mongo(names: FileNames, material: Material) -> Iterator[DestinationFile]:
    yield DestinationFile(f"{names.mongo_prefix}.crt", material.certificate + material.key)
    yield DestinationFile(f"{names.mongo_prefix}.cas", b"".join(material.database_cas))


def _cockroach(names: FileNames, material: Material) -> Iterator[DestinationFile]:
    directory = names.cockroach_directory
    yield DestinationFile(f"{directory}/node.crt", material.certificate)
    yield DestinationFile(f"{directory}/node.key", material.key)
    yield DestinationFile(f"{directory}/ca.crt", b"".join(material.database_cas))


# Nothing reads this file in the lab; it only has to be there.
_SSH_CONFIG = b"""# OpenSSH client configuration of the lab's bot
Host *
    IdentityFile key
    CertificateFile key-cert.pub
    UserKnownHostsFile known_hosts
"""

_LAYOUTS: dict[Layout, Callable[[Output, Material], Iterator[DestinationFile]]] = {
    "v9": _v9,
    "v12": _v12,
    "v14": _v14,
    "v18": _v18,
}
_TEMPLATES: dict[str, Callable[[FileNames, Material], Iterator[DestinationFile]]] = {
    "tls": _tls,
    "mongo": _mongo,
    "cockroach": _cockroach,
    "ssh_client": _ssh_client,
    "identity": _identity,
    "tls_cas": _tls_cas,
}
