"""How the clients of MySQL and MariaDB are told where to connect.

Their programs take `localhost` for a Unix socket, unless an option says otherwise; there is no
variable for that, and none for TLS. So variables alone are enough for the programs with `--tunnel`
only, where no name is checked and the address will do.
"""

from collections.abc import Mapping
from typing import Final

from dbproxy.protocols.client_command import ClientCommand
from dbproxy.protocols.connection_facts import ConnectionFacts, files_of, host_of
from dbproxy.protocols.uris import NO_SOCKETS, URI, Unavailable, database_uri, encoded

__all__ = ["mysql_client", "mysql_uris", "mysql_variables"]

_LOOPBACK: Final = "127.0.0.1"


def mysql_client(facts: ConnectionFacts) -> ClientCommand:
    """The program `mysql`, or MariaDB's."""
    words = ["mysql"]
    if facts.socket is not None:
        words.append(f"--socket={facts.socket}")
    else:
        words += [f"--host={host_of(facts)}", f"--port={facts.port}", "--protocol=tcp"]
    if facts.user is not None:
        words.append(f"--user={facts.user}")
    if facts.plain:
        words.append("--loose-skip-ssl")
    else:
        files = files_of(facts, ca="--ssl-ca", certificate="--ssl-cert", key="--ssl-key")
        words += [f"{option}={file}" for option, file in files]
        # MariaDB's client calls it one way, MySQL's the other.
        words += ["--loose-ssl-verify-server-cert", "--loose-ssl-mode=VERIFY_IDENTITY"]
    if facts.database is not None:
        words.append(f"--database={facts.database}")
    return ClientCommand(tuple(words), also_called=("mariadb",))


def mysql_variables(facts: ConnectionFacts) -> Mapping[str, str | None]:
    """What the programs read (MySQL reference manual, 6.9)."""
    if facts.socket is not None:
        return {"MYSQL_UNIX_PORT": str(facts.socket), "MYSQL_HOST": None, "MYSQL_TCP_PORT": None}
    host = host_of(facts)
    if facts.plain and host == "localhost":
        host = _LOOPBACK
    return {"MYSQL_HOST": host, "MYSQL_TCP_PORT": str(facts.port), "MYSQL_UNIX_PORT": None}


def mysql_uris(facts: ConnectionFacts) -> Mapping[str, URI]:
    """A URI for each driver; the first is MySQL's own form (MySQL Shell, 4.3.1)."""
    tls = {"ssl-mode": "DISABLED" if facts.plain else "VERIFY_IDENTITY"}
    tls |= files_of(facts, ca="ssl-ca", certificate="ssl-cert", key="ssl-key")
    place = encoded(str(facts.socket)) if facts.socket is not None else None
    return {
        "mysql": database_uri("mysql", facts, tls, place=place),
        "sqlalchemy": _for_sqlalchemy(facts),
        "jdbc": _for_jdbc(facts),
    }


def _for_sqlalchemy(facts: ConnectionFacts) -> URI:
    """With PyMySQL."""
    if facts.socket is not None:
        where = {"unix_socket": str(facts.socket)}
        return database_uri("mysql+pymysql", facts, where, place="localhost")
    if facts.ca_file is None and not facts.plain:
        return Unavailable("PyMySQL verifies a server only when it is given a file of authorities")
    tls = dict(files_of(facts, ca="ssl_ca", certificate="ssl_cert", key="ssl_key"))
    if tls:
        tls["ssl_check_hostname"] = "true"
    return database_uri("mysql+pymysql", facts, tls)


def _for_jdbc(facts: ConnectionFacts) -> URI:
    if not facts.plain:
        return Unavailable(
            "Connector/J takes certificate and key from a Java key store only: make one of the"
            " files, or use --tunnel"
        )
    if facts.socket is not None:
        return Unavailable(NO_SOCKETS)
    user = {} if facts.user is None else {"user": facts.user}
    return database_uri("jdbc:mysql", facts, user | {"sslMode": "DISABLED"}, user="")
