"""The TLS layer against the standard library: handshake, bytes both ways, ends, TLS in TLS."""

import hashlib
import random
import ssl
from collections.abc import Callable

import pytest
from cuts import cut_at
from hypothesis import given
from hypothesis import strategies as st
from identities import Authority
from openssl_ends import client_layer, server_layer
from tls_peers import (
    BOTH_VERSIONS,
    Credentials,
    StdlibTLS,
    carry,
    client_context,
    server_context,
    shake_hands,
)

from dbproxy.layers import LayerError, LayerStack, PingLayer, TLSLayer, TruncatedError

MIB = 1024 * 1024

Ends = tuple[TLSLayer, StdlibTLS]
Connect = Callable[[Credentials, ssl.TLSVersion | None], Ends]

parametrize_version = pytest.mark.parametrize("version", BOTH_VERSIONS, ids=lambda v: v.name)


def as_client(localhost: Credentials, version: ssl.TLSVersion | None = None) -> Ends:
    """The layer as client of a server of the standard library, after the handshake."""
    layer = client_layer()
    peer = StdlibTLS(server_context(localhost, version=version), server_side=True)
    shake_hands(layer, peer)
    return layer, peer


def as_server(localhost: Credentials, version: ssl.TLSVersion | None = None) -> Ends:
    """The layer as server of a client of the standard library, after the handshake."""
    layer = server_layer(localhost)
    peer = StdlibTLS(client_context(version=version), server_side=False)
    shake_hands(layer, peer)
    return layer, peer


parametrize_role = pytest.mark.parametrize("connect", [as_client, as_server])


@parametrize_version
@parametrize_role
def test_a_handshake_ends_on_both_sides_with_the_same_version(
    connect: Connect, version: ssl.TLSVersion, localhost: Credentials
) -> None:
    layer, peer = connect(localhost, version)
    assert not layer.handshaking
    assert not peer.handshaking
    assert layer.connection.get_protocol_version_name() == peer.tls.version()


def test_a_layer_shakes_hands_until_it_can_send(localhost: Credentials) -> None:
    layer = client_layer()
    assert layer.handshaking
    layer.start()
    assert layer.handshaking
    assert layer.outgoing().startswith(b"\x16\x03")
    assert layer.outgoing() == b""


@parametrize_version
def test_a_handshake_one_byte_at_a_time_succeeds(
    version: ssl.TLSVersion, localhost: Credentials
) -> None:
    layer = client_layer()
    peer = StdlibTLS(server_context(localhost, version=version), server_side=True)
    layer.start()
    while layer.handshaking or peer.handshaking:
        for byte in layer.outgoing():
            peer.receive(bytes([byte]))
        for byte in peer.outgoing():
            assert layer.receive(bytes([byte])) == b""
    layer.send(b"hello")
    assert peer.receive(layer.outgoing()) == b"hello"


@parametrize_version
@parametrize_role
def test_five_mebibytes_each_way_arrive_unchanged(
    connect: Connect, version: ssl.TLSVersion, localhost: Credentials
) -> None:
    layer, peer = connect(localhost, version)
    up, down = random.Random(1).randbytes(5 * MIB), random.Random(2).randbytes(5 * MIB)
    layer.send(up)
    peer.send(down)
    assert digest(peer.receive(layer.outgoing())) == digest(up)
    assert digest(layer.receive(peer.outgoing())) == digest(down)


def digest(data: bytes) -> str:
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


@given(
    messages=st.lists(st.binary(max_size=100), max_size=6),
    cuts=st.lists(st.integers(min_value=0, max_value=2000), max_size=10),
)
def test_records_may_be_cut_anywhere(
    session_ends: Ends, messages: list[bytes], cuts: list[int]
) -> None:
    layer, peer = session_ends
    for message in messages:
        peer.send(message)
    wire = peer.outgoing()
    assert b"".join(map(layer.receive, cut_at(wire, cuts))) == b"".join(messages)


@pytest.fixture(scope="module")
def session_ends(localhost: Credentials) -> Ends:
    return as_client(localhost)


@parametrize_role
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_buffer_can_be_sent_and_received(
    connect: Connect, kind: type, localhost: Credentials
) -> None:
    layer, peer = connect(localhost, None)
    layer.send(kind(b"up"))
    assert peer.receive(layer.outgoing()) == b"up"
    peer.send(b"down")
    assert layer.receive(kind(peer.outgoing())) == b"down"


def test_sending_nothing_makes_no_record(localhost: Credentials) -> None:
    layer, _peer = as_client(localhost)
    layer.send(b"")
    assert layer.outgoing() == b""


def test_a_first_message_that_comes_with_the_end_of_the_handshake_is_not_lost(
    localhost: Credentials,
) -> None:
    layer = server_layer(localhost)
    peer = StdlibTLS(client_context(), server_side=False)
    peer.start()
    layer.start()
    layer.receive(peer.outgoing())
    peer.receive(layer.outgoing())
    peer.send(b"first")
    peer.send_eof()
    assert layer.receive(peer.outgoing()) == b"first"
    assert not layer.handshaking
    assert layer.ended


@parametrize_version
@parametrize_role
def test_a_close_notify_ends_one_direction_only(
    connect: Connect, version: ssl.TLSVersion, localhost: Credentials
) -> None:
    layer, peer = connect(localhost, version)
    layer.send(b"last question")
    layer.send_eof()
    assert peer.receive(layer.outgoing()) == b"last question"
    assert peer.ended
    assert not layer.ended


def test_after_our_close_notify_the_peer_may_go_on(localhost: Credentials) -> None:
    layer, peer = client_layer(), server_layer(localhost)
    shake_hands(layer, peer)
    layer.send_eof()
    assert peer.receive(layer.outgoing()) == b""
    assert peer.ended
    for number in range(3):
        peer.send(b"answer %d" % number)
        assert layer.receive(peer.outgoing()) == b"answer %d" % number
    peer.send_eof()
    assert layer.receive(peer.outgoing()) == b""
    assert layer.ended
    layer.receive_eof()


@parametrize_version
@parametrize_role
def test_after_the_peers_close_notify_we_may_go_on(
    connect: Connect, version: ssl.TLSVersion, localhost: Credentials
) -> None:
    layer, peer = connect(localhost, version)
    peer.send(b"bye")
    peer.send_eof()
    assert layer.receive(peer.outgoing()) == b"bye"
    assert layer.ended
    layer.receive_eof()
    layer.send(b"one more thing")
    assert layer.outgoing()


@parametrize_version
@parametrize_role
def test_an_end_without_close_notify_is_truncation(
    connect: Connect, version: ssl.TLSVersion, localhost: Credentials
) -> None:
    layer, peer = connect(localhost, version)
    peer.send(b"half a mess")
    assert layer.receive(peer.outgoing()) == b"half a mess"
    with pytest.raises(TruncatedError, match="without a TLS close_notify"):
        layer.receive_eof()


def test_an_end_during_the_handshake_is_truncation(localhost: Credentials) -> None:
    layer = client_layer()
    layer.start()
    with pytest.raises(TruncatedError):
        layer.receive_eof()


def test_a_connection_that_lost_a_byte_fails_and_stays_failed(localhost: Credentials) -> None:
    layer, peer = as_client(localhost)
    peer.send(b"a record")
    with pytest.raises(LayerError):
        layer.receive(peer.outgoing()[:-1] + b"\0")
    assert layer.outgoing(), "the peer is told with an alert"
    peer.send(b"another record")
    with pytest.raises(LayerError):
        layer.receive(peer.outgoing())
    with pytest.raises(LayerError):
        layer.receive_eof()


def test_good_bytes_before_a_bad_record_are_handed_out_first(localhost: Credentials) -> None:
    layer, peer = as_client(localhost)
    peer.send(b"good")
    good = peer.outgoing()
    peer.send(b"bad")
    assert layer.receive(good + peer.outgoing()[:-1] + b"\0") == b"good"
    with pytest.raises(LayerError):
        layer.receive(b"")


def test_tls_in_tls_carries_bytes_both_ways(authority: Authority, localhost: Credentials) -> None:
    database = StdlibTLS(server_context(localhost), server_side=True)
    peer = StdlibTLS(server_context(localhost), server_side=True)
    stack = LayerStack(client_layer())
    shake_hands(stack, peer)

    stack.push(client_layer())
    stack.start()
    while stack.handshaking or database.handshaking:
        database.receive(peer.receive(stack.outgoing()))
        peer.send(database.outgoing())
        stack.receive(peer.outgoing())

    stack.send(b"question")
    assert database.receive(peer.receive(stack.outgoing())) == b"question"
    database.send(b"answer")
    peer.send(database.outgoing())
    assert stack.receive(peer.outgoing()) == b"answer"


def test_tls_and_ping_and_tls_can_be_stacked(localhost: Credentials) -> None:
    near = LayerStack(client_layer(), PingLayer())
    far = LayerStack(server_layer(localhost), PingLayer())
    near_tls, far_tls = client_layer(), server_layer(localhost)
    outer_near, outer_far = near._layers[0], far._layers[0]
    outer_near.start()
    outer_far.start()
    while near.handshaking or far.handshaking:
        carry(near, far)
    near.push(near_tls)
    far.push(far_tls)
    shake_hands(near, far)
    near.send(b"x" * MIB)
    assert far.receive(near.outgoing()) == b"x" * MIB


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_the_first_bytes_are_kept_but_no_more(size: int) -> None:
    layer = client_layer()
    layer.start()
    assert layer.heard == b""
    banner = b"\x16\x03\x03\x40\x00" + bytes(range(200))
    for start in range(0, len(banner), size):
        layer.receive(banner[start : start + size])
    assert layer.heard == banner[:64]
