"""MySQL: the upstream's answer to a login, and Teleport's ERR packet told apart.

| payload begins with | packet                        | here                                       |
|---------------------|-------------------------------|--------------------------------------------|
| `0x01`, `0xfe`      | AuthMoreData, AuthSwitch…     | passes; the next one is looked at          |
| `0xff`              | ERR                           | told apart if it is Teleport's; then over  |
| else                | `0x00`, OK                    | the client is let in: over                 |

Teleport's MySQL handler waits for the database agent's verdict and gives every refusal the number
1105 and the SQLSTATE `HY000`, which say nothing (`waitForOK` in `lib/srv/db/mysql/proxy.go`). Where
the words of the message are Teleport's, it gets the number and the SQLSTATE that MySQL has for such
a case. MySQL has no field for a hint, so that follows the message, as far as clients keep it.

An ERR with another number is the database's own, and one whose words are not known may be, too:
both pass as they are.

Tested in `tests/unit/protocols/test_mysql_verdict.py`, split at every byte.
"""

from typing import Final

from dbproxy.errors import Code
from dbproxy.protocols.teleport_words import hint_for, known_code_of
from dbproxy.protocols.verdict import VerdictReader
from dbproxy.protocols.wire.mysql import number_and_sqlstate
from dbproxy.protocols.wire.mysql_packets import (
    ERR,
    HEADER_SIZE,
    encode_packet,
    relabelled_error,
)

__all__ = ["MySQLVerdictReader"]

_PASSED_OVER: Final = (0x01, 0xFE)
_LARGEST: Final = 16 * 1024
"""Bytes of a payload. What is larger is none of these packets."""
_SAYS_NOTHING: Final = (1105).to_bytes(2, "little")  # ER_UNKNOWN_ERROR


class MySQLVerdictReader(VerdictReader):
    """Reads until OK or ERR."""

    __slots__ = ()

    def _next_message(self) -> bytes | None:
        if len(self._buffer) < HEADER_SIZE:
            return None
        size = int.from_bytes(self._buffer[:3], "little")
        if not 0 < size <= _LARGEST:
            return self._let_pass()
        if len(self._buffer) == HEADER_SIZE:
            return None
        kind = self._buffer[HEADER_SIZE]
        if kind != ERR and kind not in _PASSED_OVER:
            return self._let_pass()
        if len(self._buffer) < HEADER_SIZE + size:
            return None
        packet = self._take(HEADER_SIZE + size)
        return self._on_error(packet) if kind == ERR else packet

    def _on_error(self, packet: bytes) -> bytes:
        self.over = True
        sequence, payload = packet[3], packet[HEADER_SIZE:]
        if payload[1:3] != _SAYS_NOTHING:
            return packet
        known = known_code_of(payload)
        self.code = known or Code.REFUSED_BY_TELEPORT
        if known is None:
            return packet
        number, sqlstate = number_and_sqlstate(known)
        endings = (hint_for(known), f"[{known}]")
        return encode_packet(sequence, relabelled_error(payload, number, sqlstate, endings))
