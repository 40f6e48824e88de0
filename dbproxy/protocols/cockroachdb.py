"""CockroachDB: PostgreSQL's wire protocol under another name."""

import shlex
from urllib.parse import quote, urlencode

from dbproxy.protocols.base import ConnectionFacts
from dbproxy.protocols.client_first import files_of, host_of
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
        host = host_of(facts)
        user = f"{quote(facts.user, safe='')}@" if facts.user else ""
        place = f"{f'[{host}]' if ':' in host else host}:{facts.port}"
        database = quote(facts.database or "", safe="")
        url = f"postgresql://{user}{place}/{database}?{urlencode(parameters)}"
        return shlex.join(["cockroach", "sql", "--url", url])
