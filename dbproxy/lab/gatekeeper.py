"""Rejects client certificates that OpenSSL would take, with an alert of one's choice.

Real Proxies reject certificates that were good a moment ago: their authority was rotated away, the
bot was locked, the clock went on. Here a test says which ones, and how. The client sees what it
would see of Go: with TLS 1.2 its handshake fails, with TLS 1.3 its handshake has succeeded and the
alert is the first thing that it reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from dbproxy.lab.alerts import Alert, encrypted_alert, plaintext_alert
from dbproxy.lab.authority import Authority
from dbproxy.lab.errors import LabError
from dbproxy.lab.tls import TLSServerStream

SERVER_TRAFFIC: Final = "SERVER_TRAFFIC_SECRET_0"


@dataclass(frozen=True)
class Rejection:
    """Which certificates are rejected, and how.

    Attributes:
        issued_before: those issued earlier.
        alert: what the client is told.
    """

    issued_before: datetime
    alert: Alert


class Gatekeeper:
    """Decides about client certificates at the end of handshakes.

    Args:
        authority: knows when it issued what.
        directory: where OpenSSL logs secrets while there is a rejection.

    Attributes:
        rejected: how many certificates have been rejected.
    """

    def __init__(self, authority: Authority, directory: Path) -> None:
        self.rejected = 0
        self._authority = authority
        self._directory = directory
        self._rejections = 0
        self._rejection: Rejection | None = None
        self._key_log: Path | None = None

    @property
    def rejection(self) -> Rejection | None:
        """What is rejected from the next handshake on; ``None`` for nothing."""
        return self._rejection

    @rejection.setter
    def rejection(self, rejection: Rejection | None) -> None:
        if self._key_log is not None:
            self._key_log.unlink(missing_ok=True)
            self._key_log = None
        if rejection is not None:
            self._rejections += 1
            self._key_log = self._directory / f"tls-secrets-{self._rejections}.log"
            self._key_log.touch(mode=0o600)
        self._rejection = rejection

    @property
    def key_log(self) -> Path | None:
        """Where contexts have to log their secrets, ``None`` for nowhere.

        Each rejection has a file of its own, so that it has contexts of its own, too.
        """
        return self._key_log

    def last_word(self, stream: TLSServerStream) -> bytes | None:
        """Returns the record that rejects this client, ``None`` to let it in; a `LastWord`.

        Raises:
            LabError: the handshake's secret is not in the key log.
        """
        rejection, encoded = self._rejection, stream.client_certificate
        if rejection is None or encoded is None or not self._concerns(rejection, encoded):
            return None
        if stream.key_log != str(self._key_log):
            return None  # the handshake began before the rejection
        self.rejected += 1
        if stream.version != "TLSv1.3":
            return plaintext_alert(rejection.alert)
        secret = self._secret_of(stream.client_random)
        return encrypted_alert(rejection.alert, secret=secret, cipher=stream.cipher)

    def _concerns(self, rejection: Rejection, encoded: bytes) -> bool:
        certificate = x509.load_der_x509_certificate(encoded)
        return self._authority.issue_time(certificate) < rejection.issued_before

    def _secret_of(self, client_random: bytes) -> bytes:
        lines = self._key_log.read_text().splitlines() if self._key_log is not None else []
        beginning = f"{SERVER_TRAFFIC} {client_random.hex()} "
        for line in reversed(lines):
            if line.startswith(beginning):
                return bytes.fromhex(line.removeprefix(beginning))
        raise LabError("the key log does not have this connection")
