"""PEM files in every state that a writer can leave them in."""

import re
from base64 import encodebytes
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from identities import certificate_pem, key_pem, make_authority, make_key

from dbproxy.errors import Code, IdentityError
from dbproxy.identity import load_certificates, load_private_key

SOURCE = Path("/opt/machine-id/file")
AUTHORITY = make_authority()
OTHER = make_authority()
KEY = make_key()
KEY_PEM = key_pem(KEY)


def refuse_certificates(data: bytes) -> IdentityError:
    with pytest.raises(IdentityError) as caught:
        load_certificates(data, SOURCE)
    return check(caught.value)


def refuse_key(data: bytes) -> IdentityError:
    with pytest.raises(IdentityError) as caught:
        load_private_key(data, SOURCE)
    return check(caught.value)


def check(error: IdentityError) -> IdentityError:
    assert error.code is Code.IDENTITY_MALFORMED
    assert str(error).startswith(str(SOURCE))
    return error


def load_public_key(data: bytes) -> object:
    """Private keys cannot be compared, their public ones can."""
    return load_private_key(data, SOURCE).public_key()


def test_one_certificate_is_read() -> None:
    assert load_certificates(AUTHORITY.pem, SOURCE) == (AUTHORITY.certificate,)


def test_several_certificates_are_read_in_order() -> None:
    data = certificate_pem(OTHER.certificate, AUTHORITY.certificate)
    assert load_certificates(data, SOURCE) == (OTHER.certificate, AUTHORITY.certificate)


def test_blocks_of_other_kinds_are_skipped() -> None:
    assert load_certificates(KEY_PEM + AUTHORITY.pem, SOURCE) == (AUTHORITY.certificate,)
    assert load_public_key(AUTHORITY.pem + KEY_PEM) == KEY.public_key()


def test_a_list_joined_by_dollar_signs_is_read() -> None:
    """Teleport 9 writes `tlscacerts` so (lib/tbot/identity/artifact.go)."""
    data = b"$".join([AUTHORITY.pem, OTHER.pem])
    assert load_certificates(data, SOURCE) == (AUTHORITY.certificate, OTHER.certificate)


def test_windows_line_ends_are_read() -> None:
    data = AUTHORITY.pem.replace(b"\n", b"\r\n")
    assert load_certificates(data, SOURCE) == (AUTHORITY.certificate,)


def test_text_around_the_blocks_is_skipped() -> None:
    data = b"subject=/CN=x\n" + AUTHORITY.pem + b"# end\n"
    assert load_certificates(data, SOURCE) == (AUTHORITY.certificate,)


@given(length=st.integers(0, len(OTHER.pem)))
@settings(deadline=None)
def test_the_tail_of_a_longer_older_file_is_skipped(length: int) -> None:
    """What an open without O_TRUNC leaves behind."""
    old_tail = (OTHER.pem)[len(OTHER.pem) - length :]
    certificates = load_certificates(AUTHORITY.pem + old_tail, SOURCE)
    assert certificates[0] == AUTHORITY.certificate
    assert certificates[1:] in {(), (OTHER.certificate,)}


@given(length=st.integers(0, len(AUTHORITY.pem) - 2))
@settings(deadline=None)
def test_a_truncated_certificate_is_refused(length: int) -> None:
    refuse_certificates(AUTHORITY.pem[:length])


@given(length=st.integers(0, len(KEY_PEM) - 2))
@settings(deadline=None)
def test_a_truncated_key_is_refused(length: int) -> None:
    refuse_key(KEY_PEM[:length])


@given(length=st.integers(1, len(OTHER.pem) - 2))
@settings(deadline=None)
def test_a_list_cut_inside_a_later_certificate_is_refused(length: int) -> None:
    refuse_certificates(AUTHORITY.pem + OTHER.pem[:length])


@given(data=st.binary(max_size=400))
@settings(deadline=None)
def test_garbage_is_refused(data: bytes) -> None:
    refuse_certificates(data)
    refuse_key(data)


@given(
    parts=st.lists(
        st.sampled_from(
            [
                b"-----BEGIN CERTIFICATE-----",
                b"-----END CERTIFICATE-----",
                b"-----BEGIN PRIVATE KEY-----",
                b"-----END PRIVATE KEY-----",
                b"-----BEGIN OPENSSH PRIVATE KEY-----",
                b"-----END OPENSSH PRIVATE KEY-----",
                b"-----",
                b"\n",
                b"MAA=",
                b"Proc-Type: 4,ENCRYPTED",
                b"\xff",
            ]
        ),
        max_size=12,
    )
)
@settings(deadline=None)
def test_markers_around_nonsense_are_refused(parts: list[bytes]) -> None:
    refuse_certificates(b"".join(parts))
    refuse_key(b"".join(parts))


@given(position=st.integers(0, len(AUTHORITY.pem) - 1), byte=st.integers(0, 255))
@settings(deadline=None)
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_changed_byte_is_refused_or_read_without_a_crash(position: int, byte: int) -> None:
    data = bytearray(AUTHORITY.pem)
    data[position] = byte
    try:
        certificates = load_certificates(bytes(data), SOURCE)
    except IdentityError as error:
        check(error)
    else:
        assert len(certificates) == 1


@pytest.mark.parametrize("data", [b"", b"\n", b" \r\n\t"])
def test_an_empty_file_is_called_empty(data: bytes) -> None:
    assert str(refuse_certificates(data)) == f"{SOURCE} is empty"


def test_a_file_that_ends_too_early_is_called_truncated() -> None:
    assert str(refuse_certificates(AUTHORITY.pem[:-20])) == f"{SOURCE} is truncated"


def test_a_file_without_a_certificate_says_so() -> None:
    assert str(refuse_certificates(KEY_PEM)) == f"{SOURCE} holds no certificate, only PRIVATE KEY"


def test_a_file_without_a_key_says_so() -> None:
    assert str(refuse_key(AUTHORITY.pem)) == f"{SOURCE} holds no private key, only CERTIFICATE"


def test_a_binary_file_is_called_so() -> None:
    der = AUTHORITY.certificate.public_bytes(Encoding.DER)
    assert str(refuse_certificates(der)).startswith(f"{SOURCE} holds no certificate in PEM: it is")
    assert str(refuse_key(der)).startswith(f"{SOURCE} holds no private key in PEM: it is DER")


def test_what_follows_an_end_without_a_beginning_is_left_from_an_older_file() -> None:
    data = AUTHORITY.pem + OTHER.pem[300:] + OTHER.pem
    assert load_certificates(data, SOURCE) == (AUTHORITY.certificate,)


@pytest.mark.parametrize("end", [b"$", b"$-", b"$-----BEGIN", b"$-----BEGIN CERTIFICATE-----\nMII"])
def test_a_list_cut_at_a_dollar_sign_is_refused(end: bytes) -> None:
    assert str(refuse_certificates(AUTHORITY.pem + end)) == f"{SOURCE} is truncated"


def test_a_certificate_whose_name_is_no_text_is_refused() -> None:
    """A bit string of the same length, which the library would complain about only on use."""
    der = AUTHORITY.certificate.public_bytes(Encoding.DER)
    text = b"\x0c\x14teleport.example.com"
    assert text in der
    damaged = x509.load_der_x509_certificate(der.replace(text, b"\x03\x14" + b"\0" * 20))
    assert "damaged certificate" in str(refuse_certificates(certificate_pem(damaged)))


def test_a_block_inside_a_block_is_refused() -> None:
    refuse_certificates(AUTHORITY.pem[:100] + b"\n" + OTHER.pem)


def test_a_block_that_ends_as_another_kind_is_refused() -> None:
    refuse_certificates(AUTHORITY.pem.replace(b"END CERTIFICATE", b"END SOMETHING"))


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("label", [b"PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY"])
def test_rsa_and_ecdsa_keys_are_read_under_any_label(
    form: PrivateFormat, label: bytes, rsa_key: RSAPrivateKey
) -> None:
    assert load_public_key(relabelled(key_pem(rsa_key, form), label)) == rsa_key.public_key()
    assert load_public_key(relabelled(key_pem(KEY, form), label)) == KEY.public_key()


def relabelled(pem: bytes, label: bytes) -> bytes:
    return re.sub(rb"(BEGIN|END) [A-Z ]+-----", rb"\1 " + label + b"-----", pem)


def test_an_ed25519_key_is_read() -> None:
    key = Ed25519PrivateKey.generate()
    assert load_public_key(key_pem(key)) == key.public_key()


def test_a_key_in_openssh_form_is_read() -> None:
    assert load_public_key(key_pem(KEY, PrivateFormat.OpenSSH)) == KEY.public_key()


def test_an_encrypted_key_is_refused_as_such() -> None:
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    assert "encrypted" in str(refuse_key(pem))


def test_a_key_encrypted_the_old_way_is_refused_as_such() -> None:
    pem = KEY.private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret")
    )
    assert "encrypted" in str(refuse_key(pem))


def test_keys_that_teleport_does_not_use_are_refused() -> None:
    exchange_key = X25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    assert "not RSA, ECDSA or Ed25519" in str(refuse_key(exchange_key))


@pytest.mark.parametrize("name", ["d", "p", "q", "dmp1", "dmq1", "iqmp"])
def test_rsa_numbers_that_do_not_belong_together_are_refused(
    name: str, rsa_key: RSAPrivateKey
) -> None:
    """The library's own check is left out, as it takes most of a reload's time."""
    der = rsa_key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    number: int = getattr(rsa_key.private_numbers(), name)
    size = (number.bit_length() + 7) // 8
    old, new = (value.to_bytes(size, "big") for value in (number, number ^ 2))
    assert der.count(old) == 1
    data = armoured(der.replace(old, new), b"RSA PRIVATE KEY")
    assert str(refuse_key(data)) == f"{SOURCE} holds a damaged private key"


def armoured(der: bytes, label: bytes) -> bytes:
    return b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label, encodebytes(der), label)


@given(
    position=st.integers(0, len(KEY_PEM) - 1),
    replacement=st.sampled_from([b"", b"A", b"!", b"-", b"\n", b":", b"AAAA"]),
)
@settings(deadline=None)
def test_no_part_of_a_damaged_key_is_in_the_error(position: int, replacement: bytes) -> None:
    data = KEY_PEM[:position] + replacement + KEY_PEM[position + 1 :]
    secrets = [line.decode() for line in KEY_PEM.splitlines() if not line.startswith(b"--")]
    try:
        load_private_key(data, SOURCE)
    except IdentityError as error:
        for told in everything_told(error):
            for secret in secrets:
                for start in range(len(secret) - 8):
                    assert secret[start : start + 8] not in told


def everything_told(error: BaseException | None) -> list[str]:
    told = []
    while error is not None:
        told += [str(error), repr(error), repr(error.args)]
        error = error.__cause__
    return told


def test_an_authority_that_comes_again_is_not_read_again() -> None:
    """Most renewals change no authority; reading them takes a good part of a reload."""
    first, second = (load_certificates(AUTHORITY.pem, Path(name)) for name in ("a", "b"))
    assert first[0] is second[0]


def test_a_damaged_certificate_is_refused_each_time() -> None:
    lines = AUTHORITY.pem.splitlines(keepends=True)
    damaged = b"".join([lines[0], lines[2], lines[1], *lines[3:]])
    for name in ("a", "b"):
        with pytest.raises(IdentityError, match=f"{name} holds a damaged certificate"):
            load_certificates(damaged, Path(name))
