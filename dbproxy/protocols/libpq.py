"""How the clients of PostgreSQL are told where to connect: libpq's parameters, and its relatives.

libpq takes the same parameters by keyword, from the environment and from a URI (PostgreSQL
documentation, 32.1.1, 32.1.2 and 32.15). Drivers that are not made of libpq read the same URI, but
know no `hostaddr`, and no word for the system's roots.
"""

from collections.abc import Mapping
from typing import Final

from dbproxy.protocols.connection_facts import ConnectionFacts
from dbproxy.protocols.uris import NO_SOCKETS, URI, Unavailable, database_uri

__all__ = ["libpq_conninfo", "libpq_uris", "libpq_variables", "postgres_uri"]

_VARIABLES: Final = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
}
_LEAD_ELSEWHERE: Final = (
    "PGHOSTADDR",
    "PGSERVICE",
    "PGREQUIRESSL",
    "PGSSLNEGOTIATION",
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
)
"""What would be left of another connection's settings. A service beats all other variables."""


def libpq_conninfo(facts: ConnectionFacts) -> str:
    """The parameters as keywords with values."""
    return " ".join(f"{key}={_quoted(value)}" for key, value in _parameters(facts).items())


def libpq_variables(facts: ConnectionFacts) -> Mapping[str, str | None]:
    """The parameters as environment variables."""
    known = {_VARIABLES[key]: value for key, value in _parameters(facts).items()}
    return dict.fromkeys(_LEAD_ELSEWHERE) | known


def libpq_uris(facts: ConnectionFacts, *, dialect: str) -> Mapping[str, URI]:
    """A URI for each driver.

    Args:
        facts: Where to connect.
        dialect: What SQLAlchemy calls the database.
    """
    libpq = _tls(facts, roots="system")
    if facts.hostaddr is not None:
        libpq = {"hostaddr": facts.hostaddr} | libpq
    return {
        "psycopg": _uri("postgresql", facts, libpq, named=True),
        "sqlalchemy": _uri(f"{dialect}+psycopg", facts, libpq, named=True),
        "pgx": postgres_uri(facts, "postgres"),
        "asyncpg": _for_asyncpg(facts),
        "jdbc": _for_jdbc(facts),
    }


def postgres_uri(facts: ConnectionFacts, scheme: str = "postgresql") -> str:
    """A URI for those that are not made of libpq."""
    return _uri(scheme, facts, _tls(facts))


def _parameters(facts: ConnectionFacts) -> dict[str, str]:
    known = {
        "host": facts.host,
        "hostaddr": facts.hostaddr,
        "port": str(facts.port),
        "user": facts.user,
        "dbname": facts.database,
    }
    return {key: value for key, value in known.items() if value is not None} | _tls(
        facts, roots="system"
    )


def _tls(facts: ConnectionFacts, *, roots: str | None = None) -> dict[str, str]:
    """What concerns TLS.

    Args:
        facts: Where to connect.
        roots: The word for the system's roots (libpq: since PostgreSQL 16), if there is one.
    """
    if facts.plain:
        return {"sslmode": "disable"}
    files = {
        "sslrootcert": facts.ca_file or roots,
        "sslcert": facts.certificate_file,
        "sslkey": facts.key_file,
    }
    named = {key: str(value) for key, value in files.items() if value is not None}
    return {"sslmode": "verify-full"} | named


def _uri(
    scheme: str, facts: ConnectionFacts, parameters: Mapping[str, str], *, named: bool = False
) -> str:
    """`named`: by its name, because there is a parameter for the address."""
    if facts.socket is not None:
        where = {"host": facts.host, "port": str(facts.port)}
        return database_uri(scheme, facts, where | dict(parameters), place="")
    place = f"{facts.host}:{facts.port}" if named and facts.hostaddr is not None else None
    return database_uri(scheme, facts, parameters, place=place)


def _for_asyncpg(facts: ConnectionFacts) -> URI:
    if facts.ca_file is None and not facts.plain:
        return Unavailable("asyncpg's URIs have no word for the system's authorities")
    return postgres_uri(facts)


def _for_jdbc(facts: ConnectionFacts) -> URI:
    if facts.socket is not None:
        return Unavailable(NO_SOCKETS)
    user = {} if facts.user is None else {"user": facts.user}
    return database_uri("jdbc:postgresql", facts, user | _tls(facts), user="")


def _quoted(value: str) -> str:
    """Quoted as libpq's connection strings want it (PostgreSQL documentation, 32.1.1.1)."""
    if value and not any(c.isspace() or c in "'\\" for c in value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
