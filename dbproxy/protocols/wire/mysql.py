"""MySQL: how problems are told, in an ERR packet with number, SQLSTATE and text.

Numbers from 2000 to 2999 are what client libraries say themselves, such as 2003 for a server that
cannot be reached (MySQL documentation, "Client Error Message Reference"). A server must not say
them: MariaDB's library then reports nothing but a malformed packet. So what has happened behind us
is told as a server tells it that needs another one.

A MySQL client says nothing until it has been greeted, so on a port whose clients speak first it
cannot be recognised by what it sends. It is by its silence.
"""

from typing import Final

from dbproxy.errors import ClientError, Code, DBProxyError
from dbproxy.protocols.wire.base import one_line
from dbproxy.protocols.wire.mysql_packets import LONGEST_ERROR_TEXT, error_packet
from dbproxy.protocols.wire.postgres import sqlstate_of

__all__ = ["number_and_sqlstate", "refusal_packet", "told_to_the_silent"]

_CON_COUNT_ERROR: Final = (1040, "08004")  # ER_CON_COUNT_ERROR
_HANDSHAKE_ERROR: Final = (1043, "08S01")  # ER_HANDSHAKE_ERROR
_ACCESS_DENIED: Final = (1045, "28000")  # ER_ACCESS_DENIED_ERROR
_NO_SUCH_DATABASE: Final = (1049, "42000")  # ER_BAD_DB_ERROR
_UNKNOWN_ERROR: Final = (1105, "HY000")  # ER_UNKNOWN_ERROR
_NO_CONNECTION_BEHIND: Final = (1429, "HY000")  # ER_CONNECT_TO_FOREIGN_DATA_SOURCE
_LOST_BEHIND: Final = (1158, "08S01")  # ER_NET_READ_ERROR
_TLS_REQUIRED: Final = (3159, "HY000")  # ER_SECURE_TRANSPORT_REQUIRED

_BY_CODE: Final = {Code.CLIENT_NOT_TLS: _TLS_REQUIRED}
_BY_SQLSTATE: Final = {
    "08001": _NO_CONNECTION_BEHIND,
    "08006": _LOST_BEHIND,
    "08P01": _HANDSHAKE_ERROR,
    "28000": _ACCESS_DENIED,
    "3D000": _NO_SUCH_DATABASE,
    "53000": _CON_COUNT_ERROR,
    "53300": _CON_COUNT_ERROR,
    "57P03": _NO_CONNECTION_BEHIND,
    "XX000": _UNKNOWN_ERROR,
}
"""By the SQLSTATE that PostgreSQL's clients are told, which sorts the problems."""


def number_and_sqlstate(code: Code) -> tuple[int, str]:
    """What MySQL's clients tell a problem by."""
    return _BY_CODE.get(code) or _BY_SQLSTATE[sqlstate_of(code)]


def refusal_packet(error: DBProxyError, sequence: int, *, greeted: bool) -> bytes:
    """The ERR packet for a problem.

    Args:
        error: The problem.
        sequence: The packet's number.
        greeted: Whether the client has had a greeting. In place of that, an ERR packet has no
            SQLSTATE, because the client has not said yet that it knows such (MySQL documentation,
            "ERR_Packet").
    """
    number, sqlstate = number_and_sqlstate(error.code)
    text = one_line(error, LONGEST_ERROR_TEXT)
    return error_packet(sequence, number, sqlstate if greeted else None, text)


def told_to_the_silent(error: DBProxyError, readable_name: str) -> bytes:
    """What a client is told that said nothing on a port whose clients speak first.

    Nothing, unless its time is over: only a MySQL client says nothing for so long, and nobody else
    has asked for anything that this could be taken for the answer to.
    """
    if error.code is not Code.CLIENT_STALLED:
        return b""
    carried = f"this port carries {readable_name}, and the client said nothing"
    return refusal_packet(ClientError(error.code, carried), 0, greeted=False)
