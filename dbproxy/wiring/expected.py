"""What a proxy would tell its clients, without one."""

import socket
from dataclasses import dataclass

import trio

from dbproxy.downstream import ListenAddress, TCPAddress, listen_address
from dbproxy.errors import Code, ListenError, UsageError
from dbproxy.events import Subscriber
from dbproxy.identity import load_tbot_config
from dbproxy.identity.waiting import load_within
from dbproxy.protocols import ConnectionFacts, DatabaseProtocol
from dbproxy.settings import Settings
from dbproxy.wiring.admission import server_certificate
from dbproxy.wiring.identity import find_identity
from dbproxy.wiring.listener import check_listen_address
from dbproxy.wiring.protocol import configured_protocol
from dbproxy.wiring.started import connection_facts

__all__ = ["ExpectedConnection", "expect_connection"]


@dataclass(frozen=True, slots=True)
class ExpectedConnection:
    """How clients will connect.

    Attributes:
        service: The Teleport database service.
        protocol: The database protocol.
        facts: What clients need to know.
    """

    service: str
    protocol: DatabaseProtocol
    facts: ConnectionFacts


async def expect_connection(settings: Settings, publish: Subscriber) -> ExpectedConnection:
    """Read the identity, open nothing, and say how clients connect to a proxy with these settings.

    With `--terminate` the local authority is made, if there is none yet, because clients need its
    file. Cancelled, nothing has happened otherwise.

    Raises:
        UsageError: The port is not known, or the settings are incomplete.
        ConfigError: The tbot configuration, or a file that was named, cannot be used.
        IdentityError: The identity cannot be used.
        ListenError: The local authority has no place, or the host to listen on is not known.
    """
    address = listen_address(
        settings.listen, settings.port, anywhere=settings.unsafe_listen_anywhere
    )
    if isinstance(address, TCPAddress) and not address.port:
        raise UsageError(
            "the port is not known: nothing says where dbproxy will listen",
            next_step="Give the --port or the --listen that `dbproxy db` gets; or name a service"
            " that has a `database-tunnel` in tbot.yaml.",
        )
    config = load_tbot_config(settings.config) if settings.config is not None else None
    store, _renewal_interval = find_identity(settings, config, publish)
    identity = await load_within(store, settings.wait_for_identity, publish=publish)
    protocol = configured_protocol(settings, identity.route.protocol)
    check_listen_address(address, protocol, settings.mode)
    certificate = server_certificate(settings)
    name = await _socket_name(address)
    facts = connection_facts(settings, name, identity, protocol, certificate)
    return ExpectedConnection(identity.route.service, protocol, facts)


async def _socket_name(address: ListenAddress) -> object:
    """What `getsockname` will return."""
    if not isinstance(address, TCPAddress):
        return str(address.path)
    try:
        found = await trio.socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise ListenError(Code.LISTEN_FAILED, f"cannot listen on {address}: {error}") from error
    return found[0][4]
