"""All about one connection that fits into variables: for a protocol's own clients and others.

Some names are the same whatever the database is, so that a program can be told where to connect
without knowing more: `DATABASE_URL`, as many frameworks want it, and its parts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dbproxy.protocols.base import DatabaseProtocol
from dbproxy.protocols.connection_facts import ConnectionFacts, host_of
from dbproxy.protocols.uris import Unavailable

__all__ = ["ClientEnvironment", "client_environment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientEnvironment:
    """How clients are told where to connect.

    Attributes:
        variables: Environment variables.
        unset: Those that must not be set, because they would lead elsewhere.
        uris: By driver; the most usual one first.
        unavailable: Why a driver has no URI, and what to do instead.
    """

    variables: Mapping[str, str]
    unset: tuple[str, ...]
    uris: Mapping[str, str]
    unavailable: Mapping[str, str]

    def added_to(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment of a process, with these variables, and without what must not be set."""
        kept = {name: value for name, value in environment.items() if name not in self.unset}
        return kept | dict(self.variables)


def client_environment(protocol: DatabaseProtocol, facts: ConnectionFacts) -> ClientEnvironment:
    """The variables and URIs for the clients of a listener."""
    offered = protocol.uris(facts)
    general = _general(facts, next(iter(offered.values()), None))
    named = general | dict(protocol.variables(facts))
    return ClientEnvironment(
        variables={name: value for name, value in named.items() if value is not None},
        unset=tuple(name for name, value in named.items() if value is None),
        uris={name: uri for name, uri in offered.items() if isinstance(uri, str)},
        unavailable={
            name: uri.reason for name, uri in offered.items() if isinstance(uri, Unavailable)
        },
    )


def _general(facts: ConnectionFacts, uri: object) -> dict[str, str | None]:
    tcp = facts.socket is None
    files = {"CA": facts.ca_file, "CERT": facts.certificate_file, "KEY": facts.key_file}
    return {
        "DATABASE_URL": uri if isinstance(uri, str) else None,
        "DATABASE_HOST": host_of(facts) if tcp else None,
        "DATABASE_PORT": str(facts.port) if tcp else None,
        "DATABASE_SOCKET": None if tcp else str(facts.socket),
        "DATABASE_USER": facts.user,
        "DATABASE_NAME": facts.database,
        **{f"DATABASE_{kind}_FILE": str(file) if file else None for kind, file in files.items()},
    }
