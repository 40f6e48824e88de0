"""How the clients of SQL Server are told where to connect.

Almost none of them can show a client certificate, which `--terminate` wants; so the lines and URIs
are for `--tunnel`.
"""

from collections.abc import Mapping
from typing import Final

from dbproxy.protocols.client_command import ClientCommand
from dbproxy.protocols.connection_facts import ConnectionFacts, host_of
from dbproxy.protocols.uris import URI, Unavailable, database_uri

__all__ = ["sqlserver_client", "sqlserver_uris", "sqlserver_variables"]

_NO_CERTIFICATE: Final = (
    "clients of SQL Server show no client certificate, which --terminate wants: use --tunnel"
)


def sqlserver_client(facts: ConnectionFacts) -> ClientCommand:
    """The program `sqlcmd`."""
    words = ["sqlcmd", "-S", f"{host_of(facts)},{facts.port}", "-No" if facts.plain else "-Nm"]
    if facts.user is not None:
        words += ["-U", facts.user, "-P", ""]
    if facts.database is not None:
        words += ["-d", facts.database]
    return ClientCommand(tuple(words), instead=None if facts.plain else _NO_CERTIFICATE)


def sqlserver_variables(facts: ConnectionFacts) -> Mapping[str, str | None]:
    """What `sqlcmd` reads (its reference, "sqlcmd variables")."""
    known = {
        "SQLCMDSERVER": f"{host_of(facts)},{facts.port}",
        "SQLCMDUSER": facts.user,
        "SQLCMDDBNAME": facts.database,
    }
    return {name: value for name, value in known.items() if value is not None}


def sqlserver_uris(facts: ConnectionFacts) -> Mapping[str, URI]:
    """A URI for each driver; the first is that of Go's, which `sqlcmd` is made with."""
    if not facts.plain:
        return dict.fromkeys(("sqlserver", "odbc", "jdbc"), Unavailable(_NO_CERTIFICATE))
    database = {} if facts.database is None else {"database": facts.database}
    return {
        "sqlserver": database_uri("sqlserver", facts, database | {"encrypt": "disable"}, path=""),
        "odbc": _for_odbc(facts),
        "jdbc": _for_jdbc(facts),
    }


def _for_odbc(facts: ConnectionFacts) -> str:
    parts = {"Driver": "ODBC Driver 18 for SQL Server"}
    parts["Server"] = f"tcp:{host_of(facts)},{facts.port}"
    if facts.database is not None:
        parts["Database"] = facts.database
    if facts.user is not None:
        parts |= {"UID": facts.user, "PWD": ""}
    braced = {"Driver", "Database", "UID"}
    words = [f"{key}={_braced(value) if key in braced else value}" for key, value in parts.items()]
    return ";".join([*words, "Encrypt=no"])


def _for_jdbc(facts: ConnectionFacts) -> str:
    host = host_of(facts)
    place = f"{{{host}}}:{facts.port}" if ":" in host else f"{host}:{facts.port}"
    names = {"databaseName": facts.database, "user": facts.user}
    words = [f"{name}={_braced(value)}" for name, value in names.items() if value is not None]
    return ";".join([f"jdbc:sqlserver://{place}", *words, "encrypt=false"])


def _braced(value: str) -> str:
    """Taken as it stands, by ODBC and by JDBC: in braces, with the closing one doubled."""
    doubled = value.replace("}", "}}")
    return f"{{{doubled}}}"
