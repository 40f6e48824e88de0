"""Who is at the other end of an authenticated TLS connection."""

from __future__ import annotations

from cryptography import x509

from dbproxy.lab.streams import TLSServerStream
from dbproxy.lab.subject import SubjectFields, decode_subject


def certificate_of(stream: TLSServerStream) -> x509.Certificate | None:
    """Returns the client's verified certificate, ``None`` if it showed none."""
    encoded = stream.client_certificate
    return None if encoded is None else x509.load_der_x509_certificate(encoded)


def identity_of(certificate: x509.Certificate | None) -> SubjectFields | None:
    """Returns what a verified certificate says about its holder, ``None`` for none.

    Raises:
        LabError: the subject is not one that Teleport writes.
    """
    return None if certificate is None else decode_subject(certificate.subject)
