"""Whatever a peer sends, nothing but `LayerError` leaves the TLS layer, and it holds little."""

import ssl
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openssl_ends import client_layer, server_layer
from tls_peers import (
    BOTH_VERSIONS,
    Credentials,
    StdlibTLS,
    client_context,
    server_context,
    shake_hands,
)

from dbproxy.layers import LayerError, TLSLayer

KIB = 1024

pieces = st.lists(st.binary(max_size=300), max_size=5)
flips = st.lists(
    st.tuples(st.integers(min_value=0), st.integers(min_value=1, max_value=255)), max_size=4
)


def feed(layer: TLSLayer, wire: Sequence[bytes]) -> None:
    """Only a `LayerError` may come out; after it the layer must still take every call."""
    with suppress(LayerError):
        for piece in wire:
            layer.receive(piece)
    layer.outgoing()
    with suppress(LayerError):
        layer.receive_eof()


def flipped(wire: bytes, changes: Sequence[tuple[int, int]]) -> bytes:
    changed = bytearray(wire)
    for position, mask in changes:
        changed[position % len(changed)] ^= mask
    return bytes(changed)


def record(content_type: int, body: bytes) -> bytes:
    return bytes([content_type, 3, 3]) + len(body).to_bytes(2, "big") + body


records = st.builds(record, st.sampled_from([20, 21, 22, 23, 24, 255]), st.binary(max_size=60))


@given(pieces)
def test_garbage_to_a_client_in_its_handshake(wire: Sequence[bytes]) -> None:
    layer = client_layer()
    layer.start()
    feed(layer, wire)


@given(pieces)
def test_garbage_to_a_server_in_its_handshake(
    localhost: Credentials, wire: Sequence[bytes]
) -> None:
    layer = server_layer(localhost, wants_certificate=True)
    layer.start()
    feed(layer, wire)


@given(st.lists(records, max_size=4), st.booleans())
def test_well_formed_records_of_nonsense(
    localhost: Credentials, wire: Sequence[bytes], to_server: bool
) -> None:
    layer = server_layer(localhost) if to_server else client_layer()
    layer.start()
    feed(layer, wire)


@given(flips, st.sampled_from(BOTH_VERSIONS))
def test_a_servers_first_flight_with_flipped_bits(
    localhost: Credentials, changes: Sequence[tuple[int, int]], version: ssl.TLSVersion
) -> None:
    layer = client_layer()
    peer = StdlibTLS(server_context(localhost, version=version), server_side=True)
    layer.start()
    peer.receive(layer.outgoing())
    feed(layer, [flipped(peer.outgoing(), changes)])


@given(flips)
def test_a_client_hello_with_flipped_bits(
    localhost: Credentials, changes: Sequence[tuple[int, int]]
) -> None:
    layer = server_layer(localhost)
    peer = StdlibTLS(client_context(), server_side=False)
    peer.start()
    layer.start()
    feed(layer, [flipped(peer.outgoing(), changes)])


@given(flips, st.binary(min_size=1, max_size=100))
def test_application_records_with_flipped_bits(
    localhost: Credentials, changes: Sequence[tuple[int, int]], message: bytes
) -> None:
    layer, peer = client_layer(), server_layer(localhost)
    shake_hands(layer, peer)
    peer.send(message)
    feed(layer, [flipped(peer.outgoing(), changes), b"more"])


@pytest.mark.parametrize("handshake_type", [2, 11])
def test_a_gigantic_handshake_message_is_refused_before_it_is_collected(
    handshake_type: int,
) -> None:
    layer = client_layer()
    layer.start()
    header = bytes([handshake_type]) + b"\xff\xff\xff"
    with pytest.raises(LayerError):
        layer.receive(record(22, header + bytes(100)))


def test_a_record_that_never_ends_holds_no_more_than_a_record(localhost: Credentials) -> None:
    layer, peer = client_layer(), server_layer(localhost)
    shake_hands(layer, peer)
    layer.receive(b"\x17\x03\x03\xff\xff"[:3])
    tracemalloc.start()
    try:
        with pytest.raises(LayerError):
            layer.receive(b"\xff\xff" + bytes(64 * KIB))
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 256 * KIB
