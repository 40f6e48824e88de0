"""From parts to an identity: what is put together must belong together."""

from collections.abc import Iterable
from contextlib import suppress

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from dbproxy.errors import Code, IdentityError
from dbproxy.identity.certificate import parse_subject
from dbproxy.identity.identity import Identity, IdentityFiles
from dbproxy.identity.pem import PrivateKey, is_key_of

__all__ = ["assemble", "is_issued_by_one_of"]


def assemble(
    *,
    certificate: x509.Certificate,
    private_key: PrivateKey,
    host_cas: tuple[x509.Certificate, ...],
    user_cas: tuple[x509.Certificate, ...] = (),
    database_cas: tuple[x509.Certificate, ...] = (),
    files: IdentityFiles,
) -> Identity:
    """An identity of generation 1 from its parts.

    Raises:
        IdentityError: `KEY_MISMATCH`: the key is not the certificate's;
            `CERTIFICATE_WITHOUT_ROUTE`: the certificate is not for a database;
            `IDENTITY_MALFORMED`: its subject or its public key cannot be read.
    """
    if not is_key_of(private_key, certificate, files.certificate):
        raise IdentityError(
            Code.KEY_MISMATCH,
            f"the private key in {files.key} does not belong to the certificate in"
            f" {files.certificate}",
        )
    subject = parse_subject(certificate, files.certificate)
    if subject.route is None:
        raise IdentityError(
            Code.CERTIFICATE_WITHOUT_ROUTE,
            f"the certificate in {files.certificate} (user {subject.user!r}) names no database"
            " service",
        )
    return Identity(
        certificate=certificate,
        private_key=private_key,
        host_cas=host_cas,
        user_cas=user_cas,
        database_cas=database_cas,
        subject=subject,
        route=subject.route,
        files=files,
    )


def is_issued_by_one_of(
    certificate: x509.Certificate, authorities: Iterable[x509.Certificate]
) -> bool:
    """Whether one of the authorities signed the certificate."""
    return any(_is_issued_by(certificate, authority) for authority in authorities)


def _is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    # ValueError: another name or a damaged key; TypeError: a kind of key that signs nothing.
    with suppress(ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        certificate.verify_directly_issued_by(authority)
        return True
    return False
