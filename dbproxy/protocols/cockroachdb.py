"""CockroachDB: PostgreSQL's wire protocol under another name."""

import shlex
from urllib.parse import quote, urlencode

from dbproxy.protocols.base import ConnectionFacts
from dbproxy.protocols.command_line import files_of, place_of
from dbproxy.protocols.postgres import Postgres
from dbproxy.settings import Mode

__all__ = ["CockroachDB"]


class CockroachDB(Postgres):
    """CockroachDB; psql and PostgreSQL's drivers connect to it as well."""

    name = "cockroachdb"
    readable_name = "CockroachDB"
    default_port = 26257

    def connect_command(self, facts: ConnectionFacts) -> str:
        if facts.socket is not None:
            return super().connect_command(facts)
        parameters = {"sslmode": "disable" if facts.mode is Mode.TUNNEL else "verify-full"}
        parameters |= files_of(facts, ca="sslrootcert", certificate="sslcert", key="sslkey")
        user = f"{quote(facts.user, safe='')}@" if facts.user else ""
        database = quote(facts.database or "", safe="")
        url = f"postgresql://{user}{place_of(facts)}/{database}?{urlencode(parameters)}"
        return shlex.join(["cockroach", "sql", "--url", url])
