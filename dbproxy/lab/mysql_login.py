"""Logging in to a real MySQL or MariaDB, as Teleport's database service does for its clients.

Unlike an agent, the stand-in proves nothing: the database must have users without passwords.
"""

from __future__ import annotations

from typing import Final

import trio

from dbproxy.lab.errors import LabError
from dbproxy.lab.mysqlwire import ERR, OK, Login, Packet, PacketBuffer
from dbproxy.lab.streams import READ_SIZE

SWITCH: Final = 0xFE
LOGIN_TIMEOUT: Final = 30.0


class LoginFailed(LabError):
    """The database asks for more than the stand-in can give, or is no MySQL."""


async def log_in(server: trio.abc.Stream, login: Login) -> bytes:
    """Returns the database's last word on the login: the payload of an OK or of an ERR.

    Raises:
        LoginFailed: the database closes the connection, or wants a password.
        trio.TooSlowError: it takes too long.
    """
    buffer = PacketBuffer()
    with trio.fail_after(LOGIN_TIMEOUT):
        greeting = await _receive(server, buffer)
        if greeting.payload[0] == ERR:
            return greeting.payload
        await server.send_all(Packet(1, login.encode()).encode())
        while (answer := await _receive(server, buffer)).payload[0] not in (OK, ERR):
            if answer.payload[0] != SWITCH:
                raise LoginFailed("the database wants a proof, and the lab has none")
            await server.send_all(Packet(answer.number + 1, b"").encode())
    return answer.payload


async def _receive(server: trio.abc.Stream, buffer: PacketBuffer) -> Packet:
    while (packet := buffer.pop()) is None:
        data = await server.receive_some(READ_SIZE)
        if not data:
            raise LoginFailed("the database closed the connection during the login")
        buffer.feed(data)
    if not packet.payload:
        raise LoginFailed("the database sent an empty packet")
    return packet
