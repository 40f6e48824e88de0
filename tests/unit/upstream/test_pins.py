"""Pinned public keys: how they are written, and what they do to trust."""

from base64 import b64encode
from contextlib import suppress
from hashlib import sha256

import pytest
from bad_servers import Issued, issue, lax_context
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from identities import HOUR
from OpenSSL import crypto
from tls_peers import StdlibTLS, shake_hands

from dbproxy.errors import Code, UsageError
from dbproxy.identity import Identity
from dbproxy.layers import LayerError, TLSLayer
from dbproxy.upstream import UpstreamTrust, parse_pins
from dbproxy.upstream.pins import pin_of

HOST = "teleport.example.com"
DIGEST = sha256(b"key").digest()
BASE64 = b64encode(DIGEST).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"sha256:{DIGEST.hex()}",
        f"sha256:{DIGEST.hex().upper()}",
        f" sha256:{DIGEST.hex()} ",
        f"sha256:{BASE64}",
        f"sha256:{BASE64.rstrip('=')}",
        f"sha256//{BASE64}",
    ],
)
def test_a_pin_is_read_in_every_way_that_people_write_it(text: str) -> None:
    assert parse_pins([text]) == {DIGEST}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        DIGEST.hex(),
        f"sha1:{DIGEST.hex()}",
        f"sha256:{DIGEST.hex()[:-2]}",
        "sha256:=",
    ],
)
def test_anything_else_is_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match=r"--proxy-pin: .* is not the SHA-256 of a public key"):
        parse_pins([f"sha256:{DIGEST.hex()}", text])


def pin(issued: Issued) -> bytes:
    """By another library than the product's."""
    key = issued.certificate.public_key()
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def test_a_pin_is_the_digest_of_the_subject_public_key_info() -> None:
    issued = issue(None, HOST)
    assert pin_of(crypto.load_certificate(crypto.FILETYPE_ASN1, issued.der)) == pin(issued)


@pytest.fixture(scope="module")
def root() -> Issued:
    return issue(None, common_name="Root", ca=True)


@pytest.fixture(scope="module")
def intermediate(root: Issued) -> Issued:
    return issue(root, common_name="Intermediate", ca=True)


@pytest.fixture(scope="module")
def proxy(intermediate: Issued) -> Issued:
    return issue(intermediate, HOST, chain=(intermediate,))


def code_of(
    shown: Issued, identity: Identity, *pins: bytes, root: Issued, insecure: bool = False
) -> Code | None:
    """What is wrong with the server; None when it is trusted."""
    trust = UpstreamTrust([root.certificate], pins=frozenset(pins), insecure=insecure)
    connection, judgement = trust.connection(HOST, (), identity, authenticate=False)
    server = StdlibTLS(lax_context(shown), server_side=True)
    with suppress(LayerError):
        shake_hands(TLSLayer(connection), server)
        return None
    assert judgement.complaint is not None
    return judgement.complaint.code


class TestInAddition:
    """Pins, and the verification as well."""

    def test_any_certificate_of_the_verified_chain_may_be_pinned(
        self, root: Issued, intermediate: Issued, proxy: Issued, identity: Identity
    ) -> None:
        for pinned in (root, intermediate, proxy):
            assert code_of(proxy, identity, DIGEST, pin(pinned), root=root) is None

    def test_another_key_is_refused(self, root: Issued, proxy: Issued, identity: Identity) -> None:
        assert code_of(proxy, identity, DIGEST, root=root) is Code.UPSTREAM_PIN_MISMATCH

    def test_a_certificate_that_is_only_sent_along_does_not_count(
        self, root: Issued, identity: Identity
    ) -> None:
        stranger = issue(None, common_name="Stranger", ca=True)
        shown = issue(root, HOST, chain=(stranger,))
        assert code_of(shown, identity, pin(stranger), root=root) is Code.UPSTREAM_PIN_MISMATCH

    def test_a_pin_does_not_make_up_for_another_fault(
        self, root: Issued, identity: Identity
    ) -> None:
        expired = issue(root, HOST, not_after=-HOUR / 2)
        other = issue(root, "other.example.com")
        own = issue(None, HOST)
        for shown, code in (
            (expired, Code.UPSTREAM_CERTIFICATE_EXPIRED),
            (other, Code.UPSTREAM_NAME_MISMATCH),
            (own, Code.UPSTREAM_SELF_SIGNED),
        ):
            assert code_of(shown, identity, pin(shown), root=root) is code


class TestInsecure:
    """Pins alone."""

    def test_whoever_holds_the_pinned_key_is_trusted(
        self, root: Issued, identity: Identity
    ) -> None:
        shown = issue(None, "stranger", not_after=-HOUR / 2)
        assert code_of(shown, identity, pin(shown), root=root, insecure=True) is None

    def test_anybody_else_is_refused(self, root: Issued, proxy: Issued, identity: Identity) -> None:
        code = code_of(proxy, identity, DIGEST, root=root, insecure=True)
        assert code is Code.UPSTREAM_PIN_MISMATCH

    def test_a_pinned_authority_does_not_count_because_anybody_can_send_its_certificate(
        self, root: Issued, intermediate: Issued, identity: Identity
    ) -> None:
        thief = issue(None, HOST, chain=(intermediate, root))
        for pinned in (intermediate, root):
            code = code_of(thief, identity, pin(pinned), root=root, insecure=True)
            assert code is Code.UPSTREAM_PIN_MISMATCH
