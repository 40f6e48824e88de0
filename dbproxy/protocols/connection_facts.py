"""What a client needs to know to connect to our listener."""

from dataclasses import dataclass
from pathlib import Path

from dbproxy.settings import Mode

__all__ = ["ConnectionFacts", "files_of", "host_of", "place_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFacts:
    """What a client needs to know to connect to our listener.

    Attributes:
        host: A name that the certificates cover, or the directory of a Unix socket.
        hostaddr: The IP address to connect to, where the name would not lead there; or None.
        port: The TCP port, or the number in the Unix socket's name.
        socket: The Unix socket, where that is what we listen on; or None.
        mode: Decides whether TLS is on.
        user: The database user, if known.
        database: The database name, if known.
        ca_file: What the client trusts; None in tunnel mode, and where its own roots must do.
        certificate_file: The client's certificate; None in tunnel mode.
        key_file: The client's key; None in tunnel mode.
    """

    host: str
    hostaddr: str | None = None
    port: int
    socket: Path | None = None
    mode: Mode
    user: str | None
    database: str | None
    ca_file: Path | None
    certificate_file: Path | None
    key_file: Path | None

    @property
    def plain(self) -> bool:
        """Whether the client speaks without TLS."""
        return self.mode is Mode.TUNNEL


def host_of(facts: ConnectionFacts) -> str:
    """The host to give a client that takes no name and address apart.

    The certificates are for the loopback addresses too, so the address will do where the name is
    just `localhost`.
    """
    if facts.hostaddr is None:
        return facts.host
    by_address = facts.plain or facts.host == "localhost"
    return facts.hostaddr if by_address else facts.host


def place_of(facts: ConnectionFacts) -> str:
    """Host and port as URLs have them: an IPv6 address is in brackets (RFC 3986 §3.2.2)."""
    host = host_of(facts)
    return f"[{host}]:{facts.port}" if ":" in host else f"{host}:{facts.port}"


def files_of(
    facts: ConnectionFacts, *, ca: str, certificate: str, key: str
) -> list[tuple[str, str]]:
    """The options that name the files, with their values; none in tunnel mode."""
    named = {ca: facts.ca_file, certificate: facts.certificate_file, key: facts.key_file}
    return [(option, str(file)) for option, file in named.items() if file is not None]
