"""By what the Teleport Proxy's certificate is trusted, in words."""

from collections.abc import Collection, Mapping
from pathlib import Path

from cryptography import x509

from dbproxy.errors import ConfigError
from dbproxy.identity import Identity, read_certificates
from dbproxy.settings import Settings

__all__ = ["trust_source"]

_FILE_VARIABLE = "SSL_CERT_FILE"
_DIRECTORY_VARIABLE = "SSL_CERT_DIR"


def trust_source(
    anchor: x509.Certificate,
    settings: Settings,
    identity: Identity | None,
    extra_roots: Collection[x509.Certificate],
    environ: Mapping[str, str],
) -> str:
    """Where the authority comes from that a verified chain ends at.

    Args:
        anchor: The last certificate of the chain.
        settings: Where an authority may be named.
        identity: Whose Host CA is trusted.
        extra_roots: The authorities of `--proxy-ca`, or of tbot's configuration.
        environ: The environment variables.
    """
    if identity is not None and anchor in identity.host_cas:
        return f"the Host CA in {identity.files.host_ca}"
    if anchor in extra_roots:
        named = settings.proxy_ca or f"onboarding.ca_path in {settings.config}"
        return f"the authority in {named}"
    file, directory = environ.get(_FILE_VARIABLE), environ.get(_DIRECTORY_VARIABLE)
    if file and anchor in _certificates_in(Path(file)):
        return f"an authority in {file}, which {_FILE_VARIABLE} names"
    if directory:
        return f"an authority in {directory}, which {_DIRECTORY_VARIABLE} names"
    return "the system's authorities"


def _certificates_in(path: Path) -> Collection[x509.Certificate]:
    try:
        return read_certificates(path)
    except ConfigError:  # OpenSSL has passed it over, too
        return ()
