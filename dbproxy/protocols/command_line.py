"""What the command lines of clients are made of."""

from dbproxy.protocols.base import ConnectionFacts
from dbproxy.settings import Mode

__all__ = ["files_of", "host_of", "place_of"]


def host_of(facts: ConnectionFacts) -> str:
    """The host to give a client that takes no name and address apart.

    The certificates are for the loopback addresses too, so the address will do where the name is
    just `localhost`.
    """
    if facts.hostaddr is None:
        return facts.host
    by_address = facts.mode is Mode.TUNNEL or facts.host == "localhost"
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
