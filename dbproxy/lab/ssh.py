"""SSH certificates and known-hosts lines, which tbot writes beside the TLS files.

Nothing in the lab speaks SSH; the files exist so that a destination looks as tbot leaves it.
Formats: OpenSSH's PROTOCOL.certkeys and sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
)

from dbproxy.lab.keys import PublicKey

NO_LOGIN = "-teleport-internal-join"  # principal of certificates without any allowed login


def public_key_line(key: PublicKey | ed25519.Ed25519PublicKey) -> bytes:
    """Return a public key as a line of an authorized_keys file, newline included."""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n"


@dataclass(frozen=True)
class SshAuthority:
    """An SSH certificate authority with an Ed25519 key.

    Attributes:
        cluster: Name of the cluster, used in known-hosts lines.
        key: Private key.
    """

    cluster: str
    key: ed25519.Ed25519PrivateKey = field(repr=False)

    @classmethod
    def create(cls, cluster: str) -> SshAuthority:
        """Make an authority with a new key."""
        return cls(cluster, ed25519.Ed25519PrivateKey.generate())

    @property
    def public_key_line(self) -> bytes:
        """The authority's public key as an authorized_keys line."""
        return public_key_line(self.key.public_key())

    @property
    def known_hosts_line(self) -> bytes:
        """The authority as a known_hosts line that trusts it for every host of the cluster."""
        marker = f"@cert-authority {self.cluster},*.{self.cluster} ".encode()
        return marker + self.public_key_line.rstrip() + b" type=host\n"

    def issue_user_certificate(
        self,
        key: PublicKey,
        *,
        user: str,
        logins: Iterable[str],
        roles: Iterable[str],
        not_before: datetime,
        not_after: datetime,
    ) -> bytes:
        """Issue an SSH user certificate and return its line, newline included."""
        builder = (
            SSHCertificateBuilder()
            .public_key(key)
            .serial(0)
            .type(SSHCertificateType.USER)
            .key_id(user.encode())
            .valid_principals([login.encode() for login in logins] or [NO_LOGIN.encode()])
            .valid_after(int(not_before.timestamp()))
            .valid_before(int(not_after.timestamp()))
            .add_extension(b"permit-pty", b"")
            .add_extension(b"teleport-roles", _roles(roles))
        )
        return builder.sign(self.key).public_bytes() + b"\n"


def _roles(roles: Iterable[str]) -> bytes:
    return json.dumps({"version": "v1", "roles": list(roles)}).encode()
