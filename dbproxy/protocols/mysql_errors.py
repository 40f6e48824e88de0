"""How problems are told to MySQL clients: the number and the SQLSTATE of the ERR packet.

Numbers below 2000 and from 3000 on are the server's, those between are what client libraries say
themselves when they cannot reach a server (MySQL documentation, "Error Messages and Common
Problems"). Programs and connection pools know both, so what has happened behind us is told as a
client library would tell it.
"""

from typing import Final

from dbproxy.errors import Code, DBProxyError
from dbproxy.protocols.mysql_packets import error_packet
from dbproxy.protocols.postgres import sqlstate_of

__all__ = ["refusal_packet"]

_CON_COUNT_ERROR: Final = (1040, "08004")
_HANDSHAKE_ERROR: Final = (1043, "08S01")
_ACCESS_DENIED: Final = (1045, "28000")
_UNKNOWN_ERROR: Final = (1105, "HY000")
_CONNECTION_HOST_ERROR: Final = (2003, "HY000")
_SERVER_LOST: Final = (2013, "HY000")
_SECURE_TRANSPORT_REQUIRED: Final = (3159, "HY000")

_BY_CODE: Final = {Code.CLIENT_NOT_TLS: _SECURE_TRANSPORT_REQUIRED}
_BY_SQLSTATE: Final = {
    "08001": _CONNECTION_HOST_ERROR,
    "08006": _SERVER_LOST,
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
