"""The protocols on top of HTTP, as Teleport carries them.

They differ in how a client is told: each has its own form of an error in a response's body, from
which its clients take the text that they print.
"""

from collections.abc import Mapping
from typing import Final

from dbproxy.errors import DBProxyError
from dbproxy.protocols.client_command import ClientCommand
from dbproxy.protocols.client_first import ClientFirst
from dbproxy.protocols.connection_facts import ConnectionFacts, files_of, host_of, place_of
from dbproxy.protocols.uris import (
    NO_SOCKETS,
    URI,
    Unavailable,
    database_uri,
    with_query,
)
from dbproxy.protocols.wire import one_line
from dbproxy.protocols.wire.clickhouse import exception_code
from dbproxy.protocols.wire.http import HTTPWire, as_json

__all__ = ["ClickHouseHTTP", "DynamoDB", "Elasticsearch", "OpenSearch", "Snowflake"]

_JSON: Final = "application/json"
_ACCOUNT: Final = "teleport"
"""Snowflake's clients insist on an account; Teleport does not look at it."""
_NO_CERTIFICATE: Final = "Snowflake's drivers show no client certificate: use --tunnel"
_ANSWER = tuple[str, str, Mapping[str, str]]


def _search_error(error: DBProxyError, status: int) -> _ANSWER:
    cause = {"type": str(error.code), "reason": one_line(error)}
    return _JSON, as_json({"error": {**cause, "root_cause": [cause]}, "status": status}), {}


def _aws_error(error: DBProxyError, status: int) -> _ANSWER:
    del status
    document = {"__type": f"dbproxy#{error.code}", "message": one_line(error)}
    return "application/x-amz-json-1.0", as_json(document), {}


def _snowflake_error(error: DBProxyError, status: int) -> _ANSWER:
    document = {
        "success": False,
        "code": str(status),
        "message": one_line(error),
        "data": {"errorCode": str(error.code)},
    }
    return _JSON, as_json(document), {}


def _clickhouse_error(error: DBProxyError, status: int) -> _ANSWER:
    del status
    number = exception_code(error)
    text = f"Code: {number}. DB::Exception: {one_line(error)}\n"
    return "text/plain; charset=utf-8", text, {"X-ClickHouse-Exception-Code": str(number)}


class _OverHTTP(ClientFirst):
    """A protocol on top of HTTP/1.1; curl is the tool that everybody has."""

    tls_protocol = b"http/1.1"
    path = "/"
    """Where curl gets an answer from."""

    url_variable: str | None = None
    """The variable that some of its clients take the URL from."""

    def client(self, facts: ConnectionFacts) -> ClientCommand:
        return ClientCommand(tuple(_curl(facts, self.path)), instead=self._instead())

    def variables(self, facts: ConnectionFacts) -> Mapping[str, str | None]:
        if self.url_variable is None or facts.socket is not None:
            return {}
        return {self.url_variable: _url(facts, "")}

    def uris(self, facts: ConnectionFacts) -> Mapping[str, URI]:
        if facts.socket is not None:
            return {"http": Unavailable(NO_SOCKETS)}
        return {"http": _url(facts, self._path_of(facts))}

    def _path_of(self, facts: ConnectionFacts) -> str:
        """What follows host and port in the URL that clients are given."""
        del facts
        return ""

    def _instead(self, example: str = "curl …") -> str:
        return (
            f"{self.readable_name} has no client to talk with; run one that asks, as in"
            f" `dbproxy run SERVICE -- {example}`"
        )


class Elasticsearch(_OverHTTP):
    """Elasticsearch."""

    name = "elasticsearch"
    readable_name = "Elasticsearch"
    alpn = ("teleport-elasticsearch-ping", "teleport-elasticsearch")
    default_port = 9200
    wire = HTTPWire(_search_error)
    url_variable = "ELASTICSEARCH_URL"


class OpenSearch(_OverHTTP):
    """OpenSearch."""

    name = "opensearch"
    readable_name = "OpenSearch"
    alpn = ("teleport-opensearch-ping", "teleport-opensearch")
    default_port = 9200
    wire = HTTPWire(_search_error)
    url_variable = "OPENSEARCH_URL"


class DynamoDB(_OverHTTP):
    """Amazon DynamoDB."""

    name = "dynamodb"
    readable_name = "DynamoDB"
    alpn = ("teleport-dynamodb-ping", "teleport-dynamodb")
    default_port = 8000
    wire = HTTPWire(_aws_error)
    passthrough = False
    url_variable = "AWS_ENDPOINT_URL_DYNAMODB"

    def client(self, facts: ConnectionFacts) -> ClientCommand:
        if not facts.plain or facts.socket is not None:
            return super().client(facts)  # AWS's own tools show no certificate
        words = ("aws", "dynamodb", "list-tables", "--endpoint-url", _url(facts, ""))
        return ClientCommand(words, instead=self._instead("aws dynamodb list-tables"))


class Snowflake(_OverHTTP):
    """Snowflake."""

    name = "snowflake"
    readable_name = "Snowflake"
    alpn = ("teleport-snowflake-ping", "teleport-snowflake")
    default_port = 443
    wire = HTTPWire(_snowflake_error)
    passthrough = False

    def client(self, facts: ConnectionFacts) -> ClientCommand:
        if not facts.plain:
            return super().client(facts)
        words = ["snowsql", "-a", _ACCOUNT, "-h", host_of(facts), "-p", str(facts.port)]
        words += ["--protocol", "http"]
        if facts.user is not None:
            words += ["-u", facts.user]
        return ClientCommand(tuple(words))

    def variables(self, facts: ConnectionFacts) -> Mapping[str, str | None]:
        if not facts.plain:
            return {}
        where = {"HOST": host_of(facts), "PORT": str(facts.port), "PROTOCOL": "http"}
        known = {"ACCOUNT": _ACCOUNT, **where, "USER": facts.user}
        return {f"SNOWFLAKE_{name}": value for name, value in known.items() if value is not None}

    def uris(self, facts: ConnectionFacts) -> Mapping[str, URI]:
        if facts.socket is not None or not facts.plain:
            reason = NO_SOCKETS if facts.plain else _NO_CERTIFICATE
            return {"sqlalchemy": Unavailable(reason)}
        where = {"host": host_of(facts), "port": str(facts.port), "protocol": "http"}
        return {"sqlalchemy": database_uri("snowflake", facts, where, place=_ACCOUNT)}


class ClickHouseHTTP(_OverHTTP):
    """ClickHouse's interface over HTTP."""

    name = "clickhouse-http"
    readable_name = "ClickHouse (HTTP)"
    # Teleport has one ALPN value for both of ClickHouse's protocols.
    alpn = ("teleport-clickhouse-ping", "teleport-clickhouse")
    default_port = 8123
    wire = HTTPWire(_clickhouse_error)
    path = "/?query=SELECT%201"

    def _path_of(self, facts: ConnectionFacts) -> str:
        names = {"user": facts.user, "database": facts.database}
        return with_query("/", {key: name for key, name in names.items() if name is not None})


def _url(facts: ConnectionFacts, path: str) -> str:
    scheme = "http" if facts.plain else "https"
    return f"{scheme}://{place_of(facts)}{path}"


def _curl(facts: ConnectionFacts, path: str) -> list[str]:
    if facts.socket is not None:
        return ["curl", "--unix-socket", str(facts.socket), f"http://localhost{path}"]
    files = files_of(facts, ca="--cacert", certificate="--cert", key="--key")
    return ["curl", *(word for option in files for word in option), _url(facts, path)]
