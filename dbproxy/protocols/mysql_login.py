"""MySQL's login between a client inside TLS and an upstream without: numbers put right.

The problem: with `--terminate` the client has sent one packet more than the upstream knows of, the
SSLRequest, so each side counts differently, and both drop a connection whose packets are out of
order.

The choice: until the login is over, each packet is given the number that the other side expects:
one less for the upstream, one more for the client. How clients prove who they are does not matter
here (`mysql_native_password`, `caching_sha2_password` with its fast and its full way, a switch to
another plugin): that is in the packets, which are carried as they are. The login is over with the
server's OK or ERR. Each command after that begins to count anew, so the rest is only relayed; so
does one that a client sends without waiting for the OK.

One thing cannot be translated: inside TLS `caching_sha2_password` sends the password itself, and a
database that knows it has no TLS would expect it encrypted. Teleport does not ask for passwords.

Tested in `tests/unit/protocols/test_mysql_login.py`, and with a real MariaDB in
`tests/integration/test_mysql.py`.
"""

from typing import Final

from dbproxy.errors import ClientError, Code, DBProxyError, UpstreamError
from dbproxy.protocols.base import Conversation, Say
from dbproxy.protocols.wire.mysql import refusal_packet
from dbproxy.protocols.wire.mysql_packets import (
    ERR,
    SEQUENCE_NUMBERS,
    MalformedPacketError,
    Packet,
    PacketReader,
    encode_packet,
    without_tls,
)

__all__ = ["MySQLLogin"]

_OK: Final = 0x00
_LAST_SEQUENCE: Final = SEQUENCE_NUMBERS - 1
_FIRST_OF_COMMAND: Final = 0
_MORE_AT_CLIENT: Final = 1
"""How many packets the client has sent that the upstream does not know of."""


class MySQLLogin(Conversation):
    """Carries the login until the server says OK or ERR.

    Args:
        response: The client's HandshakeResponse, which came inside TLS.
        rest: What the client has sent behind it already.
    """

    def __init__(self, response: Packet, rest: bytes = b"") -> None:
        self._response = response
        self._rest = rest
        self._last_sequence = response.sequence  # as the client counts
        self._client = PacketReader()
        self._upstream = PacketReader()
        self._over = False

    def begin(self) -> Say:
        sequence = self._response.sequence - _MORE_AT_CLIENT
        first = encode_packet(sequence, without_tls(self._response.payload))
        return Say(to_upstream=first + self.from_client(self._rest).to_upstream)

    def from_client(self, data: bytes) -> Say:
        if self._over:
            return Say(to_upstream=data)
        self._client.feed(data)
        return Say(to_upstream=self._translate_up())

    def _translate_up(self) -> bytes:
        translated = b""
        try:
            while (packet := self._client.next_packet()) is not None:
                translated += self._translated(packet)
        except MalformedPacketError as error:
            raise ClientError(
                Code.CLIENT_PROTOCOL_ERROR, f"the client sent {error} before it was logged in"
            ) from error
        return translated

    def _translated(self, packet: Packet) -> bytes:
        # In a login that has used up all numbers, this one comes round, too.
        if packet.sequence == _FIRST_OF_COMMAND and self._last_sequence != _LAST_SEQUENCE:
            return encode_packet(packet.sequence, packet.payload)
        self._last_sequence = packet.sequence
        return encode_packet(packet.sequence - _MORE_AT_CLIENT, packet.payload)

    def from_upstream(self, data: bytes) -> Say:
        if self._over:
            return Say(to_client=data)
        self._upstream.feed(data)
        translated = b""
        try:
            while not self._over and (packet := self._upstream.next_packet()) is not None:
                self._last_sequence = (packet.sequence + _MORE_AT_CLIENT) % SEQUENCE_NUMBERS
                translated += encode_packet(self._last_sequence, packet.payload)
                self._over = packet.payload[:1] in (bytes([_OK]), bytes([ERR]))
        except MalformedPacketError as error:
            raise UpstreamError(
                Code.UPSTREAM_PROTOCOL_ERROR,
                f"the Teleport Proxy sent {error} before the client was logged in",
            ) from error
        if not self._over:
            return Say(to_client=translated)
        return Say(translated + self._upstream.take_rest(), self._client.take_rest())

    @property
    def over(self) -> bool:
        return self._over

    def refusal(self, error: DBProxyError) -> bytes:
        return refusal_packet(error, self._last_sequence + 1, greeted=True)
