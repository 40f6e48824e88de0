"""CockroachDB: PostgreSQL's wire protocol under another name."""

from collections.abc import Mapping

from dbproxy.protocols.client_command import ClientCommand
from dbproxy.protocols.connection_facts import ConnectionFacts
from dbproxy.protocols.libpq import libpq_uris, postgres_uri
from dbproxy.protocols.postgres import Postgres
from dbproxy.protocols.uris import URI

__all__ = ["CockroachDB"]


class CockroachDB(Postgres):
    """CockroachDB; psql and PostgreSQL's drivers connect to it as well."""

    name = "cockroachdb"
    readable_name = "CockroachDB"
    default_port = 26257

    def client(self, facts: ConnectionFacts) -> ClientCommand:
        if facts.socket is not None:
            return super().client(facts)
        return ClientCommand(("cockroach", "sql", "--url", postgres_uri(facts)))

    def uris(self, facts: ConnectionFacts) -> Mapping[str, URI]:
        return libpq_uris(facts, dialect="cockroachdb")
