"""What an application holds of a destination: a copy, taken when it is whole.

libpq reads certificate and key one after the other at each connect, so a connect in the middle of
tbot's rewrite fails in libpq, before dbproxy is asked. An application has to look, and so does this
one; a copy keeps the two files together for as long as connections are made with them.
"""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

KEPT = 20
"""Copies: connections that are being made may still use those before the last."""
FILES = ("tlscert", "key", "teleport-host-ca.crt", "teleport-user-ca.crt")


@dataclass
class ClientFiles:
    """Copies of a destination.

    Attributes:
        destination: What tbot writes.
        directory: Where the copies go.
    """

    destination: Path
    directory: Path
    _number: int = 0
    _seen: tuple[int, ...] = ()
    _copies: deque[Path] = field(default_factory=deque)
    _lock: Lock = field(default_factory=Lock)

    def latest(self) -> Path:
        """The copy of the latest generation that is whole; may be called from any thread."""
        with self._lock:
            self._look()
            return self._copies[-1]

    def _look(self) -> None:
        times = tuple((self.destination / name).stat().st_mtime_ns for name in FILES)
        if times == self._seen:
            return
        self._seen = times
        contents = tuple((self.destination / name).read_bytes() for name in FILES)
        if _is_whole(contents):
            self._copy(contents)

    def _copy(self, contents: tuple[bytes, ...]) -> None:
        self._number += 1
        copy = self.directory / str(self._number)
        copy.mkdir(mode=0o700, parents=True)
        for name, content in zip(FILES, contents, strict=True):
            (copy / name).touch(mode=0o600)
            (copy / name).write_bytes(content)
        self._copies.append(copy)
        if len(self._copies) > KEPT:
            old = self._copies.popleft()
            for file in old.iterdir():
                file.unlink()
            old.rmdir()


def _is_whole(contents: tuple[bytes, ...]) -> bool:
    """Whether key, certificate and the User CA that signed it belong together."""
    certificate, key, host_ca, user_ca = contents
    try:
        leaf = x509.load_pem_x509_certificate(certificate)
        own = load_pem_private_key(key, None, unsafe_skip_rsa_key_validation=True)
        issuers = [ca.subject for ca in x509.load_pem_x509_certificates(user_ca)]
        x509.load_pem_x509_certificates(host_ca)
    except ValueError:
        return False
    return own.public_key() == leaf.public_key() and leaf.issuer in issuers
