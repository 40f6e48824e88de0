"""What is told once the listener is open: to the client's developer, and to the operator."""

from dataclasses import dataclass
from pathlib import Path

from dbproxy.downstream import ServerCertificate, client_endpoint, describe_address
from dbproxy.events import InsecureChoice, Listening, Subscriber
from dbproxy.identity import Identity
from dbproxy.protocols import ConnectionFacts, DatabaseProtocol
from dbproxy.settings import Mode, Settings

__all__ = ["Started", "announce", "connection_facts", "describe_start"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What a client needs to know about a proxy that is listening.

    Attributes:
        address: `127.0.0.1:12345`, `[::1]:12345` or `unix:///path`.
        mode: How clients are authenticated.
        service: The Teleport database service.
        protocol: The database protocol.
        database_user: The database user, if known.
        database_name: The database name, if known.
        ca_file: What the client must trust; None in tunnel mode, and where the client's own roots
            must do.
        certificate_file: The certificate that the client must show; None in tunnel mode.
        key_file: Its key; None in tunnel mode.
        connect_command: A command line to paste.
    """

    address: str
    mode: Mode
    service: str
    protocol: str
    database_user: str | None
    database_name: str | None
    ca_file: Path | None
    certificate_file: Path | None
    key_file: Path | None
    connect_command: str


def connection_facts(
    settings: Settings,
    name: object,
    identity: Identity,
    protocol: DatabaseProtocol,
    certificate: ServerCertificate | None,
) -> ConnectionFacts:
    """How to connect to a listener with the files of `identity`.

    Args:
        settings: The mode, and names that override the identity's.
        name: The listening socket's own, as `getsockname` returns it.
        identity: Says who its holder is, and where its files are.
        protocol: What is carried.
        certificate: What is shown to clients; None where it is not ours to show.
    """
    files = identity.files
    plain = settings.mode is Mode.TUNNEL
    ca_file = certificate.ca_file if certificate else files.host_ca
    shown_name = certificate.host if certificate else "localhost"
    endpoint = client_endpoint(name, protocol, shown_name)
    return ConnectionFacts(
        host=endpoint.host,
        hostaddr=endpoint.hostaddr,
        port=endpoint.port,
        socket=endpoint.socket,
        mode=settings.mode,
        user=settings.db_user or identity.route.username,
        database=settings.db_name or identity.route.database,
        ca_file=None if plain or ca_file is None else ca_file.absolute(),
        certificate_file=None if plain else files.certificate.absolute(),
        key_file=None if plain else files.key.absolute(),
    )


def describe_start(
    name: object, identity: Identity, protocol: DatabaseProtocol, facts: ConnectionFacts
) -> Started:
    """What is told about a listener of that name."""
    return Started(
        address=describe_address(name),
        mode=facts.mode,
        service=identity.route.service,
        protocol=protocol.name,
        database_user=facts.user,
        database_name=facts.database,
        ca_file=facts.ca_file,
        certificate_file=facts.certificate_file,
        key_file=facts.key_file,
        connect_command=protocol.connect_command(facts),
    )


def announce(settings: Settings, started: Started, publish: Subscriber) -> None:
    """Publish that the listener is open, and what lowers its safety."""
    if settings.unsafe_listen_anywhere:
        publish(
            InsecureChoice(
                option="--unsafe-listen-anywhere",
                consequence=f"other hosts can connect to {started.address}",
            )
        )
    if started.mode is Mode.TUNNEL and not started.address.startswith("unix:"):
        publish(
            InsecureChoice(
                option="--tunnel",
                consequence=f"every user of this host can use {started.address} as the"
                " certificate's user; a Unix socket's permissions could decide",
            )
        )
    publish(
        Listening(
            address=started.address,
            mode=started.mode,
            service=started.service,
            protocol=started.protocol,
        )
    )
