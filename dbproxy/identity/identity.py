"""One consistent set of key, certificate, authorities and route."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from dbproxy.errors import Code, IdentityError
from dbproxy.identity.certificate import Subject
from dbproxy.identity.duration import in_words
from dbproxy.identity.pem import PrivateKey
from dbproxy.identity.route import Route

__all__ = ["Identity", "IdentityFiles"]


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """Where the parts of an identity came from, so that clients can be told.

    One file may be several of them: an identity file holds the first three.

    Attributes:
        directory: The destination, or the directory of the certificate that was named.
        certificate: The client certificate.
        key: Its private key.
        host_ca: The Host CA's certificates, with which a client verifies the Teleport Proxy.
        user_ca: The User CA's certificates; `None` without a file for them alone.
        database_ca: The Database CA's certificates; `None` without a file for them alone, as with
            Teleport 9, which has no such authority.
    """

    directory: Path
    certificate: Path
    key: Path
    host_ca: Path
    user_ca: Path | None
    database_ca: Path | None


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """What tbot wrote at one renewal: everything that a connection needs, from one moment.

    Two identities are equal only when they are the same object.

    Attributes:
        certificate: The client certificate: a leaf without a chain, as Teleport issues it.
        private_key: The key that belongs to it.
        host_cas: The Host CA's certificates: several while a rotation is under way.
        user_cas: The User CA's certificates, which sign `certificate`; may be empty.
        database_cas: The Database CA's certificates; may be empty.
        subject: What the certificate says about its holder.
        route: The database that the certificate leads to.
        files: Where all this was read from.
        generation: Counts the identities of a process, from 1.
    """

    certificate: x509.Certificate
    private_key: PrivateKey = field(repr=False)
    host_cas: tuple[x509.Certificate, ...]
    user_cas: tuple[x509.Certificate, ...]
    database_cas: tuple[x509.Certificate, ...]
    subject: Subject
    route: Route
    files: IdentityFiles
    generation: int = 1

    @property
    def not_valid_before(self) -> datetime:
        """The first moment of validity, in UTC."""
        return self.certificate.not_valid_before_utc

    @property
    def not_valid_after(self) -> datetime:
        """The last moment of validity, in UTC."""
        return self.certificate.not_valid_after_utc

    @property
    def certificate_der(self) -> bytes:
        """The certificate's DER encoding, for comparing byte by byte."""
        return self.certificate.public_bytes(Encoding.DER)

    def check_validity(self, now: datetime) -> None:
        """Check that the certificate is valid at `now`, both ends included (RFC 5280, 4.1.2.5).

        Args:
            now: An aware point in time.

        Raises:
            IdentityError: With `Code.CERTIFICATE_EXPIRED` or `Code.CERTIFICATE_NOT_YET_VALID`; the
                text names the file, the time and how far away it is.
        """
        if now > self.not_valid_after:
            raise IdentityError(
                Code.CERTIFICATE_EXPIRED,
                f"the certificate in {self.files.certificate} expired at"
                f" {_utc(self.not_valid_after)}, {in_words(now - self.not_valid_after)} ago",
            )
        if now < self.not_valid_before:
            raise IdentityError(
                Code.CERTIFICATE_NOT_YET_VALID,
                f"the certificate in {self.files.certificate} is valid only from"
                f" {_utc(self.not_valid_before)}, {in_words(self.not_valid_before - now)} from now",
            )

    def check_service(self, service: str) -> None:
        """Check that the certificate is for the database service `service`.

        Raises:
            IdentityError: With `Code.SERVICE_MISMATCH`; the text names both services.
        """
        if self.route.service != service:
            raise IdentityError(
                Code.SERVICE_MISMATCH,
                f"the certificate in {self.files.certificate} is for the database service"
                f" {self.route.service!r}, not for {service!r}",
            )


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
