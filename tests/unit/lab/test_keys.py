from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from dbproxy.lab.authority import Authority
from dbproxy.lab.keys import KeyPair, new_ecdsa_key, new_rsa_key, private_key_pem
from dbproxy.lab.subject import SubjectFields


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return new_rsa_key()


def test_an_rsa_key_is_written_as_pkcs1(rsa_key: rsa.RSAPrivateKey) -> None:
    pem = private_key_pem(rsa_key)
    assert pem.startswith(b"-----BEGIN RSA PRIVATE KEY-----\n")
    loaded = load_pem_private_key(pem, None)
    assert isinstance(loaded, rsa.RSAPrivateKey)
    assert loaded.private_numbers() == rsa_key.private_numbers()


def test_an_rsa_key_has_the_size_that_teleport_uses(rsa_key: rsa.RSAPrivateKey) -> None:
    assert rsa_key.key_size == 2048


def test_an_ecdsa_key_is_written_as_pkcs8() -> None:
    assert private_key_pem(new_ecdsa_key()).startswith(b"-----BEGIN PRIVATE KEY-----\n")


def test_a_key_pair_shows_no_private_key() -> None:
    key = new_ecdsa_key()
    certificate = Authority.create().issue_user_certificate(
        key.public_key(), SubjectFields("alice"), timedelta(minutes=1)
    )
    pair = KeyPair(key, certificate)
    assert "key=" not in repr(pair)
    assert pair.key_pem == private_key_pem(key)
    assert pair.certificate_pem.count(b"BEGIN CERTIFICATE") == 1
