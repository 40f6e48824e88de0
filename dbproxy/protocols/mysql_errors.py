"""How problems are told to MySQL clients: the number and the SQLSTATE of the ERR packet.

Numbers from 2000 to 2999 are what client libraries say themselves, such as 2003 for a server that
cannot be reached (MySQL documentation, "Client Error Message Reference"). A server must not say
them: MariaDB's library then reports nothing but a malformed packet. So what has happened behind us
is told as a server tells it that needs another one.
"""

from typing import Final

from dbproxy.errors import Code, DBProxyError
from dbproxy.protocols.mysql_packets import error_packet
from dbproxy.protocols.postgres import sqlstate_of

__all__ = ["refusal_packet"]

_CON_COUNT_ERROR: Final = (1040, "08004")  # ER_CON_COUNT_ERROR
_HANDSHAKE_ERROR: Final = (1043, "08S01")  # ER_HANDSHAKE_ERROR
_ACCESS_DENIED: Final = (1045, "28000")  # ER_ACCESS_DENIED_ERROR
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
    "53000": _CON_COUNT_ERROR,
    "XX000": _UNKNOWN_ERROR,
}
"""By the SQLSTATE that PostgreSQL's clients are told, which sorts the problems."""


def refusal_packet(error: DBProxyError, sequence: int, *, greeted: bool) -> bytes:
    """The ERR packet for a problem.

    Args:
        error: The problem.
        sequence: The packet's number.
        greeted: Whether the client has had a greeting. In place of that, an ERR packet has no
            SQLSTATE, because the client has not said yet that it knows such (MySQL documentation,
            "ERR_Packet").
    """
    number, sqlstate = _BY_CODE.get(error.code) or _BY_SQLSTATE[sqlstate_of(error.code)]
    return error_packet(
        sequence,
        number,
        sqlstate if greeted else None,
        f"dbproxy: {error.message}",
        f" [{error.code}] {error.problem.client_hint}",
    )
