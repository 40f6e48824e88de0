"""Records on buffers that are used again and again, against the standard library's `ssl`."""

import random
from ssl import TLSVersion

import pytest
from cryptography.hazmat.bindings.openssl.binding import Binding
from hypothesis import given
from hypothesis import strategies as st
from openssl_ends import client_layer
from tls_peers import Credentials, StdlibTLS, server_context, shake_hands

from dbproxy.layers import TLSError, TLSLayer
from dbproxy.layers.openssl import SETTLED, Scratch

SMALL, LARGE = 100, 10_000
"""Bytes that are copied, and bytes that are read where they lie."""
OVERWRITTEN = b"\x17\x03\x03\x00\x20" * 10_000
"""What another connection has received meanwhile."""

SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
PEERS = [(TLSVersion.TLSv1_2, None), *((TLSVersion.TLSv1_3, suite) for suite in SUITES)]

every_size = pytest.mark.parametrize("size", [SMALL, LARGE])


class Reader:
    """A client whose records are opened as the reactor does it, and the server it speaks with."""

    def __init__(
        self,
        credentials: Credentials,
        version: TLSVersion = TLSVersion.TLSv1_3,
        suite: str | None = None,
    ) -> None:
        self.layer: TLSLayer = client_layer(suite=suite)
        self.server = StdlibTLS(server_context(credentials, version=version), server_side=True)
        shake_hands(self.layer, self.server)
        assert suite in (None, self.layer.connection.get_cipher_name())
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
    received, result = reader.open(wire[-size:])
    assert received == data
    assert result == SETTLED or reader.layer.records.wants_more(result)


def test_what_a_handshake_has_left_to_be_said_comes_before_the_first_record(
    localhost: Credentials,
) -> None:
    layer = client_layer()
    server = StdlibTLS(server_context(localhost, version=TLSVersion.TLSv1_3), server_side=True)
    layer.start()
    server.start()
    server.receive(layer.outgoing())
    layer.receive(server.outgoing())
    assert not layer.handshaking
    plain, wire = Scratch(100), Scratch(64 * 1024)
    plain.view[:5] = b"hello"
    sealed, filled = layer.records.seal(plain, 0, 5, wire, 0)
    assert sealed == len(b"hello")
    assert server.handshaking
    assert server.receive(bytes(wire.view[:filled])) == b"hello"
    assert not server.handshaking


class TestEachBatch:
    """Whatever records it cuts, all that is whole comes out at once."""

    @given(
        sizes=st.lists(st.integers(1, 2000), min_size=1, max_size=12),
        cuts=st.lists(st.integers(0, 26_000), max_size=8),
        peer=st.sampled_from(PEERS),
    )
    def test_gives_all_that_is_whole(
        self,
        localhost: Credentials,
        sizes: list[int],
        cuts: list[int],
        peer: tuple[TLSVersion, str | None],
    ) -> None:
        version, suite = peer
        reader = Reader(localhost, version, suite)
        wire, whole, ends = b"", b"", []
        for number, size in enumerate(sizes):
            data = bytes([number]) * size
            wire, whole = wire + reader.said(data), whole + data
            ends.append((len(wire), len(whole)))
        received, fed = b"", 0
        for cut in sorted({min(cut, len(wire)) for cut in [*cuts, len(wire)]} - {0}):
            received += reader.open(wire[fed:cut])[0]
            fed = cut
            due = max((size for end, size in ends if end <= fed), default=0)
            assert received == whole[:due]


def test_a_batch_of_the_size_of_its_first_record_may_end_with_another(reader: Reader) -> None:
    for _ in range(2):  # whole records, until nothing is left over
        assert reader.open(reader.said(b"x")) == (b"x", SETTLED)
    long, short = reader.said(bytes(100)), reader.said(b"8 bytes.")
    cut = len(short)
    assert reader.open(long[:cut])[0] == b""
    assert len(long[cut:] + short) == len(long)
    assert reader.open(long[cut:] + short) == (bytes(100) + b"8 bytes.", SETTLED)


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


@pytest.mark.parametrize("size", [20, 21, 22])
def test_a_piece_of_a_record_is_never_a_whole_one(reader: Reader, size: int) -> None:
    """Also of 21 bytes: they are as many as those around a record, less the -1 of a failure."""
    assert reader.open(reader.said(b"first"))[0] == b"first"
    assert reader.open(reader.said(b"drained")) == (b"drained", SETTLED)
    wire = reader.said(b"a word that is cut")
    begun, result = reader.open(wire[:size])
    assert (begun, result) == (b"", -1)
    assert reader.open(wire[size:])[0] == b"a word that is cut"


@pytest.mark.parametrize("size", [20, 21, 22])
def test_a_broken_record_is_told_whatever_its_size(reader: Reader, size: int) -> None:
    assert reader.open(reader.said(b"first"))[0] == b"first"
    assert reader.open(reader.said(b"drained")) == (b"drained", SETTLED)
    broken = b"\x17\x03\x03" + (size - 5).to_bytes(2, "big") + bytes(size - 5)
    with pytest.raises(TLSError):
        reader.open(broken)


@every_size
def test_what_comes_behind_a_batch_may_be_received_by_the_layer(reader: Reader, size: int) -> None:
    assert reader.open(reader.said(bytes(size)))[0] == bytes(size)
    assert reader.layer.receive(reader.said(b"and more")) == b"and more"
    assert reader.open(reader.said(b"and more"))[0] == b"and more"


def test_a_connection_is_told_to_keep_no_buffers_while_it_is_idle(reader: Reader) -> None:
    lib = Binding.lib
    modes = lib.SSL_set_mode(reader.layer.connection._ssl, 0)
    assert modes & lib.SSL_MODE_RELEASE_BUFFERS


class TestSealing:
    """Encrypting, one record at a time and in bulk."""

    @pytest.mark.parametrize("bulk", [False, True])
    @pytest.mark.parametrize("size", [1, 16_384, 16_385, 60_000, 100_000])
    def test_what_is_sealed_arrives(self, reader: Reader, size: int, bulk: bool) -> None:
        records, data = reader.layer.records, random.Random(size).randbytes(size)
        if bulk:
            records.begin_bulk()
        reader.plain.view[7 : 7 + size] = data
        wire = Scratch(128 * 1024)
        sealed, filled = records.seal(reader.plain, 7, 7 + size, wire, 100)
        assert sealed == 7 + size
        assert reader.server.receive(bytes(wire.view[100:filled])) == data
        assert not records.take(wire), "nothing is left behind"

    @pytest.mark.parametrize("bulk", [False, True])
    def test_what_the_buffer_has_no_room_for_comes_afterwards(
        self, reader: Reader, bulk: bool
    ) -> None:
        records, data = reader.layer.records, random.Random(3).randbytes(100_000)
        if bulk:
            records.begin_bulk()
        reader.plain.view[: len(data)] = data
        wire, start, received = Scratch(40_000), 0, b""
        while start < len(data):
            start, filled = records.seal(reader.plain, start, len(data), wire, 0)
            received += reader.server.receive(bytes(wire.view[:filled]))
            while end := records.take(wire):
                received += reader.server.receive(bytes(wire.view[:end]))
        assert received == data

    @pytest.mark.parametrize("one", [True, False])
    def test_what_cannot_be_sealed_is_not_the_next_connections_error(
        self, reader: Reader, localhost: Credentials, one: bool
    ) -> None:
        """OpenSSL has one queue of errors for all connections of a thread."""
        other = Reader(localhost)
        assert other.open(other.said(b"first"))[0] == b"first"  # handshake messages empty the queue
        records, wire = reader.layer.records, Scratch(30_000)
        reader.layer.send_eof()
        reader.layer.outgoing()
        if one:
            assert records.seal_one(reader.plain, 0, 100, wire) == 0
        else:
            assert records.seal(reader.plain, 0, 100, wire, 0) == (0, 0)
        assert other.open(other.said(bytes(LARGE)))[0] == bytes(LARGE)
        broken = bytearray(other.said(bytes(LARGE)))
        broken[-1] ^= 1
        with pytest.raises(TLSError, match="bad record mac"):
            other.open(bytes(broken))

    def test_the_memory_of_bulk_is_given_back(self, reader: Reader) -> None:
        records, connection = reader.layer.records, reader.layer.connection
        wire = Scratch(128 * 1024)
        records.begin_bulk()
        records.seal(reader.plain, 0, 100_000, wire, 0)
        swollen = connection._from_ssl
        records.seal(reader.plain, 0, 100_000, wire, 0)
        assert connection._from_ssl is swollen, "in between it is used again"
        records.end_bulk()
        assert connection._from_ssl is not swollen
        _, filled = records.seal(reader.plain, 0, 40_000, wire, 0)
        assert filled == 40_000 + 3 * 22, "which is in use now"

    def test_what_has_not_been_taken_survives_the_end_of_bulk(self, reader: Reader) -> None:
        records, wire = reader.layer.records, Scratch(30_000)
        records.begin_bulk()
        reader.plain.view[:50_000] = bytes(50_000)
        _, filled = records.seal(reader.plain, 0, 50_000, wire, 0)
        received = reader.server.receive(bytes(wire.view[:filled]))
        records.end_bulk()
        while end := records.take(wire):
            received += reader.server.receive(bytes(wire.view[:end]))
        assert received == bytes(50_000)
