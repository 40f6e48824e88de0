"""The protocols on top of HTTP, as Teleport carries them.

They differ in how a client is told: each has its own form of an error in a response's body, from
which its clients take the text that they print.
"""

import shlex
from collections.abc import Mapping
from typing import Final

from dbproxy.errors import DBProxyError
from dbproxy.protocols.base import ConnectionFacts
from dbproxy.protocols.client_first import ClientFirst
from dbproxy.protocols.command_line import files_of, host_of, place_of
from dbproxy.protocols.wire import one_line
from dbproxy.protocols.wire.clickhouse import exception_code
from dbproxy.protocols.wire.http import HTTPWire, as_json
from dbproxy.settings import Mode

__all__ = ["ClickHouseHTTP", "DynamoDB", "Elasticsearch", "OpenSearch", "Snowflake"]

_JSON: Final = "application/json"
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

    def connect_command(self, facts: ConnectionFacts) -> str:
        return shlex.join(_curl(facts, self.path))


class Elasticsearch(_OverHTTP):
    """Elasticsearch."""

    name = "elasticsearch"
    readable_name = "Elasticsearch"
    alpn = ("teleport-elasticsearch-ping", "teleport-elasticsearch")
    default_port = 9200
    wire = HTTPWire(_search_error)


class OpenSearch(_OverHTTP):
    """OpenSearch."""

    name = "opensearch"
    readable_name = "OpenSearch"
    alpn = ("teleport-opensearch-ping", "teleport-opensearch")
    default_port = 9200
    wire = HTTPWire(_search_error)


class DynamoDB(_OverHTTP):
    """Amazon DynamoDB."""

    name = "dynamodb"
    readable_name = "DynamoDB"
    alpn = ("teleport-dynamodb-ping", "teleport-dynamodb")
    default_port = 8000
    wire = HTTPWire(_aws_error)
    passthrough = False

    def connect_command(self, facts: ConnectionFacts) -> str:
        if facts.mode is not Mode.TUNNEL or facts.socket is not None:
            return super().connect_command(facts)  # AWS's own tools show no certificate
        return shlex.join(["aws", "dynamodb", "list-tables", "--endpoint-url", _url(facts, "")])


class Snowflake(_OverHTTP):
    """Snowflake."""

    name = "snowflake"
    readable_name = "Snowflake"
    alpn = ("teleport-snowflake-ping", "teleport-snowflake")
    default_port = 443
    wire = HTTPWire(_snowflake_error)
    passthrough = False

    def connect_command(self, facts: ConnectionFacts) -> str:
        if facts.mode is not Mode.TUNNEL:
            return super().connect_command(facts)
        words = ["snowsql", "-a", "teleport", "-h", host_of(facts), "-p", str(facts.port)]
        words += ["--protocol", "http"]
        if facts.user is not None:
            words += ["-u", facts.user]
        return shlex.join(words)


class ClickHouseHTTP(_OverHTTP):
    """ClickHouse's interface over HTTP."""

    name = "clickhouse-http"
    readable_name = "ClickHouse (HTTP)"
    # Teleport has one ALPN value for both of ClickHouse's protocols.
    alpn = ("teleport-clickhouse-ping", "teleport-clickhouse")
    default_port = 8123
    wire = HTTPWire(_clickhouse_error)
    path = "/?query=SELECT%201"


def _url(facts: ConnectionFacts, path: str) -> str:
    scheme = "http" if facts.mode is Mode.TUNNEL else "https"
    return f"{scheme}://{place_of(facts)}{path}"


def _curl(facts: ConnectionFacts, path: str) -> list[str]:
    if facts.socket is not None:
        return ["curl", "--unix-socket", str(facts.socket), f"http://localhost{path}"]
    files = files_of(facts, ca="--cacert", certificate="--cert", key="--key")
    return ["curl", *(word for option in files for word in option), _url(facts, path)]
