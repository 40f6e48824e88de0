"""KeyUpdate of TLS 1.3 (RFC 8446 §4.6.3): the peer changes its keys and asks us to change ours.

The standard library cannot send one, so the test does, with the secrets out of its key log.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from openssl_ends import client_layer
from tls_peers import BOTH_VERSIONS, Credentials, StdlibTLS, server_context, shake_hands

from dbproxy.layers import TLSLayer
from dbproxy.layers.openssl import SETTLED, Scratch

HANDSHAKE, APPLICATION_DATA = 22, 23
UPDATE_REQUESTED = b"\x18\x00\x00\x01\x01"


class ServerKeys:
    """What a server of TLS 1.3 writes with, cipher suite TLS_AES_256_GCM_SHA384."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._sequence = 0

    def record(self, content_type: int, content: bytes) -> bytes:
        """An encrypted record (RFC 8446 §5.2)."""
        inner = content + bytes([content_type])
        header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        iv = int.from_bytes(self._expand(b"iv", 12), "big")
        nonce = (iv ^ self._sequence).to_bytes(12, "big")
        self._sequence += 1
        return header + AESGCM(self._expand(b"key", 32)).encrypt(nonce, inner, header)

    def update(self) -> None:
        """The next generation (RFC 8446 §7.2)."""
        self._secret = self._expand(b"traffic upd", 48)
        self._sequence = 0

    def _expand(self, label: bytes, size: int) -> bytes:
        name = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
        return HKDFExpand(algorithm=hashes.SHA384(), length=size, info=info).derive(self._secret)


def server_keys(keys_file: Path) -> ServerKeys:
    lines = keys_file.read_text().splitlines()
    line = next(line for line in lines if line.startswith("SERVER_TRAFFIC_SECRET_0 "))
    return ServerKeys(bytes.fromhex(line.split()[2]))


@dataclass
class Session:
    """A client, its server, and what the server writes with."""

    layer: TLSLayer
    peer: StdlibTLS
    keys: ServerKeys


@pytest.fixture
def session(localhost: Credentials, tmp_path: Path) -> Session:
    keys_file = tmp_path / "keys.log"
    context = server_context(localhost, version=BOTH_VERSIONS[1])
    context.num_tickets = 0  # so that the handshake leaves the records' numbers at zero
    context.keylog_filename = str(keys_file)
    layer, peer = client_layer(), StdlibTLS(context, server_side=True)
    shake_hands(layer, peer)
    assert layer.connection.get_cipher_name() == "TLS_AES_256_GCM_SHA384"
    return Session(layer, peer, server_keys(keys_file))


def test_new_keys_in_both_directions_lose_no_byte(session: Session) -> None:
    layer, peer, keys = session.layer, session.peer, session.keys
    wire = keys.record(APPLICATION_DATA, b"old keys, ") + keys.record(HANDSHAKE, UPDATE_REQUESTED)
    keys.update()
    wire += keys.record(APPLICATION_DATA, b"new keys")
    assert layer.receive(wire) == b"old keys, new keys"

    layer.send(b"answer")
    assert peer.receive(layer.outgoing()) == b"answer"


@pytest.mark.parametrize("size", [100, 10_000])
def test_new_keys_lose_no_byte_when_records_are_opened_in_batches(
    session: Session, size: int
) -> None:
    layer, peer, keys = session.layer, session.peer, session.keys
    wire = keys.record(HANDSHAKE, UPDATE_REQUESTED)
    keys.update()
    wire += keys.record(APPLICATION_DATA, bytes(size))
    received, plain = Scratch(32 * 1024), Scratch(64 * 1024)
    received.view[: len(wire)] = wire
    end, result = layer.records.open(received, len(wire), plain, 0)
    assert result == SETTLED or layer.records.wants_more(result)
    assert (end, bytes(plain.view[:size])) == (size, bytes(size))

    plain.view[:6] = b"answer"
    sealed, sent = layer.records.seal(plain, 0, 6, received, 0)
    assert sealed == 6
    assert peer.receive(bytes(received.view[:sent])) == b"answer"
