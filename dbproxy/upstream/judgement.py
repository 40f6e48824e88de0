"""What is wrong with a server's certificate, each fault with a code of its own.

OpenSSL builds and verifies the chain and tells us about each certificate in it, from the anchor
down to the server's own; its own comes last. So the name and the pins are judged there, inside the
handshake, when everything else has been found in order.

**Pins** are an addition to the verification: any certificate of the *verified* chain may have a
pinned key, so one can pin the authority as well as the server. With `--insecure` no chain is
verified, and a server may send along whatever certificates it likes; the only key that it proves to
hold is that of its own certificate. So there, and only there, the pin must be the server's own, and
trust rests on the pin alone.

**An unknown authority, or a missing intermediate?** When a server sends its own certificate and
nothing that leads to an anchor, OpenSSL cannot tell. It is called a missing intermediate where the
certificate says where its issuer's certificate can be fetched (AIA, RFC 5280 §4.2.2.1: public
authorities issue from intermediates and all say so), or where its issuer belongs to the
organisation of an authority that we were given. An authority that has the very name of the issuer
but another key is another authority.

Tested in `tests/unit/upstream/test_badly_certified.py` against real servers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID
from OpenSSL import crypto

from dbproxy.errors import Code
from dbproxy.layers import MALFORMED_CERTIFICATE, describe_verify_error
from dbproxy.upstream.names import ServerNames, names_of
from dbproxy.upstream.pins import pin_of

__all__ = ["Complaint", "Rules", "ServerJudgement"]

# X509_V_ERR_* of OpenSSL's include/openssl/x509_vfy.h.
_ISSUER_NOT_FOUND: Final = frozenset({20, 21})
_CODES: Final = {
    9: Code.UPSTREAM_CERTIFICATE_NOT_YET_VALID,
    10: Code.UPSTREAM_CERTIFICATE_EXPIRED,
    18: Code.UPSTREAM_SELF_SIGNED,
    26: Code.UPSTREAM_CERTIFICATE_PURPOSE,
    66: Code.UPSTREAM_KEY_WEAK,
    67: Code.UPSTREAM_KEY_WEAK,
    68: Code.UPSTREAM_SIGNATURE_WEAK,
}


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with a server.

    Attributes:
        code: Its stable name.
        words: The end of a sentence that begins with "the certificate that … showed".
    """

    code: Code
    words: str

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True, slots=True)
class Rules:
    """What a server's certificate must be.

    Attributes:
        names: What it must be for.
        anchors: The authorities that we were given, for telling what may be missing.
        pins: Digests of public keys, any of which must be there; none means that any key will do.
        insecure: Whether only the pins count.
    """

    names: ServerNames
    anchors: Sequence[x509.Certificate] = ()
    pins: frozenset[bytes] = frozenset()
    insecure: bool = False


@dataclass(slots=True)
class ServerJudgement:
    """What one handshake has shown about the server's certificate.

    Attributes:
        rules: What it must be.
        complaint: The first thing wrong, or None.
        checked: Whether a certificate was shown at all: in a resumed session none is.
        valid_until: The end of the server's own certificate, where that counts.
    """

    rules: Rules
    complaint: Complaint | None = None
    checked: bool = False
    valid_until: datetime | None = None
    _pinned: bool = field(default=False, init=False)

    def judge(self, certificate: crypto.X509, error: int, depth: int, *, ok: bool) -> bool:
        """Whether the handshake may go on; what is wrong is kept.

        Args:
            certificate: One of the chain.
            error: OpenSSL's X509_V_ERR_*, if it finds fault.
            depth: Its place in the chain; 0 is the server's own, which comes last.
            ok: Whether OpenSSL finds nothing wrong.
        """
        self.checked = True
        try:
            return self._judge(certificate, error, depth, ok)
        except MALFORMED_CERTIFICATE as malformed:
            self._complain(Code.UPSTREAM_UNTRUSTED, f"is malformed: {malformed}")
            return False

    def _judge(self, certificate: crypto.X509, error: int, depth: int, ok: bool) -> bool:
        rules = self.rules
        if rules.insecure:
            return depth > 0 or self._check_pins(certificate)
        if not ok:
            code = self._code(certificate, error, depth)
            self._complain(code, describe_verify_error(error, depth, certificate))
            return False
        if depth > 0:
            self._pinned = self._pinned or (bool(rules.pins) and pin_of(certificate) in rules.pins)
            return True
        leaf = certificate.to_cryptography()
        self.valid_until = leaf.not_valid_after_utc
        return self._check_name(leaf) and self._check_pins(certificate)

    def _check_name(self, leaf: x509.Certificate) -> bool:
        names = self.rules.names
        if names.match(leaf):
            return True
        found = names_of(leaf)
        code = Code.UPSTREAM_NAME_MISMATCH if found else Code.UPSTREAM_NAME_MISSING
        return self._complain(
            code, f"is for {', '.join(found) or 'no name at all'}, not for {names}"
        )

    def _check_pins(self, own: crypto.X509) -> bool:
        pins = self.rules.pins
        if not pins or self._pinned:
            return True
        digest = pin_of(own)
        return digest in pins or self._complain(
            Code.UPSTREAM_PIN_MISMATCH,
            f"has none of the pinned public keys: its own is sha256:{digest.hex()}",
        )

    def _complain(self, code: Code, words: str) -> bool:
        """Keep the first complaint; returns False for the caller to return."""
        if self.complaint is None:
            self.complaint = Complaint(code, words)
        return False

    def _code(self, certificate: crypto.X509, error: int, depth: int) -> Code:
        if error in _ISSUER_NOT_FOUND and depth == 0 and self._misses_intermediate(certificate):
            return Code.UPSTREAM_CHAIN_INCOMPLETE
        return _CODES.get(error, Code.UPSTREAM_UNTRUSTED)

    def _misses_intermediate(self, own: crypto.X509) -> bool:
        leaf, anchors = own.to_cryptography(), self.rules.anchors
        if any(anchor.subject == leaf.issuer for anchor in anchors):
            return False
        organisations = {name for anchor in anchors for name in _organisations(anchor.subject)}
        return _names_issuer_address(leaf) or not organisations.isdisjoint(
            _organisations(leaf.issuer)
        )


def _organisations(name: x509.Name) -> set[str]:
    attributes = name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return {str(attribute.value) for attribute in attributes}


def _names_issuer_address(leaf: x509.Certificate) -> bool:
    try:
        access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return False
    return any(
        description.access_method == AuthorityInformationAccessOID.CA_ISSUERS
        for description in access
    )
