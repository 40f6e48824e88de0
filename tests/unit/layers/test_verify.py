"""What OpenSSL found wrong, in words."""

import pytest
from identities import Authority, make_certificate, make_key
from malformed import of_unknown_version
from OpenSSL import crypto

from dbproxy.layers import describe_verify_error


@pytest.fixture(scope="module")
def leaf(authority: Authority) -> crypto.X509:
    attributes = (("2.5.4.3", "teleport.example.com"),)
    return crypto.X509.from_cryptography(make_certificate(authority, make_key(), attributes))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (2, "was issued by an authority that is not known"),
        (7, "is not signed by the authority that it names"),
        (9, "is not valid yet"),
        (10, "has expired"),
        (18, "is self-signed"),
        (20, "was issued by an authority that is not trusted"),
        (68, "is signed with a hash that is too weak"),
        (23, "does not verify (X509_V_ERR 23)"),
    ],
)
def test_a_leaf_is_named_and_its_fault_put_in_words(
    number: int, words: str, leaf: crypto.X509
) -> None:
    assert describe_verify_error(number, 0, leaf) == f"(CN=teleport.example.com) {words}"


@pytest.mark.parametrize(
    ("depth", "which"), [(1, "its issuer"), (2, "the issuer at depth 2")], ids=str
)
def test_an_issuer_is_told_from_the_leaf(depth: int, which: str, leaf: crypto.X509) -> None:
    """The name in brackets is that of the certificate that has the fault."""
    words = describe_verify_error(10, depth, leaf)
    assert words == f"does not verify: {which} (CN=teleport.example.com) has expired"


def test_a_certificate_without_a_common_name_is_said_to_have_none(authority: Authority) -> None:
    nameless = crypto.X509.from_cryptography(make_certificate(authority, make_key(), ()))
    assert describe_verify_error(10, 0, nameless) == "(without a common name) has expired"


def test_a_certificate_that_cannot_be_parsed_is_called_malformed(leaf: crypto.X509) -> None:
    malformed = of_unknown_version(leaf.to_cryptography())
    assert describe_verify_error(10, 0, malformed) == "(malformed) has expired"


def test_the_words_suit_a_client_as_well_as_a_server(leaf: crypto.X509) -> None:
    assert "server" not in describe_verify_error(26, 0, leaf)
