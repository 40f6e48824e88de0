"""TLS alerts, ours and the peer's: names, moments, and what the peer is told."""

import ssl

import pytest
from identities import Authority, make_authority
from OpenSSL import SSL
from openssl_ends import client_layer, server_layer
from tls_peers import (
    BOTH_VERSIONS,
    Credentials,
    StdlibTLS,
    client_context,
    make_credentials,
    server_context,
    shake_hands,
)

from dbproxy.layers import LayerError, TLSError, TLSLayer
from dbproxy.layers.tls import _tls_error

TLS_1_2, TLS_1_3 = BOTH_VERSIONS

NAMES = {
    10: "unexpected message",
    20: "bad record mac",
    22: "record overflow",
    40: "handshake failure",
    42: "bad certificate",
    43: "unsupported certificate",
    44: "certificate revoked",
    45: "certificate expired",
    46: "certificate unknown",
    47: "illegal parameter",
    48: "unknown ca",
    49: "access denied",
    50: "decode error",
    51: "decrypt error",
    70: "protocol version",
    71: "insufficient security",
    80: "internal error",
    86: "inappropriate fallback",
    109: "missing extension",
    115: "unknown psk identity",
    116: "certificate required",
    120: "no application protocol",
}
"""RFC 8446 §6.2; the names of those that speak of extensions differ in OpenSSL."""


def fatal_alert(number: int) -> bytes:
    return b"\x15\x03\x03\x00\x02\x02" + bytes([number])


@pytest.mark.parametrize(("number", "name"), NAMES.items(), ids=NAMES.values())
def test_the_peers_alert_is_named(number: int, name: str) -> None:
    layer = client_layer()
    layer.start()
    with pytest.raises(TLSError) as caught:
        layer.receive(fatal_alert(number))
    assert caught.value.alert == name
    assert name in caught.value.reason
    assert caught.value.during_handshake
    assert caught.value.refuses_alpn == (number == 120)


def test_alerts_without_a_name_of_ours_are_failures_all_the_same() -> None:
    for number in set(range(1, 256)) - NAMES.keys():
        layer = client_layer()
        layer.start()
        with pytest.raises(TLSError) as caught:
            layer.receive(fatal_alert(number))
        assert caught.value.reason
        assert caught.value.during_handshake


def late_client(
    localhost: Credentials, authority: Authority, credentials: Credentials | None
) -> tuple[TLSLayer, StdlibTLS]:
    """A client whose server, by TLS 1.3, has yet to judge its certificate."""
    layer = client_layer(credentials=credentials)
    context = server_context(localhost, version=TLS_1_3, client_authority=authority)
    peer = StdlibTLS(context, server_side=True)
    layer.start()
    peer.receive(layer.outgoing())
    assert layer.receive(peer.outgoing()) == b""
    assert not layer.handshaking, "for the client the handshake is over"
    with pytest.raises(ssl.SSLError):
        peer.receive(layer.outgoing())
    return layer, peer


@pytest.mark.parametrize("words_before", [b"", b"hello"])
def test_tls_1_3_tells_of_a_rejected_client_certificate_after_the_handshake(
    localhost: Credentials, authority: Authority, words_before: bytes
) -> None:
    foreign = make_credentials(make_authority(), common_name="eve")
    layer, peer = late_client(localhost, authority, foreign)
    layer.send(words_before)
    with pytest.raises(TLSError) as caught:
        layer.receive(peer.outgoing())
    assert caught.value.alert == "unknown ca"
    assert not caught.value.during_handshake


def test_tls_1_3_tells_of_a_missing_client_certificate_after_the_handshake(
    localhost: Credentials, authority: Authority
) -> None:
    layer, peer = late_client(localhost, authority, None)
    with pytest.raises(TLSError) as caught:
        layer.receive(peer.outgoing())
    assert caught.value.alert == "certificate required"
    assert not caught.value.during_handshake


def test_a_late_alert_is_raised_again_and_again(
    localhost: Credentials, authority: Authority
) -> None:
    layer, peer = late_client(localhost, authority, None)
    wire = peer.outgoing()
    for _ in range(2):
        with pytest.raises(TLSError, match="certificate required"):
            layer.receive(wire)
        wire = b""
    with pytest.raises(TLSError, match="certificate required"):
        layer.receive_eof()


@pytest.mark.parametrize(
    ("age_in_hours", "alert"), [(None, "handshake failure"), (2, "certificate expired")]
)
def test_tls_1_2_rejects_a_client_certificate_during_the_handshake(
    localhost: Credentials, authority: Authority, age_in_hours: int | None, alert: str
) -> None:
    credentials = None
    if age_in_hours is not None:
        expired = authority.certificate.not_valid_before_utc
        credentials = make_credentials(authority, not_before=expired, not_after=expired)
    layer = client_layer(credentials=credentials)
    context = server_context(localhost, version=TLS_1_2, client_authority=authority)
    peer = StdlibTLS(context, server_side=True)
    layer.start()
    peer.receive(layer.outgoing())
    layer.receive(peer.outgoing())
    assert layer.handshaking
    with pytest.raises(ssl.SSLError):
        peer.receive(layer.outgoing())
    with pytest.raises(TLSError) as caught:
        layer.receive(peer.outgoing())
    assert caught.value.alert == alert
    assert caught.value.during_handshake


@pytest.mark.parametrize("version", BOTH_VERSIONS, ids=lambda version: version.name)
def test_a_client_that_does_not_trust_us_says_so_in_the_handshake(
    localhost: Credentials, version: ssl.TLSVersion
) -> None:
    layer = server_layer(localhost)
    context = client_context(make_authority("somebody else"), version=version)
    peer = StdlibTLS(context, server_side=False, server_hostname="localhost")
    peer.start()
    layer.start()
    layer.receive(peer.outgoing())
    with pytest.raises(ssl.SSLCertVerificationError):
        peer.receive(layer.outgoing())
    with pytest.raises(TLSError) as caught:
        layer.receive(peer.outgoing())
    assert caught.value.alert == "unknown ca"
    assert caught.value.during_handshake


def test_a_peer_that_breaks_the_rules_is_told_with_an_alert(localhost: Credentials) -> None:
    layer = client_layer()
    peer = StdlibTLS(server_context(localhost, version=TLS_1_2), server_side=True)
    layer.start()
    peer.receive(layer.outgoing())
    flight = peer.outgoing()
    with pytest.raises(LayerError):
        layer.receive(flight + flight)
    with pytest.raises(ssl.SSLError, match="ALERT_UNEXPECTED_MESSAGE"):
        peer.receive(layer.outgoing())


def test_a_close_during_the_handshake_is_a_failure_and_not_an_end() -> None:
    layer = client_layer()
    layer.start()
    with pytest.raises(TLSError) as caught:
        layer.receive(b"\x15\x03\x03\x00\x02\x01\x00")
    assert caught.value.reason
    with pytest.raises(TLSError):
        layer.receive_eof()


def test_the_layers_own_failure_has_no_alert(localhost: Credentials) -> None:
    layer = client_layer()
    layer.start()
    with pytest.raises(TLSError) as caught:
        layer.receive(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
    assert caught.value.alert is None
    assert caught.value.reason


def test_an_alert_behind_good_bytes_is_kept_for_the_next_call(localhost: Credentials) -> None:
    layer = client_layer()
    peer = server_layer(localhost)
    shake_hands(layer, peer)
    peer.send(b"good")
    good = peer.outgoing()
    with pytest.raises(LayerError):
        peer.receive(b"\x17\x03\x03\x00\x20" + bytes(32))  # which peer answers with an alert
    assert layer.receive(good + peer.outgoing()) == b"good"
    with pytest.raises(TLSError) as caught:
        layer.receive(b"")
    assert caught.value.alert == "bad record mac"


@pytest.mark.parametrize(
    "failure",
    [SSL.SysCallError(-1, "Unexpected EOF"), SSL.SysCallError(104, "ECONNRESET"), SSL.Error()],
)
def test_a_failure_without_words_of_openssls_is_told_in_ours(failure: SSL.Error) -> None:
    """Some versions of pyOpenSSL tell an end so, with a number in the place of the words."""
    told = _tls_error(failure, during_handshake=False)
    assert (told.reason, told.alert) == ("the connection was closed", None)
