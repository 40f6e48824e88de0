"""Pages about what Teleport says to a client that has reached it."""

from typing import Final

from dbproxy.errors import Code
from dbproxy.explain.page import Look, Page, Sees

__all__ = ["TELEPORT_PAGES"]

_AUDIT: Final = Look(
    "journalctl -u teleport | grep TDB00W",
    "the refusals with their reasons, on the agent's host; Teleport's audit log has them, too",
)
_IDENTITY: Final = Look(
    "dbproxy -c /etc/tbot.yaml identity", "service, database user and name, and the bot's roles"
)
_DATABASES: Final = Look("tctl db ls", "the databases that have an agent now, with their labels")

TELEPORT_PAGES: Final = {
    Code.ACCESS_DENIED: Page(
        story="""\
`access to db denied. User does not have permissions. Confirm database user and name.` Teleport
compares the user and the database that the client asks for with the roles in the certificate:
`db_users` and `db_names` must have both, and `db_labels` must fit the database; one `deny` is
enough. A client that names no database asks for one with the name of the user, in PostgreSQL.

Changed roles count for certificates that tbot writes afterwards; `systemctl restart tbot` makes it
write new ones.""",
        sees=Sees.TELEPORTS_MESSAGE,
        looks=(
            _IDENTITY,
            Look("tctl get role/ROLE", "`db_users`, `db_names` and `db_labels`"),
            _AUDIT,
        ),
        related=(Code.SERVICE_NOT_FOUND, Code.CLIENT_CERTIFICATE_WRONG_SERVICE),
    ),
    Code.SERVICE_NOT_FOUND: Page(
        story="""\
`database "example-server" not found among registered databases in cluster …`. The name comes from
the certificate, that is from the `database` section of the output in tbot.yaml: it may be misspelt,
the database may have been removed, or no agent that serves it is connected to the cluster. With an
empty name (`database ""`) the output has no `database` section at all.

Where dbproxy authenticates itself (`--terminate`, `--tunnel`), Teleport often closes the connection
without this message; that is `upstream-closed-early`.""",
        sees=Sees.TELEPORTS_MESSAGE,
        looks=(_DATABASES, _IDENTITY),
        related=(Code.UPSTREAM_CLOSED_EARLY, Code.CERTIFICATE_WITHOUT_ROUTE),
    ),
    Code.CONNECTION_LIMIT: Page(
        story="""\
`too many connections from …`. Teleport counts connections for each address, and all clients of this
dbproxy have the same one; behind a load balancer that hides addresses, so has everybody else. The
usual limit is 15,000. A pool that never gives a connection back, or a job that opens one for each
query, gets there.""",
        sees=Sees.TELEPORTS_MESSAGE,
        looks=(
            Look("ss -tn state established 'dport = :443' | wc -l", "connections from this host"),
            _AUDIT,
        ),
        related=(Code.UPSTREAM_CLOSED_EARLY, Code.TOO_MANY_FILES),
    ),
    Code.DATABASE_UNTRUSTED: Page(
        story="""\
`Database service cannot validate database's certificate`, `certificate has expired or is not yet
valid` and the like. Behind Teleport its database agent connects to the database with TLS of its
own, and that failed. It is often mistaken for an expired certificate of the client's: yours was
accepted, or you would not see this message.""",
        sees=Sees.TELEPORTS_MESSAGE,
        looks=(
            Look(
                "openssl s_client -starttls postgres -connect DATABASE:5432 </dev/null"
                " | openssl x509 -noout -dates -issuer",
                "the database's certificate, as the agent's host sees it",
            ),
            Look("tctl get db/SERVICE", "`ca_cert` and `tls` of the database"),
        ),
        related=(Code.CERTIFICATE_EXPIRED, Code.CERTIFICATE_REJECTED),
    ),
    Code.REFUSED_BY_TELEPORT: Page(
        story="""\
The session ended with an error of Teleport's before it began, in words that dbproxy does not know.
The client has them; the record has not, because they may hold what the client has sent. Usual
causes: the database agent cannot reach the database, or the database has refused the user that the
agent logs in as.""",
        sees=Sees.TELEPORTS_MESSAGE,
        looks=(_AUDIT, _DATABASES),
        related=(Code.ACCESS_DENIED, Code.DATABASE_UNTRUSTED),
    ),
}
