"""Who is at the other end of an authenticated TLS connection."""

from __future__ import annotations

from cryptography import x509

from dbproxy.lab.errors import LabError
from dbproxy.lab.subject import SubjectFields, decode_subject
from dbproxy.lab.tls import TLSServerStream


def certificate_of(stream: TLSServerStream) -> x509.Certificate | None:
    """Returns the client's verified certificate, ``None`` if it showed none.

    Raises:
        LabError: OpenSSL took the certificate, but it cannot be parsed here.
    """
    encoded = stream.client_certificate
    if encoded is None:
        return None
    try:
        return x509.load_der_x509_certificate(encoded)
    except ValueError as error:
        raise LabError(f"the client certificate cannot be parsed: {error}") from error


def identity_of(certificate: x509.Certificate | None) -> SubjectFields | None:
    """Returns what a verified certificate says about its holder, ``None`` for none.

    Raises:
        LabError: the subject is not one that Teleport writes.
    """
    if certificate is None:
        return None
    try:
        return decode_subject(certificate.subject)
    except ValueError as error:
        raise LabError(f"the client certificate's subject is malformed: {error}") from error
