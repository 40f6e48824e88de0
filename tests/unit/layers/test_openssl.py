"""Records on buffers that are used again and again, against the standard library's `ssl`."""

import pytest
from cryptography.hazmat.bindings.openssl.binding import Binding
from openssl_ends import client_layer
from tls_peers import Credentials, StdlibTLS, server_context, shake_hands

from dbproxy.layers import TLSError, TLSLayer
from dbproxy.layers.openssl import SETTLED, Scratch

SMALL, LARGE = 100, 10_000
"""Bytes that are copied, and bytes that are read where they lie."""
OVERWRITTEN = b"\x17\x03\x03\x00\x20" * 10_000
"""What another connection has received meanwhile."""

every_size = pytest.mark.parametrize("size", [SMALL, LARGE])


class Reader:
    """A client whose records are opened as the reactor does it, and the server it speaks with."""

    def __init__(self, credentials: Credentials) -> None:
        self.layer: TLSLayer = client_layer()
        self.server = StdlibTLS(server_context(credentials), server_side=True)
        shake_hands(self.layer, self.server)
        self.wire, self.plain = Scratch(64 * 1024), Scratch(128 * 1024)

    def open(self, wire: bytes) -> tuple[bytes, int]:
        """What comes out of wire bytes, and OpenSSL's result; the memory is used again then."""
        self.wire.view[: len(wire)] = wire
        end, result = self.layer.records.open(self.wire, len(wire), self.plain, 4)
        if result != SETTLED:
            self.layer.note_result(result, empty=end == 4)
        self.wire.view[: len(OVERWRITTEN)] = OVERWRITTEN
        return bytes(self.plain.view[4:end]), result

    def said(self, data: bytes) -> bytes:
        """The wire bytes with which the server says it."""
        self.server.send(data)
        return self.server.outgoing()


@pytest.fixture
def reader(localhost: Credentials) -> Reader:
    return Reader(localhost)


@every_size
def test_a_record_may_come_in_two_batches_of_any_size(reader: Reader, size: int) -> None:
    data = bytes(range(256)) * 64
    wire = reader.said(data)
    first, result = reader.open(wire[:-size])
    assert (first, result == SETTLED) == (b"", False)
    assert reader.open(wire[-size:]) == (data, SETTLED)


@every_size
def test_nothing_is_read_any_more_of_what_lies_behind_the_end(reader: Reader, size: int) -> None:
    wire = reader.said(b"the last word")
    reader.server.send_eof()
    wire += reader.server.outgoing() + OVERWRITTEN[:size]
    assert reader.open(wire)[0] == b"the last word"
    assert reader.layer.ended
    reader.layer.receive_eof()
    assert reader.layer.receive(OVERWRITTEN[:size]) == b""
    reader.layer.send_eof()
    reader.layer.send_eof()


@every_size
def test_nothing_is_read_any_more_of_what_lies_behind_a_broken_record(
    reader: Reader, size: int
) -> None:
    good, broken = reader.said(b"the last word"), bytearray(reader.said(b"broken"))
    broken[-1] ^= 1
    assert reader.open(good + broken + OVERWRITTEN[:size])[0] == b"the last word"
    with pytest.raises(TLSError, match="bad record mac"):
        reader.layer.receive_eof()
    connection = reader.layer.connection
    assert connection.bio_write(b"x") == 1, "what is received still goes into memory of others"


def test_a_connection_is_told_to_keep_no_buffers_while_it_is_idle(reader: Reader) -> None:
    lib = Binding.lib
    modes = lib.SSL_set_mode(reader.layer.connection._ssl, 0)
    assert modes & lib.SSL_MODE_RELEASE_BUFFERS
